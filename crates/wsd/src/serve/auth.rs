//! Access by API key, which also tells one client from another.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use super::client::Client;
use super::connection::Peer;
use super::error::ApiError;
use super::keys::parse_header;
use super::request_log::{Caller, RequestLog};

/// The authentication scheme that a refusal names.
#[derive(Clone, Copy)]
pub(super) enum Challenge {
    /// For programs, which send a key of their own.
    Bearer,
    /// For browsers, which then ask their user for a password: the key.
    Basic,
}

/// Returns the key that a request was sent with. Anthropic's clients have a header of their own.
fn sent_key(headers: &HeaderMap) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let key = header(header::AUTHORIZATION.as_str()).and_then(parse_header);
    key.or_else(|| header("x-api-key").map(str::to_owned))
}

/// Refuses requests without a valid key.
pub(super) async fn guard(
    State((app, challenge)): State<(Arc<App>, Challenge)>,
    mut request: Request,
    next: Next,
) -> Response {
    let key = sent_key(request.headers());
    let client = if app.keys.is_empty() {
        let peer = request.extensions().get::<Peer>();
        Some(peer.map_or(Client::Unknown, |peer| Client::at(peer.address)))
    } else {
        key.and_then(|key| app.keys.find(&key)).map(Client::Key)
    };
    let log = request.extensions().get::<Arc<RequestLog>>().cloned();
    if let Some((client, log)) = client.zip(log) {
        log.sent_by(client);
        request.extensions_mut().insert(Caller { client, log });
        return next.run(request).await;
    }
    let challenge = match challenge {
        Challenge::Bearer => "Bearer",
        Challenge::Basic => "Basic realm=\"wsd\"",
    };
    ApiError::no_key(challenge).into_response()
}
