//! `wsd serve`: OpenAI's protocol, and a page that shows who wrote what.
//!
//! A request is a stream of events of [`wsd_core::run`] behind a place in a bounded queue; dropping it, by whatever hand, frees
//! all it held.

mod admission;
mod auth;
mod chat;
mod completions;
mod decoding;
mod error;
mod fields;
mod host;
mod listen;
mod listing;
mod metrics;
mod openapi;
mod page;
mod reply;
mod request;
mod sse;
mod tokenize;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use wsd_core::{Bridge, Models, Seat};

use crate::config::{ServeSettings, Settings};
use admission::{Admission, Admitted};
pub use auth::Keys;
use error::ApiError;
pub use listen::serve;
use metrics::Metrics;

/// The server's state.
pub struct App {
    models: Models,
    /// Whether token ids mean the same to both models.
    one_vocabulary: bool,
    settings: Settings,
    serve: ServeSettings,
    /// The seed of requests that bring none; drawn for each where absent.
    seed: Option<u64>,
    keys: Keys,
    admission: Admission,
    /// Bytes that bodies on their way may take together.
    body_bytes: Semaphore,
    metrics: Metrics,
    closing: AtomicBool,
    started: u64,
    ids: AtomicU64,
    random: RandomState,
}

impl App {
    /// A server of these models. `seed` stands for requests that bring none.
    #[must_use]
    pub fn new(models: Models, settings: Settings, seed: Option<u64>, keys: Keys) -> Self {
        let serve = settings.serve.clone();
        let texts = models.get(Seat::DRAFT).zip(models.get(Seat::BASE));
        let one_vocabulary = texts.is_none_or(|(draft, base)| Bridge::passes_ids(draft.codec(), base.codec()));
        let admission = Admission::new(serve.max_concurrent, serve.max_queue);
        Self {
            models,
            one_vocabulary,
            settings,
            serve,
            seed,
            keys,
            admission,
            body_bytes: Semaphore::new(request::MAX_BODIES),
            metrics: Metrics::default(),
            closing: AtomicBool::new(false),
            started: unix_time(),
            ids: AtomicU64::new(0),
            random: RandomState::new(),
        }
    }

    /// Let a request in, or send it away.
    fn admit(&self) -> Result<Admitted, ApiError> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(ApiError::closing());
        }
        self.admission.admit().inspect_err(|_| self.metrics.add(&metrics::REJECTED, "", 1))
    }

    /// Send a request away for which there is no room, before its body is read.
    fn expect_room(&self) -> Result<(), ApiError> {
        if self.admission.is_full() { self.admit().map(drop) } else { Ok(()) }
    }

    /// A name for a reply, unlike any other.
    fn next_id(&self, prefix: &str) -> String {
        format!("{prefix}-{:016x}", self.random_seed())
    }

    /// A number nobody can foresee, small enough to be exact in JSON.
    fn random_seed(&self) -> u64 {
        self.random.hash_one(self.ids.fetch_add(1, Ordering::Relaxed)) >> 11
    }
}

/// Seconds since 1970.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// All routes.
pub fn app(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/models", get(listing::models))
        .route("/v1/models/{model}", get(listing::model))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/tokenizer_info", get(tokenize::info))
        .route("/ready", get(listing::ready))
        .route("/metrics", get(listing::metrics))
        .route("/openapi.json", get(openapi::document))
        .fallback(async |uri: Uri| ApiError::not_found(uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::method(method.as_str(), uri.path()))
        .layer(from_fn_with_state(app.clone(), auth::guard))
        .layer(from_fn_with_state(app.clone(), host::guard))
        .route("/health", get(listing::health))
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(from_fn_with_state(app.clone(), count));
    match cors(&app.serve.cors) {
        Some(cors) => routes.layer(cors).with_state(app),
        None => routes.with_state(app),
    }
}

/// Who may call from pages of other origins: nobody, unless named.
fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE]);
    (!origins.is_empty()).then(|| layer.allow_origin(origins.to_vec()))
}

/// Count a request by its route, never by its raw path, and its status.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (route, status) = (path.as_ref().map_or("none", MatchedPath::as_str), response.status().as_u16());
    app.metrics.add(&metrics::HTTP, format!("route=\"{route}\",status=\"{status}\""), 1);
    response
}
