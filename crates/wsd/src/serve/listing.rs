//! What there is: `GET /v1/models`, and whether the server lives, is ready and what it has done.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use wsd_core::{MAX_TOKENS, RECIPES, Recipe, SAMPLING, SEED, STRATEGY, TERMS};

use super::App;
use super::error::ApiError;

fn entry(app: &App, recipe: &Recipe) -> Value {
    let models = recipe.needs.iter().map(|need| need.seat);
    let models = models.filter_map(|seat| Some((seat, app.models.get(seat)?.card())));
    let max_len = models.clone().map(|(_, card)| card.max_len).min();
    let names = models.map(|(role, card)| (role.to_string(), json!(card.name))).collect::<serde_json::Map<_, _>>();
    json!({
        "id": recipe.name, "object": "model", "created": app.started, "owned_by": "wsd",
        "max_model_len": max_len, "wsd": {"about": recipe.about, "models": names, "defaults": defaults(app, recipe)},
    })
}

/// The values of settings that a request leaves out, with those that `recipe` reads.
fn defaults(app: &App, recipe: &Recipe) -> Value {
    let mut defaults = Map::from_iter([(STRATEGY.name.to_owned(), json!(app.settings.recipe.name))]);
    // A request without a seed gets one of its own.
    let settings =
        recipe.settings.iter().chain(TERMS.iter().filter(|setting| setting.name == MAX_TOKENS.name)).chain(SAMPLING);
    for setting in settings.filter(|setting| setting.name != SEED.name) {
        defaults.insert(setting.name.to_owned(), json!(app.settings.values.value(setting)));
    }
    Value::Object(defaults)
}

pub(super) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let entries: Vec<_> = RECIPES.iter().map(|recipe| entry(&app, recipe)).collect();
    Json(json!({"object": "list", "data": entries}))
}

pub(super) async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let recipe = super::request::recipe(&app, Some(name), None)?;
    Ok(Json(entry(&app, recipe)))
}

/// The process lives.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// New requests are taken.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.closing.load(Ordering::SeqCst) {
        return ApiError::closing().into_response();
    }
    (StatusCode::OK, Json(json!({"status": "ready"}))).into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let admission = &app.admission;
    let mut gauges = vec![
        ("vllm:num_requests_running", "Answers being written.", String::new(), admission.running()),
        ("vllm:num_requests_waiting", "Answers that wait for a slot.", String::new(), admission.waiting()),
        ("wsd_slots", "Answers that can be written at a time.", String::new(), admission.max_concurrent()),
    ];
    let engines: Vec<_> = app.models.iter().map(|(seat, engine)| (seat, engine.activity())).collect();
    for (name, help, value) in [
        ("wsd_engine_slots", "Sessions that hold a cache.", (|a| a.slots) as fn(wsd_core::Activity) -> usize),
        ("wsd_engine_working", "Questions being answered.", |a| a.working),
        ("wsd_engine_steps", "Batches run so far.", |a| a.steps),
        ("wsd_engine_reused_tokens", "Tokens that another request had computed.", |a| a.reused_tokens),
    ] {
        gauges
            .extend(engines.iter().map(|(seat, activity)| (name, help, format!("role=\"{seat}\""), value(*activity))));
    }
    let mut text = app.metrics.render(&gauges);
    text.push_str(&process());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// What the process takes, under the names that Prometheus' own clients use.
fn process() -> String {
    let Some(usage) = crate::process::read() else { return String::new() };
    let lines = [
        ("process_cpu_seconds_total", "counter", "Processor time used.", usage.processor_seconds.to_string()),
        ("process_resident_memory_bytes", "gauge", "Memory in use.", usage.resident_bytes.to_string()),
        ("process_open_fds", "gauge", "Files and sockets open.", usage.open_files.to_string()),
    ];
    let lines =
        lines.map(|(name, kind, help, value)| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    lines.concat()
}
