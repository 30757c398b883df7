//! Anthropic's Messages: `POST /v1/messages` and `/v1/messages/count_tokens`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use wsd_core::{ChatRole, Completion, FinishReason, MAX_TOKENS, STOP};

use super::form::{Form, Line, Wire};
use super::item::{Item, Kind, Part, Said};
use super::tools::{call, function, keep_functions, result_message};
use super::{Asked, details, parse};
use crate::serve::app::App;
use crate::serve::chat;
use crate::serve::error::{ApiError, Shape};
use crate::serve::fields::{FieldType, Fields};
use crate::serve::ignored::Place;
use crate::serve::request::GenerationRequest;
use crate::serve::request_log::Caller;
use crate::serve::source::{Given, Source};

/// A reply in the form of Messages.
pub(crate) struct Messages {
    id: String,
}

/// A text, or blocks of content.
#[derive(Deserialize)]
#[serde(untagged)]
enum Blocks {
    Text(String),
    List(Vec<Value>),
}

impl FieldType for Blocks {
    const EXPECTED: &'static str = "a string or a list of blocks";
}

impl Form for Messages {
    const WIRE: Wire = Wire::Events;

    fn read(app: &Arc<App>, _: &Caller, fields: &mut Fields) -> Result<(Self, Source), ApiError> {
        fields.rename("stop_sequences", STOP.name);
        keep_functions(fields, |tool| {
            let schema = tool.get("input_schema")?.clone();
            Some(function(&tool["name"], &tool["description"], &schema))
        })?;
        choose_tool(fields)?;
        let mut given = Vec::new();
        if let Some(system) = fields.take::<Blocks>("system")? {
            let mut message = Turn::new(ChatRole::System, "system".into());
            message.read(system)?;
            message.finish(&mut given);
        }
        let messages: Vec<Value> = fields.need("messages")?;
        for (index, value) in messages.into_iter().enumerate() {
            let mut message = Fields::new(value, format!("messages[{index}]"))?;
            let role: ChatRole = message.need("role")?;
            let mut turn = Turn::new(role, message.name("content"));
            turn.read(message.need("content")?)?;
            message.ignore(Place::Message, app.serve.strict);
            message.finish()?;
            turn.finish(&mut given);
        }
        Ok((Self { id: app.next_id("msg_") }, Source::Messages(given)))
    }

    fn begin(&mut self, request: &GenerationRequest, prompt_tokens: usize) -> Vec<Line> {
        let usage = json!({
            "input_tokens": prompt_tokens, "output_tokens": 0,
            "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
        });
        let message = self.message(request, &json!([]), &usage);
        vec![Line::named("message_start", json!({"message": message}))]
    }

    fn part(&mut self, index: usize, part: &Part<'_>) -> Vec<Line> {
        match part {
            Part::Begin(item) => {
                let start = json!({"index": index, "content_block": block(item)});
                let ping = (index == 0).then(|| Line::named("ping", json!({})));
                [Line::named("content_block_start", start)].into_iter().chain(ping).collect()
            }
            Part::More(item, text) => {
                let (kind, field) = match item.kind {
                    Kind::Text => ("text_delta", "text"),
                    Kind::Reasoning => ("thinking_delta", "thinking"),
                    Kind::Call => ("input_json_delta", "partial_json"),
                };
                let delta = json!({"index": index, "delta": {"type": kind, field: text}});
                vec![Line::named("content_block_delta", delta)]
            }
            Part::End(_) => vec![Line::named("content_block_stop", json!({"index": index}))],
        }
    }

    fn end(&mut self, request: &GenerationRequest, said: &Said) -> Vec<Line> {
        let (stop_reason, stop_sequence) = stop(request, said);
        let delta = json!({"stop_reason": stop_reason, "stop_sequence": stop_sequence});
        let end = json!({"delta": delta, "usage": usage(&said.answer), "wsd": details(request, &said.answer)});
        vec![Line::named("message_delta", end), Line::named("message_stop", json!({}))]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Line> {
        vec![Line::named("error", error.body_in(Shape::Anthropic))]
    }

    fn whole(&mut self, request: &GenerationRequest, said: &Said) -> Value {
        let (stop_reason, stop_sequence) = stop(request, said);
        // A call that was cut off would be a call with other arguments.
        let is_whole = |item: &&Item| item.kind != Kind::Call || item.arguments().is_some();
        let content = said.items.iter().filter(is_whole).map(block).collect();
        let mut message = self.message(request, &content, &usage(&said.answer));
        message["stop_reason"] = json!(stop_reason);
        message["stop_sequence"] = json!(stop_sequence);
        message["wsd"] = details(request, &said.answer);
        message
    }
}

impl Messages {
    /// Returns a message before its end.
    fn message(&self, request: &GenerationRequest, content: &Value, usage: &Value) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": request.model, "content": content,
            "stop_reason": null, "stop_sequence": null, "usage": usage,
        })
    }
}

/// Returns the block of an item.
fn block(item: &Item) -> Value {
    match item.kind {
        Kind::Text => json!({"type": "text", "text": item.text}),
        Kind::Reasoning => json!({"type": "thinking", "thinking": item.text, "signature": ""}),
        Kind::Call => {
            let input = item.arguments().unwrap_or_else(|| json!({}));
            json!({"type": "tool_use", "id": item.id, "name": item.name, "input": input})
        }
    }
}

/// Returns the reason why an answer ended, and the stop string if that was one of the request's.
fn stop<'a>(request: &GenerationRequest, said: &'a Said) -> (&'static str, Option<&'a str>) {
    let stop = said.answer.stop_string.as_deref();
    let own = stop.filter(|stop| request.stops().iter().any(|own| own == stop));
    match (own, said.answer.finish_reason) {
        (Some(stop), _) => ("stop_sequence", Some(stop)),
        (None, FinishReason::Stop) if said.all(Kind::Call).next().is_some() => ("tool_use", None),
        (None, FinishReason::Stop) => ("end_turn", None),
        (None, FinishReason::Length) => ("max_tokens", None),
    }
}

/// Returns the token counts. Those read from a cache are no part of `input_tokens`.
fn usage(answer: &Completion) -> Value {
    let cached = answer.timings.cached_tokens;
    json!({
        "input_tokens": answer.usage.prompt_tokens - cached, "output_tokens": answer.usage.completion_tokens,
        "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0,
    })
}

/// Renames the choice among tools.
fn choose_tool(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(choice) = fields.take::<Value>("tool_choice")? else { return Ok(()) };
    let mut choice = Fields::new(choice, "tool_choice")?;
    let kind: String = choice.need("type")?;
    let chosen = match kind.as_str() {
        "any" => json!("required"),
        "tool" => json!({"type": "function", "function": {"name": choice.need::<String>("name")?}}),
        _ => json!(kind),
    };
    if let Some(disabled) = choice.take::<bool>("disable_parallel_tool_use")? {
        fields.set("parallel_tool_calls", json!(!disabled));
    }
    choice.finish()?;
    fields.set("tool_choice", chosen);
    Ok(())
}

/// A message whose blocks are being read.
struct Turn {
    role: ChatRole,
    path: String,
    /// Text parts, in the form of chat completions.
    texts: Vec<Value>,
    calls: Vec<Value>,
    /// Results of calls, each a message of its own.
    results: Vec<Value>,
}

impl Turn {
    fn new(role: ChatRole, path: String) -> Self {
        Self { role, path, texts: Vec::new(), calls: Vec::new(), results: Vec::new() }
    }

    fn read(&mut self, blocks: Blocks) -> Result<(), ApiError> {
        match blocks {
            Blocks::Text(text) => self.texts.push(json!({"type": "text", "text": text})),
            Blocks::List(blocks) => {
                for (index, block) in blocks.into_iter().enumerate() {
                    let path = format!("{}[{index}]", self.path);
                    self.block(block, path)?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, block: Value, path: String) -> Result<(), ApiError> {
        match block["type"].as_str() {
            // Thoughts of earlier answers are no part of the conversation.
            Some("thinking" | "redacted_thinking") => {}
            Some("tool_use") => {
                self.calls.push(call(&block["id"], &block["name"], &block["input"].to_string()));
            }
            Some("tool_result") => {
                let content = block.get("content").filter(|content| !content.is_null());
                let content = content.cloned().unwrap_or_else(|| json!(""));
                self.results.push(result_message(&block["tool_use_id"], &content));
            }
            Some("text") => self.texts.push(block),
            _ => {
                let mut block = Fields::new(block, path)?;
                let kind: String = block.need("type")?;
                let unread = chat::unread(&kind);
                let message = format!("must be `text`, `thinking`, `tool_use` or `tool_result`, got {unread}");
                return Err(ApiError::parameter(block.name("type"), message));
            }
        }
        Ok(())
    }

    /// Adds the messages: results of calls first, as they answer the message before.
    fn finish(self, given: &mut Vec<Given>) {
        let Self { role, path, texts, calls, results } = self;
        // The path of the content without its last word is that of the message.
        let path = path.strip_suffix(".content").unwrap_or(&path).to_owned();
        let has_results = !results.is_empty();
        given.extend(results.into_iter().map(|value| Given { path: path.clone(), value }));
        if has_results && texts.is_empty() && calls.is_empty() {
            return;
        }
        let mut value = json!({"role": role, "content": texts});
        if !calls.is_empty() {
            value["tool_calls"] = calls.into();
        }
        given.push(Given { path, value });
    }
}

/// Handles `POST /v1/messages/count_tokens`.
pub(crate) async fn count_tokens(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let mut fields = app.bodies.read(&headers, body).await?;
    app.clone()
        .work
        .of_body(fields.bytes(), move || {
            // The limit of an answer that is not asked for.
            fields.take::<Value>(MAX_TOKENS.name)?;
            let Asked { request, prompt, .. } = parse::<Messages>(&app, &caller, fields)?;
            let tokens = request.output_engine().codec().render(&prompt)?.tokens.len();
            Ok(Json(json!({"input_tokens": tokens})))
        })
        .await
}
