//! `POST /tokenize` and `/detokenize` in vLLM's form and in llama-server's, and `GET /tokenizer_info`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use wsd_core::{Engine, Error, Prompt, Seat, Token};

use super::app::App;
use super::chat;
use super::error::ApiError;
use super::fields::Fields;
use super::reply::token_text;
use super::request::find_recipe;

/// Finds the engine in whose vocabulary the answers of a strategy are.
pub(super) fn output_engine(app: &App, fields: &mut Fields) -> Result<Arc<dyn Engine>, ApiError> {
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
    app.clone().work.of_body(fields.bytes(), move || ids(&app, fields)).await.map(Json)
}

fn ids(app: &App, mut fields: Fields) -> Result<Value, ApiError> {
    let engine = output_engine(app, &mut fields)?;
    let with_pieces = fields.take("with_pieces")?.unwrap_or(false);
    let pieces = fields.take("return_token_strs")?.unwrap_or(false);
    // llama-server's names beside vLLM's; it adds no special tokens by default.
    let adds_special = fields.get("content").is_none();
    fields.rename("content", "prompt");
    fields.rename("add_special", "add_special_tokens");
    fields.rename("parse_special", "special");
    // Special tokens in a text are always read as such.
    fields.unsupported(&[("special", &["true"])])?;
    let special = fields.take("add_special_tokens")?.unwrap_or(adds_special);
    let text = fields.take::<String>("prompt")?;
    let tokens = match text {
        Some(text) if special => engine.codec().render(&Prompt::Raw(text))?.tokens,
        Some(text) => engine.codec().tokenizer().encode(&text)?,
        None if fields.get("messages").is_none() => {
            return Err(ApiError::parameter("prompt", "must be given, or `content`, or `messages`"));
        }
        None => engine.codec().render(&chat::prompt(app, &mut fields, engine.codec())?)?.tokens,
    };
    fields.finish()?;
    if with_pieces {
        let piece = |&token: &Token| json!({"id": token, "piece": token_text(engine.as_ref(), token)});
        return Ok(json!({"tokens": tokens.iter().map(piece).collect::<Vec<_>>()}));
    }
    let mut reply = json!({"count": tokens.len(), "max_model_len": engine.card().max_len, "tokens": tokens});
    if pieces {
        reply["token_strs"] = tokens.iter().map(|&token| token_text(engine.as_ref(), token)).collect();
    }
    Ok(reply)
}

/// Describes the tokenizer behind `/tokenize`, as lm-evaluation-harness reads it.
pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let engine = output_engine(&app, &mut Fields::new(json!({}), "")?)?;
    let mut reply = special_tokens(engine.as_ref())?;
    let own = json!({
        "tokenizer_class": "wsd", "pad_token": null, "chat_template": null, "model_max_length": engine.card().max_len,
    });
    if let (Value::Object(reply), Value::Object(own)) = (&mut reply, own) {
        reply.extend(own);
    }
    Ok(Json(reply))
}

/// Returns the tokens at the beginning and at the end of a text.
pub(super) fn special_tokens(engine: &dyn Engine) -> Result<Value, ApiError> {
    let name = |token: Token| token_text(engine, token);
    let bos = engine.codec().render(&Prompt::Raw("a".into()))?.bos;
    let eos = engine.codec().eos().or(engine.card().end_tokens.first().copied());
    Ok(json!({"bos_token": bos.map(name), "eos_token": eos.map(name)}))
}

/// Converts token ids to text.
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let fields = app.bodies.read(&headers, body).await?;
    app.clone().work.of_body(fields.bytes(), move || text(&app, fields)).await.map(Json)
}

fn text(app: &App, mut fields: Fields) -> Result<Value, ApiError> {
    let engine = output_engine(app, &mut fields)?;
    let tokens: Vec<Token> = fields.need("tokens")?;
    fields.finish()?;
    let limit = engine.card().vocab;
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= limit) {
        return Err(Error::TokenRange { engine: engine.card().name.clone(), token, limit }.into());
    }
    let text = engine.codec().tokenizer().decode(&tokens)?;
    // vLLM's name of the text, and llama-server's.
    Ok(json!({"prompt": text, "content": text}))
}
