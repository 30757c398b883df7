//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use wsd_core::{ChatRole, Completion, MAX_TOKENS, Message, Prompt, TokenRecord};

use super::app::App;
use super::decoding::{self, await_first_event};
use super::envelope::Envelope;
use super::error::ApiError;
use super::fields::{FieldType, Fields};
use super::ignored::Place;
use super::json_reply::off_reactor;
use super::reply::{chat_logprobs, complete_reply};
use super::request::{GenerationRequest, MAX_MESSAGES, MAX_TOP, max_tokens};
use super::request_log::Caller;
use super::source::{Given, Source};
use super::sse::Chunks;

/// Handles `POST /v1/chat/completions`.
pub(super) async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.expect_room(caller.client)?;
    let mut fields = app.bodies.read(&headers, body).await?;
    let source = Source::Messages(given(&mut fields)?);
    let (request, prompt) = parse(&app, &caller, fields, source)?;
    let jobs = request.jobs(&[prompt])?;
    request.check_reply(0, jobs.len())?;
    let events = decoding::run(&app, &request, jobs, app.admit(caller.client)?);
    if request.stream {
        return Ok(stream_reply(&app, request, await_first_event(events).await?));
    }
    let answers = decoding::collect(events, request.n).await?;
    let envelope = Envelope::new(&app, "chatcmpl-", "chat.completion", request.model);
    let choice = |request: &GenerationRequest, index: usize, answer: &Completion| {
        let logprobs = request.logprobs.map(|_| chat_logprobs(request.output_engine().as_ref(), &answer.tokens));
        let message = json!({"role": "assistant", "content": answer.text, "refusal": null});
        (json!({"index": index, "message": message, "logprobs": logprobs}), None)
    };
    let build =
        move || Ok(complete_reply(&envelope, &request, &answers, |index, answer| choice(&request, index, answer)));
    Ok(off_reactor(build).await?.into_response())
}

/// Takes all fields of a request, in the terms of chat completions.
pub(super) fn parse(
    app: &App,
    caller: &Caller,
    mut fields: Fields,
    source: Source,
) -> Result<(GenerationRequest, Prompt), ApiError> {
    let mut request = GenerationRequest::parse(app, caller, &mut fields)?;
    let prompt = match source {
        Source::Messages(given) => conversation(app, &mut fields, given)?,
        Source::Text(text) => Prompt::Raw(text),
    };
    let logprobs = fields.take("logprobs")?.unwrap_or(false);
    let top = fields.number("top_logprobs", 0, MAX_TOP)?.unwrap_or(0);
    if top > 0 && !logprobs {
        return Err(ApiError::parameter("top_logprobs", "must be left out without `logprobs`"));
    }
    // The protocol's newer name and its older one.
    let newer = max_tokens(&mut fields, "max_completion_tokens")?;
    let older = max_tokens(&mut fields, MAX_TOKENS.name)?;
    request.limits(newer.or(older), logprobs.then_some(top));
    fields.finish()?;
    Ok((request, prompt))
}

/// Takes the messages of a conversation.
pub(super) fn given(fields: &mut Fields) -> Result<Vec<Given>, ApiError> {
    let messages: Vec<Value> = fields.need("messages")?;
    let given = messages.into_iter().enumerate();
    Ok(given.map(|(index, value)| Given { path: format!("messages[{index}]"), value }).collect())
}

/// Reads a conversation, to which the server's system message and prefill are added where it has
/// none of its own.
pub(super) fn conversation(app: &App, fields: &mut Fields, given: Vec<Given>) -> Result<Prompt, ApiError> {
    if given.is_empty() || given.len() > MAX_MESSAGES {
        let message = format!("must have from 1 to {MAX_MESSAGES} messages, got {}", given.len());
        return Err(ApiError::parameter("messages", message));
    }
    let messages = given.into_iter().map(|given| message(given, app.serve.strict));
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    let ends_with_answer = messages.last().is_some_and(|last| last.role == ChatRole::Assistant);
    let continues = fields.take::<bool>("continue_final_message")?;
    let begins = fields.take::<bool>("add_generation_prompt")?;
    match (continues, begins) {
        (Some(true), Some(true)) => {
            let message = "and `add_generation_prompt` cannot both be true";
            return Err(ApiError::parameter("continue_final_message", message));
        }
        (Some(true), _) if !ends_with_answer => {
            return Err(ApiError::parameter(
                "continue_final_message",
                "must be false unless the last message is the assistant's",
            ));
        }
        (Some(false), _) if ends_with_answer => {
            let message = "must be true where the last message is the assistant's, which is continued";
            return Err(ApiError::parameter("continue_final_message", message));
        }
        (_, Some(true)) if ends_with_answer => {
            let message = "must be false where the last message is the assistant's, which is continued";
            return Err(ApiError::parameter("add_generation_prompt", message));
        }
        (_, Some(false)) if !ends_with_answer => {
            let message = "must be true unless the last message is the assistant's";
            return Err(ApiError::parameter("add_generation_prompt", message));
        }
        _ => {}
    }
    Ok(Prompt::Chat(app.settings.prompt.complete(messages)))
}

/// The content of a message.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Value>),
}

impl FieldType for Content {
    const EXPECTED: &'static str = "a string or a list of text parts";
}

/// Reads a message of a conversation. A `strict` server refuses fields without effect.
fn message(given: Given, strict: bool) -> Result<Message, ApiError> {
    let mut fields = Fields::new(given.value, given.path)?;
    let role: ChatRole = fields.need("role")?;
    if !strict {
        fields.ignore(Place::Message);
    }
    // Fields of answers that clients send back, and fields that lm-evaluation-harness adds.
    fields.unsupported(&[
        ("type", &["\"text\"", "\"message\""]),
        ("name", &["\"\""]),
        ("audio", &[]),
        ("function_call", &[]),
        ("images", &["[]"]),
        ("tool_calls", &["[]"]),
        ("annotations", &["[]"]),
        ("refusal", &["\"\""]),
    ])?;
    let content = fields.take("content")?.ok_or_else(|| {
        ApiError::parameter(fields.name("content"), format!("must be {}, got null", Content::EXPECTED))
    })?;
    let text = match content {
        Content::Text(text) => text,
        Content::Parts(parts) => {
            let path = fields.name("content");
            let parts = parts.into_iter().enumerate().map(|(i, part)| text_part(part, format!("{path}[{i}]"), strict));
            parts.collect::<Result<String, _>>()?
        }
    };
    fields.finish()?;
    Ok(Message::new(role, text))
}

/// Reads a text part of a message.
fn text_part(part: Value, path: String, strict: bool) -> Result<String, ApiError> {
    let mut fields = Fields::new(part, path)?;
    let kind: String = fields.need("type")?;
    if kind != "text" {
        return Err(ApiError::parameter(
            fields.name("type"),
            format!("must be `text`, got {kind}: the models here read text alone"),
        ));
    }
    let text = fields.need("text")?;
    if !strict {
        fields.ignore(Place::Message);
    }
    fields.finish()?;
    Ok(text)
}

/// Returns the reply as a stream of chunks.
fn stream_reply(app: &App, request: GenerationRequest, events: decoding::Events) -> Response {
    let envelope = Envelope::new(app, "chatcmpl-", "chat.completion.chunk", request.model);
    let delta_choice =
        |index: usize, delta: Value| json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
    let opening =
        (0..request.n).map(|index| delta_choice(index, json!({"role": "assistant", "content": "", "refusal": null})));
    let opening: Vec<_> = opening.map(|choice| choice.to_string()).collect();
    let (opening, request) = (Box::new(opening.into_iter()), Arc::new(request));
    let parameters = request.clone();
    let choice = move |index: usize, token: Option<&TokenRecord>, _| {
        let Some(token) = token else { return delta_choice(index, json!({})) };
        let mut choice = delta_choice(index, json!({"content": token.text}));
        if parameters.logprobs.is_some() {
            choice["logprobs"] = chat_logprobs(parameters.output_engine().as_ref(), std::slice::from_ref(token));
        }
        choice
    };
    Chunks { envelope, request, opening, choice }.respond(app, events)
}
