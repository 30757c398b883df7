//! OpenAI's Responses: `POST /v1/responses`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wsd_core::{Completion, FinishReason, MAX_TOKENS};

use super::details;
use super::form::{Form, Line, Wire};
use super::item::{Item, Kind, Part, Said};
use super::tools::{call, call_message, function, keep_functions, result_message};
use crate::serve::app::App;
use crate::serve::client::Client;
use crate::serve::clock::unix_time;
use crate::serve::error::ApiError;
use crate::serve::fields::{FieldType, Fields};
use crate::serve::request::GenerationRequest;
use crate::serve::request_log::Caller;
use crate::serve::source::{Given, Source};

/// Fields of the request that the reply repeats, with their values where the request has none.
static REPEATED: &[(&str, &str)] = &[
    ("background", "false"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", "{\"effort\":null,\"summary\":null}"),
    ("safety_identifier", "null"),
    ("service_tier", "\"default\""),
    ("store", "true"),
    ("temperature", "null"),
    ("text", "{\"format\":{\"type\":\"text\"}}"),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("top_p", "null"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
];

/// A reply in the form of Responses.
pub(crate) struct Responses {
    app: Arc<App>,
    client: Client,
    id: String,
    created: u64,
    repeated: Map<String, Value>,
    /// The messages of the conversation without instructions, where the answer is kept for a later
    /// request.
    kept: Option<Vec<Value>>,
    /// Events sent so far.
    sequence: u64,
}

/// The field `input`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Items(Vec<Value>),
}

impl FieldType for Input {
    const EXPECTED: &'static str = "a string or a list of items";
}

impl Form for Responses {
    const WIRE: Wire = Wire::Events;

    fn read(app: &Arc<App>, caller: &Caller, fields: &mut Fields) -> Result<(Self, Source), ApiError> {
        let repeated = REPEATED.iter().map(|&(name, default)| {
            let value = fields.get(name).filter(|value| !value.is_null()).cloned();
            (name.to_owned(), value.unwrap_or_else(|| serde_json::from_str(default).unwrap_or_default()))
        });
        let repeated: Map<_, _> = repeated.collect();
        fields.rename("max_output_tokens", MAX_TOKENS.name);
        keep_functions(fields, |tool| {
            let is_function = tool["type"] == "function";
            let parameters = tool["parameters"].clone();
            is_function.then(|| function(&tool["name"], &tool["description"], &parameters))
        })?;
        if let Some(name) = fields.get("tool_choice").and_then(|choice| choice.get("name")).cloned() {
            fields.set("tool_choice", json!({"type": "function", "function": {"name": name}}));
        }
        read_text_options(fields)?;
        let mut given = Vec::new();
        if let Some(id) = fields.take::<String>("previous_response_id")? {
            let earlier = app.conversations.find(caller.client, &id).ok_or_else(|| ApiError::unknown_response(&id))?;
            let path = |index| format!("previous_response_id[{index}]");
            given.extend(earlier.into_iter().enumerate().map(|(index, value)| Given { path: path(index), value }));
        }
        match fields.take::<Input>("input")? {
            Some(Input::Text(text)) => given.push(message("input".into(), json!({"role": "user", "content": text}))),
            Some(Input::Items(items)) => {
                for (index, item) in items.into_iter().enumerate() {
                    given.extend(read_item(item, format!("input[{index}]"))?);
                }
            }
            None => {}
        }
        if given.is_empty() {
            // Some clients ask for nothing, to see whether the route exists.
            given.push(message("input".into(), json!({"role": "user", "content": ""})));
        }
        let keeps = repeated["store"] == true;
        let kept = keeps.then(|| given.iter().map(|given| given.value.clone()).collect());
        if let Some(text) = fields.take::<String>("instructions")? {
            given.insert(0, message("instructions".into(), json!({"role": "system", "content": text})));
        }
        let form = Self {
            app: app.clone(),
            client: caller.client,
            id: app.next_id("resp_"),
            created: unix_time(),
            repeated,
            kept,
            sequence: 0,
        };
        Ok((form, Source::Messages(given)))
    }

    fn begin(&mut self, request: &GenerationRequest, _: usize) -> Vec<Line> {
        let response = self.response(request, "in_progress");
        vec![
            self.line("response.created", json!({"response": response.clone()})),
            self.line("response.in_progress", json!({"response": response})),
        ]
    }

    fn part(&mut self, index: usize, part: &Part<'_>) -> Vec<Line> {
        match part {
            Part::Begin(item) => {
                let mut begun = output(item, "in_progress");
                if item.kind != Kind::Call {
                    begun["content"] = json!([]);
                }
                let mut lines =
                    vec![self.line("response.output_item.added", json!({"output_index": index, "item": begun}))];
                if let Some(part) = content(item) {
                    lines.push(self.item_line("response.content_part.added", (index, item), json!({"part": part})));
                }
                lines
            }
            Part::More(item, text) => {
                let (event, data) = match item.kind {
                    Kind::Text => ("response.output_text.delta", json!({"delta": text, "logprobs": []})),
                    Kind::Reasoning => ("response.reasoning_text.delta", json!({"delta": text})),
                    Kind::Call => ("response.function_call_arguments.delta", json!({"delta": text})),
                };
                vec![self.item_line(event, (index, item), data)]
            }
            Part::End(item) => {
                let (event, data) = match item.kind {
                    Kind::Text => ("response.output_text.done", json!({"text": item.text, "logprobs": []})),
                    Kind::Reasoning => ("response.reasoning_text.done", json!({"text": item.text})),
                    Kind::Call => {
                        let data = json!({"name": item.name, "arguments": item.text});
                        ("response.function_call_arguments.done", data)
                    }
                };
                let mut lines = vec![self.item_line(event, (index, item), data)];
                if let Some(part) = content(item) {
                    lines.push(self.item_line("response.content_part.done", (index, item), json!({"part": part})));
                }
                let done = json!({"output_index": index, "item": output(item, item_status(item))});
                lines.push(self.line("response.output_item.done", done));
                lines
            }
        }
    }

    fn end(&mut self, request: &GenerationRequest, said: &Said) -> Vec<Line> {
        let response = self.whole(request, said);
        let event = if status(&said.answer) == "completed" { "response.completed" } else { "response.incomplete" };
        vec![self.line(event, json!({"response": response}))]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Line> {
        let body = error.body();
        let fields = ["message", "code", "param"].map(|name| (name.to_owned(), body["error"][name].clone()));
        vec![self.line("error", Map::from_iter(fields).into())]
    }

    fn whole(&mut self, request: &GenerationRequest, said: &Said) -> Value {
        let status = status(&said.answer);
        let mut response = self.response(request, status);
        response["output"] = said.items.iter().map(|item| output(item, item_status(item))).collect();
        response["usage"] = usage(&said.answer);
        response["wsd"] = details(request, &said.answer);
        if status == "incomplete" {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        } else {
            response["completed_at"] = json!(unix_time());
        }
        if let Some(mut messages) = self.kept.take() {
            let call = |item: &Item| Some(call(&json!(item.id), &json!(item.name), &item.arguments()?.to_string()));
            let calls: Vec<_> = said.all(Kind::Call).filter_map(call).collect();
            messages.push(json!({"role": "assistant", "content": said.text(Kind::Text), "tool_calls": calls}));
            self.app.conversations.keep(self.client, &self.id, messages);
        }
        response
    }
}

impl Responses {
    /// Returns the response without its output.
    fn response(&self, request: &GenerationRequest, status: &str) -> Value {
        let mut response = self.repeated.clone();
        let own = json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "model": request.model,
            "error": null, "incomplete_details": null, "output": [], "usage": null,
            "temperature": request.temperature(), "top_p": request.top_p(),
        });
        if let Value::Object(own) = own {
            response.extend(own);
        }
        response.into()
    }

    /// Returns the next event.
    fn line(&mut self, event: &'static str, mut data: Value) -> Line {
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Line::named(event, data)
    }

    /// Returns the next event about an item, or about the one part of its content.
    fn item_line(&mut self, event: &'static str, (index, item): (usize, &Item), mut data: Value) -> Line {
        data["item_id"] = json!(item_id(item));
        data["output_index"] = json!(index);
        if item.kind != Kind::Call {
            data["content_index"] = json!(0);
        }
        self.line(event, data)
    }
}

/// Returns the name of an item, which for a call is not that of the call.
fn item_id(item: &Item) -> String {
    let prefix = match item.kind {
        Kind::Text => "msg_",
        Kind::Reasoning => "rs_",
        Kind::Call => "fc_",
    };
    format!("{prefix}{}", item.id)
}

/// Returns the one part of an item's content; `None` for a call.
fn content(item: &Item) -> Option<Value> {
    match item.kind {
        Kind::Text => Some(json!({"type": "output_text", "text": item.text, "annotations": [], "logprobs": []})),
        Kind::Reasoning => Some(json!({"type": "reasoning_text", "text": item.text})),
        Kind::Call => None,
    }
}

/// Returns an item of the output.
fn output(item: &Item, status: &str) -> Value {
    let (id, content) = (item_id(item), content(item).into_iter().collect::<Vec<_>>());
    match item.kind {
        Kind::Text => {
            json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
        }
        Kind::Reasoning => {
            json!({"id": id, "type": "reasoning", "status": status, "summary": [], "content": content})
        }
        Kind::Call => json!({
            "id": id, "type": "function_call", "status": status, "call_id": item.id, "name": item.name,
            "arguments": item.text,
        }),
    }
}

fn item_status(item: &Item) -> &'static str {
    if item.is_cut { "incomplete" } else { "completed" }
}

fn status(answer: &Completion) -> &'static str {
    match answer.finish_reason {
        FinishReason::Stop => "completed",
        FinishReason::Length => "incomplete",
    }
}

fn usage(answer: &Completion) -> Value {
    let (prompt, written) = (answer.usage.prompt_tokens, answer.usage.completion_tokens);
    json!({
        "input_tokens": prompt, "input_tokens_details": {"cached_tokens": answer.timings.cached_tokens},
        "output_tokens": written, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": prompt + written,
    })
}

/// Takes the object `text`, whose format is that of the answer.
fn read_text_options(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(text) = fields.take::<Value>("text")? else { return Ok(()) };
    let mut text = Fields::new(text, "text")?;
    // It is one of the fields without effect, under the name that chat completions have for it.
    if let Some(verbosity) = text.take::<Value>("verbosity")? {
        fields.set("verbosity", verbosity);
    }
    if let Some(mut format) = text.take::<Value>("format")? {
        if format["type"] == "json_schema" {
            let schema = format.as_object_mut().map(std::mem::take).unwrap_or_default();
            let inner: Map<_, _> = schema.into_iter().filter(|(name, _)| name != "type").collect();
            format = json!({"type": "json_schema", "json_schema": inner});
        }
        fields.set("response_format", format);
    }
    text.finish()
}

fn message(path: String, value: Value) -> Given {
    Given { path, value }
}

/// Reads an item of the input; `None` for one that is no part of the conversation.
fn read_item(item: Value, path: String) -> Result<Option<Given>, ApiError> {
    let value = match item["type"].as_str() {
        None | Some("message") => return conversation_message(item, path).map(Some),
        // Thoughts, references and calls of tools that run at a provider say nothing here.
        Some(
            "reasoning"
            | "item_reference"
            | "web_search_call"
            | "file_search_call"
            | "code_interpreter_call"
            | "image_generation_call"
            | "compaction"
            | "mcp_list_tools",
        ) => return Ok(None),
        Some("function_call") => {
            let arguments = item["arguments"].as_str().unwrap_or("{}").to_owned();
            call_message(&call(&item["call_id"], &item["name"], &arguments))
        }
        Some("function_call_output") => result_message(&item["call_id"], &item["output"]),
        Some(kind) => {
            let limit = "`message`, `reasoning`, `function_call` or `function_call_output`";
            return Err(ApiError::parameter(format!("{path}.type"), format!("must be {limit}, got {kind}")));
        }
    };
    Ok(Some(Given { path, value }))
}

/// Reads a message, whose parts have other names than those of chat completions.
fn conversation_message(item: Value, path: String) -> Result<Given, ApiError> {
    let Value::Object(mut fields) = item else {
        return Err(ApiError::parameter(path, format!("must be an object, got {item}")));
    };
    fields.remove("type");
    for part in fields.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        match part["type"].as_str() {
            Some("input_text" | "output_text") => part["type"] = json!("text"),
            Some("refusal") => *part = json!({"type": "text", "text": part["refusal"]}),
            _ => {}
        }
    }
    Ok(Given { path, value: fields.into() })
}
