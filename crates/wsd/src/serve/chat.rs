//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use wsd_core::{ChatRole, Message, Prompt};

use super::App;
use super::decoding::{self, begun};
use super::error::ApiError;
use super::fields::Fields;
use super::reply::{chat_logprobs, whole};
use super::request::{Ask, MAX_MESSAGES, MAX_TOKENS, MAX_TOP, read};
use super::sse::{self, Envelope};

pub(super) async fn chat(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    app.expect_room()?;
    let (ask, prompt) = parse(&app, read(&app, &headers, body).await?)?;
    let jobs = ask.jobs(&[prompt])?;
    let items = decoding::run(&app, &ask.strategy, jobs, app.admit()?);
    if ask.stream {
        return Ok(streamed(&app, ask, begun(items).await?));
    }
    let answers = decoding::whole(items, ask.n).await?;
    let envelope = Envelope::new(&app, "chatcmpl", "chat.completion", ask.model);
    let reply = whole(&envelope, &ask, &answers, |index, answer| {
        json!({
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": null},
            "logprobs": ask.logprobs.map(|_| chat_logprobs(ask.output_engine().as_ref(), &answer.tokens)),
        })
    });
    Ok(Json(reply).into_response())
}

fn parse(app: &App, mut fields: Fields) -> Result<(Ask, Prompt), ApiError> {
    let mut ask = Ask::parse(app, &mut fields)?;
    let prompt = prompt(app, &mut fields)?;
    let logprobs = fields.take("logprobs")?.unwrap_or(false);
    let top = fields.number("top_logprobs", 0, MAX_TOP)?.unwrap_or(0);
    if top > 0 && !logprobs {
        return Err(ApiError::parameter("top_logprobs", "needs `logprobs`"));
    }
    let newer = fields.number("max_completion_tokens", 1, MAX_TOKENS)?;
    let older = fields.number("max_tokens", 1, MAX_TOKENS)?;
    ask.limits(newer.or(older), logprobs.then_some(top));
    fields.finish()?;
    Ok((ask, prompt))
}

/// The conversation, with the server's system message and prefill where it brings none of its own.
pub(super) fn prompt(app: &App, fields: &mut Fields) -> Result<Prompt, ApiError> {
    let given: Vec<Value> = fields.need("messages")?;
    if given.is_empty() || given.len() > MAX_MESSAGES {
        let message = format!("must hold from 1 to {MAX_MESSAGES} messages, given: {}", given.len());
        return Err(ApiError::parameter("messages", message));
    }
    let messages = given.into_iter().enumerate().map(|(i, value)| message(value, i));
    let mut messages = messages.collect::<Result<Vec<_>, _>>()?;
    let ends_with_answer = messages.last().is_some_and(|last| last.role == ChatRole::Assistant);
    let continues = fields.take::<bool>("continue_final_message")?;
    let begins = fields.take::<bool>("add_generation_prompt")?;
    match (continues, begins) {
        (Some(true), Some(true)) => {
            let message = "and `add_generation_prompt` cannot both be true";
            return Err(ApiError::parameter("continue_final_message", message));
        }
        (Some(true), _) if !ends_with_answer => {
            return Err(ApiError::parameter("continue_final_message", "needs a last message of the assistant's"));
        }
        (Some(false), _) if ends_with_answer => {
            let message = "must be true: a last message of the assistant's is continued";
            return Err(ApiError::parameter("continue_final_message", message));
        }
        (_, Some(true)) if ends_with_answer => {
            let message = "must be false: a last message of the assistant's is continued";
            return Err(ApiError::parameter("add_generation_prompt", message));
        }
        (_, Some(false)) if !ends_with_answer => {
            let message = "must be true: an answer is always begun or continued";
            return Err(ApiError::parameter("add_generation_prompt", message));
        }
        _ => {}
    }
    let around = &app.settings.prompt;
    if let Some(system) = &around.system
        && messages[0].role != ChatRole::System
    {
        messages.insert(0, Message::new(ChatRole::System, system));
    }
    if let Some(prefill) = &around.prefill
        && !ends_with_answer
    {
        messages.push(Message::new(ChatRole::Assistant, prefill));
    }
    Ok(Prompt::Chat(messages))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Value>),
}

fn message(value: Value, index: usize) -> Result<Message, ApiError> {
    let mut fields = Fields::new(value, format!("messages[{index}]"))?;
    let role: ChatRole = fields.need("role")?;
    let content = fields
        .take("content")?
        .ok_or_else(|| ApiError::parameter(fields.name("content"), "must be a string or a list of text parts"))?;
    let text = match content {
        Content::Text(text) => text,
        Content::Parts(parts) => {
            let path = fields.name("content");
            let parts = parts.into_iter().enumerate().map(|(i, part)| text_part(part, format!("{path}[{i}]")));
            parts.collect::<Result<String, _>>()?
        }
    };
    // What answers carry along when they are sent back, and what lm-evaluation-harness adds.
    fields.unsupported(&[
        ("type", &["\"text\"", "\"message\""]),
        ("name", &["\"\""]),
        ("audio", &[]),
        ("function_call", &[]),
        ("tool_calls", &["[]"]),
        ("annotations", &["[]"]),
        ("refusal", &["\"\""]),
    ])?;
    fields.finish()?;
    Ok(Message::new(role, text))
}

fn text_part(part: Value, path: String) -> Result<String, ApiError> {
    let mut fields = Fields::new(part, path)?;
    let kind: String = fields.need("type")?;
    if kind != "text" {
        return Err(ApiError::parameter(fields.name("type"), format!("must be `text`, given: {kind}")));
    }
    let text = fields.need("text")?;
    fields.finish()?;
    Ok(text)
}

/// The answer as a stream of chunks.
fn streamed(app: &App, ask: Ask, items: decoding::Items) -> Response {
    let envelope = Envelope::new(app, "chatcmpl", "chat.completion.chunk", ask.model);
    let choice =
        |index: usize, delta: Value| json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
    let opening = (0..ask.n).map(|index| choice(index, json!({"role": "assistant", "content": "", "refusal": null})));
    let (opening, ask) = (opening.collect(), Arc::new(ask));
    let asked = ask.clone();
    sse::respond(app, envelope, asked, opening, items, move |index, token, _| {
        let Some(token) = token else { return choice(index, json!({})) };
        let mut choice = choice(index, json!({"content": token.text}));
        if ask.logprobs.is_some() {
            choice["logprobs"] = chat_logprobs(ask.output_engine().as_ref(), std::slice::from_ref(token));
        }
        choice
    })
}
