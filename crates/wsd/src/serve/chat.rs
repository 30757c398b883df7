//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use wsd_core::{ChatRole, Completion, Event, MAX_TOKENS, Message, Prompt, TextCodec};

use super::app::App;
use super::decoding::{self, await_first_event};
use super::envelope::Envelope;
use super::error::ApiError;
use super::fields::{FieldType, Fields};
use super::ignored::Place;
use super::reply::{chat_logprobs, complete_reply};
use super::request::{GenerationRequest, MAX_MESSAGES, MAX_TOP, max_tokens};
use super::request_log::Caller;
use super::source::{Given, Source};
use super::sse::Chunks;
use super::tools::{self, AnswerReader, ToolUse};
use super::variables;
use super::work::off_reactor;

/// Handles `POST /v1/chat/completions`.
pub(super) async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.expect_room(caller.client)?;
    let mut fields = app.bodies.read(&headers, body).await?;
    let (parsing, client) = (app.clone(), caller.client);
    let (request, jobs) = app
        .work
        .of_body(fields.bytes(), move || {
            let source = Source::Messages(given(&mut fields)?);
            let (request, prompt) = parse(&parsing, &caller, fields, source)?;
            let jobs = request.jobs(&[prompt])?;
            Ok((request, jobs))
        })
        .await?;
    request.check_reply(0, jobs.len())?;
    let events = decoding::run(&app, &request, jobs, app.admit(client)?);
    if request.stream {
        return Ok(stream_reply(&app, request, await_first_event(events).await?));
    }
    let answers = decoding::collect(events, request.n).await?;
    let envelope = Envelope::new(&app, "chatcmpl-", "chat.completion", request.model);
    let choice = move |request: &GenerationRequest, index: usize, answer: &Completion| {
        let logprobs = request.logprobs.map(|_| chat_logprobs(request.output_engine().as_ref(), &answer.tokens));
        let Some(mut reader) = request.answer_reader() else {
            let message = json!({"role": "assistant", "content": answer.text, "refusal": null});
            return (json!({"index": index, "message": message, "logprobs": logprobs}), None);
        };
        let message = reader.read(&answer.tokens).message(|| app.next_call_id());
        let reason = reader.finish_reason(answer.finish_reason);
        (json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}), None)
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
    let variables = variables::take(app, &mut fields)?;
    let mut request = GenerationRequest::parse(app, caller, &mut fields)?;
    let tools = ToolUse::take(&mut fields, request.codec.call_format(), variables)?;
    request.answer(&tools)?;
    let prompt = match source {
        Source::Messages(given) => tools.prompt(conversation(app, &mut fields, given)?),
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

/// Reads a conversation and its tools as a prompt of the model with this codec.
pub(super) fn prompt(app: &App, fields: &mut Fields, codec: &TextCodec) -> Result<Prompt, ApiError> {
    let given = given(fields)?;
    let variables = variables::take(app, fields)?;
    let tools = ToolUse::take(fields, codec.call_format(), variables)?;
    Ok(tools.prompt(conversation(app, fields, given)?))
}

/// Reads a conversation, to which the server's system message and prefill are added where it has
/// none of its own.
fn conversation(app: &App, fields: &mut Fields, given: Vec<Given>) -> Result<Vec<Message>, ApiError> {
    if given.is_empty() || given.len() > MAX_MESSAGES {
        let message = format!("must have from 1 to {MAX_MESSAGES} messages, got {}", given.len());
        return Err(ApiError::parameter("messages", message));
    }
    let messages = given.into_iter().map(|given| message(given, app.serve.strict));
    let mut messages = messages.collect::<Result<Vec<_>, _>>()?;
    name_results(&mut messages)?;
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
    Ok(app.settings.prompt.complete(messages))
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
    let tool_calls = tools::calls(&mut fields)?;
    if !tool_calls.is_empty() && role != ChatRole::Assistant {
        let message = format!("must be left out of a message of the role {role}");
        return Err(ApiError::parameter(fields.name("tool_calls"), message));
    }
    let (tool_call_id, name) = match role {
        ChatRole::Tool => (Some(fields.need("tool_call_id")?), fields.take("name")?),
        _ => (None, None),
    };
    fields.ignore(Place::Message, strict);
    // Fields of answers that clients send back, and fields that lm-evaluation-harness adds.
    fields.unsupported(&[
        ("type", &["\"text\"", "\"message\""]),
        ("name", &["\"\""]),
        ("audio", &[]),
        ("function_call", &[]),
        ("images", &["[]"]),
        ("annotations", &["[]"]),
        ("refusal", &["\"\""]),
    ])?;
    let text = match fields.take("content")? {
        None if !tool_calls.is_empty() => String::new(),
        None => {
            let message = format!("must be {}, got null", Content::EXPECTED);
            return Err(ApiError::parameter(fields.name("content"), message));
        }
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let path = fields.name("content");
            let parts = parts.into_iter().enumerate().map(|(i, part)| text_part(part, format!("{path}[{i}]"), strict));
            parts.collect::<Result<String, _>>()?
        }
    };
    fields.finish()?;
    Ok(Message { tool_calls, tool_call_id, name, ..Message::new(role, text) })
}

/// Gives each result the name of the tool that was called, which some templates read. Refuses a call
/// without its result at the end of the conversation.
fn name_results(messages: &mut [Message]) -> Result<(), ApiError> {
    for index in 0..messages.len() {
        let (before, rest) = messages.split_at_mut(index);
        let [message, ..] = rest else { break };
        if message.role == ChatRole::Tool && message.name.is_none() {
            let mut calls = before.iter().rev().flat_map(|message| &message.tool_calls);
            let call = calls.find(|call| Some(&call.id) == message.tool_call_id.as_ref());
            message.name = call.map(|call| call.name.clone());
        }
    }
    match messages.last() {
        Some(last) if !last.tool_calls.is_empty() => {
            let message = "must not end with a call of a tool; its result is missing: a message of the role `tool`";
            Err(ApiError::parameter("messages", message))
        }
        _ => Ok(()),
    }
}

/// Names a kind of part that no model here reads, with the reason.
pub(super) fn unread(kind: &str) -> String {
    let media = ["image", "audio", "video", "file", "document"].into_iter().find(|media| kind.contains(media));
    let media = media.map_or_else(|| "text alone".to_owned(), |media| format!("no {media}"));
    format!("{kind}: the models here read {media}")
}

/// Reads a text part of a message.
fn text_part(part: Value, path: String, strict: bool) -> Result<String, ApiError> {
    let mut fields = Fields::new(part, path)?;
    let kind: String = fields.need("type")?;
    if kind != "text" {
        return Err(ApiError::parameter(fields.name("type"), format!("must be `text`, got {}", unread(&kind))));
    }
    let text = fields.need("text")?;
    fields.ignore(Place::Message, strict);
    fields.finish()?;
    Ok(text)
}

/// Returns the reply as a stream of chunks.
fn stream_reply(app: &Arc<App>, request: GenerationRequest, events: decoding::Events) -> Response {
    let envelope = Envelope::new(app, "chatcmpl-", "chat.completion.chunk", request.model);
    let opening =
        (0..request.n).map(|index| delta_choice(index, &json!({"role": "assistant", "content": "", "refusal": null})));
    let opening: Vec<_> = opening.map(|choice| choice.to_string()).collect();
    let (opening, request) = (Box::new(opening.into_iter()), Arc::new(request));
    let (parameters, owner) = (request.clone(), app.clone());
    let mut readers: Vec<_> = (0..request.n).map(|_| request.answer_reader()).collect();
    let choice = move |index: usize, event: &Event, _| {
        let (delta, reason) = match readers.get_mut(index).and_then(Option::as_mut) {
            Some(reader) => read(reader, event, &owner),
            None => (text_delta(event), None),
        };
        let mut choice = delta_choice(index, &delta);
        match event {
            Event::Token(token) if parameters.logprobs.is_some() => {
                choice["logprobs"] = chat_logprobs(parameters.output_engine().as_ref(), std::slice::from_ref(token));
            }
            Event::Token(_) if choice["delta"] == json!({}) && !parameters.token_details => return Value::Null,
            Event::Done(_) => choice["finish_reason"] = json!(reason),
            _ => {}
        }
        choice
    };
    Chunks { envelope, request, opening, choice }.respond(app, events)
}

fn delta_choice(index: usize, delta: &Value) -> Value {
    json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null})
}

/// Returns what an event adds to an answer of text alone.
fn text_delta(event: &Event) -> Value {
    match event {
        Event::Token(token) => json!({"content": token.text}),
        _ => json!({}),
    }
}

/// Returns what an event adds to an answer with calls or reasoning, and at its end the reason.
fn read(reader: &mut AnswerReader, event: &Event, app: &App) -> (Value, Option<&'static str>) {
    let parts = match event {
        Event::Token(token) => reader.push(token),
        Event::Done(_) => reader.finish(),
        _ => Vec::new(),
    };
    let reason = match event {
        Event::Done(reason) => Some(reader.finish_reason(*reason)),
        _ => None,
    };
    (tools::delta(parts, || app.next_call_id()), reason)
}
