//! llama-server's `GET /props` and `/slots`, and `POST /apply-template`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use wsd_core::{SAMPLING, Seat, TERMS};

use super::app::App;
use super::chat;
use super::error::ApiError;
use super::fields::Fields;
use super::tokenize::{output_engine, special_tokens};
use crate::models::short_name;

/// Describes the server and its base model.
pub(super) async fn props(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let engine = output_engine(&app, &mut Fields::new(json!({}), "")?)?;
    let values = TERMS.iter().chain(SAMPLING);
    let params: Map<_, _> =
        values.map(|setting| (setting.name.to_owned(), json!(app.settings.values.value(setting)))).collect();
    let mut reply = special_tokens(engine.as_ref())?;
    let more = json!({
        "default_generation_settings": {"n_ctx": engine.card().max_len, "params": params},
        "total_slots": app.admission.max_concurrent(),
        "model_path": short_name(&engine.card().name),
        "model_alias": app.settings.recipe.name,
        "chat_template": "",
        "modalities": {"vision": false, "audio": false},
        "build_info": concat!("wsd-", env!("CARGO_PKG_VERSION")),
    });
    if let (Value::Object(reply), Value::Object(more)) = (&mut reply, more) {
        reply.extend(more);
    }
    Ok(Json(reply))
}

/// Lists the slots for answers: those at the beginning are in use.
pub(super) async fn slots(State(app): State<Arc<App>>) -> Json<Value> {
    let (running, all) = (app.admission.running(), app.admission.max_concurrent());
    let max_len = app.models.get(Seat::BASE).map(|engine| engine.card().max_len);
    let slot = |id| json!({"id": id, "is_processing": id < running, "n_ctx": max_len});
    Json((0..all).map(slot).collect())
}

/// Renders a conversation as the model reads it.
pub(super) async fn apply_template(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let mut fields = app.bodies.read(&headers, body).await?;
    app.clone()
        .work
        .of_body(fields.bytes(), move || {
            let engine = output_engine(&app, &mut fields)?;
            let prompt = chat::prompt(&app, &mut fields, engine.codec())?;
            fields.finish()?;
            Ok(Json(json!({"prompt": engine.codec().render(&prompt)?.text})))
        })
        .await
}
