//! The page: files in the binary, which request nothing from other servers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use wsd_core::{Engine, Need, Seat};

use super::app::App;
use crate::models::{BUILTIN_ABOUT, BUILTIN_EXAMPLES, short_name};

/// Content security policy: nothing but what this server sends, and no frame around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The media type of scripts.
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page: path, media type and text.
type File = (&'static str, &'static str, &'static str);

/// Every file of the page.
const FILES: [File; 6] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/app.js", SCRIPT, include_str!("page/app.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/markdown.js", SCRIPT, include_str!("page/markdown.js")),
    ("/store.js", SCRIPT, include_str!("page/store.js")),
];

/// Questions to real models: about a fact, about a task, and one for code.
const EXAMPLES: [&str; 3] =
    ["Why is the sky blue?", "How do I keep bees?", "Write a Python function that reverses a list."];

/// Returns the routes of the page.
pub(super) fn routes() -> Router<Arc<App>> {
    let files = FILES
        .into_iter()
        .fold(Router::new(), |router, (path, media, text)| router.route(path, get(async move || file(media, text))));
    files.route("/page.json", get(about))
}

/// Returns a file of the page.
fn file(media: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// Describes the models to the page: names without folders, sizes, and questions to try.
async fn about(State(app): State<Arc<App>>) -> Json<Value> {
    let models: Map<_, _> =
        app.models.iter().map(|(seat, engine)| (seat.to_string(), model(engine.as_ref()))).collect();
    let is_builtin = app.settings.has_builtin(&[Need::any(Seat::BASE), Need::any(Seat::DRAFT)]);
    let (about, examples) = if is_builtin { (json!(BUILTIN_ABOUT), BUILTIN_EXAMPLES) } else { (Value::Null, EXAMPLES) };
    Json(json!({"models": models, "about": about, "examples": examples}))
}

fn model(engine: &dyn Engine) -> Value {
    let (card, files) = (engine.card(), engine.files());
    json!({
        "name": short_name(&card.name), "parameters": files.parameters, "bytes": files.bytes, "max_len": card.max_len,
    })
}
