//! Access by API key, which also tells one client from another.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use super::client::Client;
use super::connection::Peer;
use super::error::ApiError;
use super::keys::parse_header;

/// The authentication scheme that a refusal names.
#[derive(Clone, Copy)]
pub(super) enum Challenge {
    /// For programs, which send a key of their own.
    Bearer,
    /// For browsers, which then ask their user for a password: the key.
    Basic,
}

/// Refuses requests without a valid key.
pub(super) async fn guard(
    State((app, challenge)): State<(Arc<App>, Challenge)>,
    mut request: Request,
    next: Next,
) -> Response {
    let key = request.headers().get(header::AUTHORIZATION).and_then(|value| parse_header(value.to_str().ok()?));
    let client = if app.keys.is_empty() {
        let peer = request.extensions().get::<Peer>();
        Some(peer.map_or(Client::Unknown, |peer| Client::at(peer.address)))
    } else {
        key.and_then(|key| app.keys.find(&key)).map(Client::Key)
    };
    if let Some(client) = client {
        request.extensions_mut().insert(client);
        return next.run(request).await;
    }
    let challenge = match challenge {
        Challenge::Bearer => "Bearer",
        Challenge::Basic => "Basic realm=\"wsd\"",
    };
    ApiError::no_key(challenge).into_response()
}
