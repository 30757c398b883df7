//! `GET /v1/models`, and the state of the server: `/health`, `/ready` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use wsd_core::{Activity, Recipe, SAMPLING, SEED, STRATEGY, TERMS};

use super::app::App;
use super::error::ApiError;
use super::metrics::Gauge;
use super::request::{find_recipe, named_recipes};
use crate::models::short_name;

/// Returns the entry of a strategy under a name.
fn entry(app: &App, name: &str, recipe: &Recipe) -> Value {
    let models = recipe.needs.iter().map(|need| need.seat);
    let models = models.filter_map(|seat| Some((seat, app.models.get(seat)?.card())));
    let max_len = models.clone().map(|(_, card)| card.max_len).min();
    let names = models.map(|(seat, card)| (seat.to_string(), json!(short_name(&card.name)))).collect::<Map<_, _>>();
    json!({
        "id": name, "object": "model", "created": app.started, "owned_by": "wsd",
        "max_model_len": max_len, "wsd": {"about": recipe.about, "models": names, "defaults": defaults(app, recipe)},
    })
}

/// Returns the values that apply where a request leaves a setting out, for the settings that
/// `recipe` reads.
fn defaults(app: &App, recipe: &Recipe) -> Value {
    let mut defaults = Map::from_iter([(STRATEGY.name.to_owned(), json!(app.settings.recipe.name))]);
    // A request without a seed gets one of its own, which is no default.
    let settings = recipe.settings.iter().chain(TERMS).chain(SAMPLING);
    for setting in settings.filter(|setting| setting.name != SEED.name && !setting.host_only) {
        defaults.insert(setting.name.to_owned(), json!(app.settings.values.value(setting)));
    }
    Value::Object(defaults)
}

/// Lists the strategies that the models can follow.
pub(super) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let entries: Vec<_> = named_recipes(&app).map(|(name, recipe)| entry(&app, name, recipe)).collect();
    Json(json!({"object": "list", "data": entries}))
}

/// Describes one strategy.
pub(super) async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let recipe = find_recipe(&app, Some(name.clone()))?;
    Ok(Json(entry(&app, &name, recipe)))
}

/// Tells that the process lives.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Tells whether new requests are accepted.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.closing.load(Ordering::SeqCst) {
        return ApiError::closing().into_response();
    }
    (StatusCode::OK, Json(json!({"status": "ready"}))).into_response()
}

/// Reports all metrics in Prometheus' text format.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let admission = &app.admission;
    let gauge = |name, help, value| Gauge { name, help, labels: String::new(), value };
    let mut gauges = vec![
        gauge("vllm:num_requests_running", "Answers being written.", admission.running()),
        gauge("vllm:num_requests_waiting", "Answers that wait for a slot.", admission.waiting()),
        gauge("wsd_slots", "Answers that can be written at a time.", admission.max_concurrent()),
    ];
    let engines: Vec<_> = app.models.iter().map(|(seat, engine)| (seat, engine.activity())).collect();
    for (name, help, value) in [
        ("wsd_engine_slots", "Sessions that hold a cache.", (|a| a.slots) as fn(Activity) -> usize),
        ("wsd_engine_working", "Questions being answered.", |a| a.working),
        ("wsd_engine_steps", "Batches run so far.", |a| a.steps),
        ("wsd_engine_reused_tokens", "Tokens that another request had computed.", |a| a.reused_tokens),
    ] {
        gauges.extend(engines.iter().map(|(seat, activity)| {
            let labels = format!("role=\"{seat}\"");
            Gauge { name, help, labels, value: value(*activity) }
        }));
    }
    let mut text = app.metrics.render(&gauges);
    text.push_str(&process());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Reports the process's resources, named as Prometheus' own clients name them.
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

#[cfg(test)]
mod tests {
    use super::short_name;

    #[test]
    fn folders_of_this_machine_are_no_part_of_a_name() {
        for (name, public) in [
            ("/data/models/llama-8b", "llama-8b"),
            ("/data/models/q4.gguf", "q4.gguf"),
            ("builtin:base", "builtin:base"),
            ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
            ("org/name@refs/pr/1", "org/name@refs/pr/1"),
            ("org/name:Q4/q4.gguf", "org/name:Q4/q4.gguf"),
            ("vllm+http://a:8000/llama", "vllm+http://a:8000/llama"),
            ("/", "/"),
            ("../models/q4.gguf", "q4.gguf"),
            ("~/models/llama-8b/", "llama-8b"),
        ] {
            assert_eq!(short_name(name), public);
        }
    }
}
