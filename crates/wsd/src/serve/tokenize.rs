//! `POST /tokenize` and `/detokenize`, and `GET /tokenizer_info`, in vLLM's form.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use wsd_core::{Engine, Error, Prompt, Seat, Token};

use super::app::App;
use super::error::ApiError;
use super::fields::Fields;
use super::json_reply::off_reactor;
use super::reply::token_text;
use super::request::find_recipe;

/// Finds the engine in whose vocabulary the answers of a strategy are.
fn output_engine(app: &App, fields: &mut Fields) -> Result<Arc<dyn Engine>, ApiError> {
    let recipe = find_recipe(app, fields.take("model")?)?;
    let seat = if recipe.needs.iter().any(|need| need.seat == Seat::BASE) { Seat::BASE } else { Seat::DRAFT };
    app.models.get(seat).cloned().ok_or_else(ApiError::internal)
}

/// Converts a text or a conversation to token ids.
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let fields = app.bodies.read(&headers, body).await?;
    off_reactor(move || ids(&app, fields)).await.map(Json)
}

fn ids(app: &App, mut fields: Fields) -> Result<Value, ApiError> {
    let engine = output_engine(app, &mut fields)?;
    let special = fields.take("add_special_tokens")?.unwrap_or(true);
    let pieces = fields.take("return_token_strs")?.unwrap_or(false);
    let text = fields.take::<String>("prompt")?;
    let tokens = match text {
        Some(text) if special => engine.codec().render(&Prompt::Raw(text))?.tokens,
        Some(text) => engine.codec().tokenizer().encode(&text)?,
        None => engine.codec().render(&super::chat::prompt(app, &mut fields)?)?.tokens,
    };
    fields.finish()?;
    let mut reply = json!({"count": tokens.len(), "max_model_len": engine.card().max_len, "tokens": tokens});
    if pieces {
        reply["token_strs"] = tokens.iter().map(|&token| token_text(engine.as_ref(), token)).collect();
    }
    Ok(reply)
}

/// Describes the tokenizer behind `/tokenize`, as lm-evaluation-harness reads it.
pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let engine = output_engine(&app, &mut Fields::new(json!({}), "")?)?;
    let name = |token: Token| token_text(engine.as_ref(), token);
    let bos = engine.codec().render(&Prompt::Raw("a".into()))?.bos;
    let eos = engine.codec().eos().or(engine.card().end_tokens.first().copied());
    Ok(Json(json!({
        "tokenizer_class": "wsd", "bos_token": bos.map(name), "eos_token": eos.map(name),
        "pad_token": null, "chat_template": null, "model_max_length": engine.card().max_len,
    })))
}

/// Converts token ids to text.
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let fields = app.bodies.read(&headers, body).await?;
    off_reactor(move || text(&app, fields)).await.map(Json)
}

fn text(app: &App, mut fields: Fields) -> Result<Value, ApiError> {
    let engine = output_engine(app, &mut fields)?;
    let tokens: Vec<Token> = fields.need("tokens")?;
    fields.finish()?;
    let limit = engine.card().vocab;
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= limit) {
        return Err(Error::TokenRange { engine: engine.card().name.clone(), token, limit }.into());
    }
    Ok(json!({"prompt": engine.codec().tokenizer().decode(&tokens)?}))
}
