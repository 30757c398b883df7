//! `wsd serve`: OpenAI's, Anthropic's and Ollama's protocols, and a page that shows the author of
//! each token.
//!
//! The answer to a request is a stream of events of [`wsd_core::run`] behind a place in a bounded
//! queue. Dropping the stream, for whatever reason, frees all it held.

mod admission;
mod app;
mod auth;
mod body;
mod chat;
mod client;
mod clock;
mod completions;
mod connection;
mod constraint;
mod conversations;
mod decoding;
mod embeddings;
mod envelope;
mod error;
mod fields;
mod host;
mod ignored;
mod json_reply;
mod keys;
mod listen;
mod listing;
mod metrics;
mod openapi;
mod page;
mod properties;
mod protocol;
mod reply;
mod report;
mod request;
mod request_log;
mod source;
mod sse;
mod tokenize;
mod tools;
mod unread;
mod variables;
mod work;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tower::util::MapRequest;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, CorsLayer};

pub use admission::all_slots;
pub use app::App;
use auth::Challenge;
use error::ApiError;
pub use ignored::{IGNORED, Ignored, Place};
pub use keys::{KeyError, Keys};
use protocol::messages::{self, Messages};
use protocol::ollama;
use protocol::responses::Responses;

/// Serves until `shutdown` completes, then lets running answers end within the drain time. Returns
/// the number of requests that were cut off after it; their clients are told.
pub async fn serve(app: Arc<App>, listener: TcpListener, shutdown: impl Future<Output = ()>) -> usize {
    listen::serve(&app, &router(app.clone()), listener, shutdown).await
}

/// Returns all routes.
pub fn router(app: Arc<App>) -> Router {
    let routes = with_keys(&app, Challenge::Bearer, for_programs())
        .merge(with_keys(&app, Challenge::Basic, for_browsers()))
        .layer(from_fn_with_state(app.clone(), host::guard))
        .route("/health", get(listing::health))
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(from_fn(error::shape))
        .layer(from_fn_with_state(app.clone(), count))
        .layer(from_fn_with_state(app.clone(), request_log::trace))
        .layer(from_fn(unread::close));
    let routes = match cors(&app.serve.cors) {
        Some(cors) => routes.layer(cors).with_state(app),
        None => routes.with_state(app),
    };
    Router::new().fallback_service(MapRequest::new(routes, without_last_slash))
}

/// Takes the slash off the end of a path, which some clients add.
fn without_last_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let path = uri.path().trim_end_matches('/');
    if !path.is_empty() && path.len() < uri.path().len() {
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = format!("{path}{query}").parse().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The routes of the protocols with a version, which clients call with the version and without.
fn versioned() -> Router<Arc<App>> {
    Router::new()
        .route("/chat/completions", post(chat::chat))
        .route("/completions", post(completions::completions))
        .route("/embeddings", post(embeddings::embeddings))
        .route("/messages", post(protocol::answer::<Messages>))
        .route("/messages/count_tokens", post(messages::count_tokens))
        .route("/models", get(listing::models))
        .route("/models/{model}", get(listing::model))
        .route("/responses", post(protocol::answer::<Responses>))
}

/// The routes that programs call.
fn for_programs() -> Router<Arc<App>> {
    Router::new()
        .nest("/v1", versioned())
        .merge(versioned())
        .merge(for_ollama())
        .route("/apply-template", post(properties::apply_template))
        .route("/props", get(properties::props))
        .route("/slots", get(properties::slots))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/tokenizer_info", get(tokenize::info))
}

/// The routes of Ollama's clients.
fn for_ollama() -> Router<Arc<App>> {
    Router::new()
        .route("/api/chat", post(protocol::answer::<ollama::Chat>))
        .route("/api/generate", post(protocol::answer::<ollama::Generate>))
        .route("/api/show", post(ollama::show))
        .layer(from_fn(ollama::accept_curl))
        .route("/api/ps", get(ollama::running))
        .route("/api/tags", get(ollama::tags))
        .route("/api/version", get(ollama::version))
}

/// The routes that people open in a browser, and all paths without a route.
fn for_browsers() -> Router<Arc<App>> {
    page::routes()
        .route("/ready", get(listing::ready))
        .route("/metrics", get(listing::metrics))
        .route("/openapi.json", get(openapi::document))
        .fallback(async |uri: Uri| ApiError::not_found(uri.path()))
}

/// Puts routes behind the API keys.
fn with_keys(app: &Arc<App>, challenge: Challenge, routes: Router<Arc<App>>) -> Router<Arc<App>> {
    routes
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::method(method.as_str(), uri.path()))
        .layer(from_fn_with_state((app.clone(), challenge), auth::guard))
}

/// Returns the layer that lets pages of these origins call; `None` where there are none.
fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        // The clients of each protocol send headers of their own.
        .allow_headers(AllowHeaders::mirror_request());
    (!origins.is_empty()).then(|| layer.allow_origin(origins.to_vec()))
}

/// Counts a request by its status and its route, never by its path, which clients choose.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (route, status) = (path.as_ref().map_or("none", MatchedPath::as_str), response.status().as_u16());
    app.metrics.add(&metrics::HTTP, format!("route=\"{route}\",status=\"{status}\""), 1);
    response
}
