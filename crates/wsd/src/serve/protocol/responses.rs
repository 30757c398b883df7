//! OpenAI's Responses: `POST /v1/responses`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wsd_core::{Completion, FinishReason, MAX_TOKENS};

use super::tools::{call, call_message, function, keep_functions, result_message};
use super::{Form, Line, Part, Wire, details};
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
    /// The name of the one item of the answer.
    item: String,
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
            item: app.next_id("msg_"),
            created: unix_time(),
            repeated,
            kept,
            sequence: 0,
        };
        Ok((form, Source::Messages(given)))
    }

    fn begin(&mut self, request: &GenerationRequest, _: usize) -> Vec<Line> {
        let response = self.response(request, "in_progress");
        let mut item = self.item("", "in_progress");
        item["content"] = json!([]);
        let part = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
        vec![
            self.line("response.created", json!({"response": response.clone()})),
            self.line("response.in_progress", json!({"response": response})),
            self.line("response.output_item.added", json!({"output_index": 0, "item": item})),
            self.content_line("response.content_part.added", json!({"part": part})),
        ]
    }

    fn part(&mut self, part: &Part<'_>) -> Vec<Line> {
        let Part::Text(text) = part;
        vec![self.content_line("response.output_text.delta", json!({"delta": text, "logprobs": []}))]
    }

    fn end(&mut self, request: &GenerationRequest, answer: &Completion) -> Vec<Line> {
        let (response, status) = (self.whole(request, answer), status(answer));
        let item = response["output"][0].clone();
        let last = if status == "completed" { "response.completed" } else { "response.incomplete" };
        vec![
            self.content_line("response.output_text.done", json!({"text": answer.text, "logprobs": []})),
            self.content_line("response.content_part.done", json!({"part": item["content"][0]})),
            self.line("response.output_item.done", json!({"output_index": 0, "item": item})),
            self.line(last, json!({"response": response})),
        ]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Line> {
        let body = error.body();
        let fields = ["message", "code", "param"].map(|name| (name.to_owned(), body["error"][name].clone()));
        vec![self.line("error", Map::from_iter(fields).into())]
    }

    fn whole(&mut self, request: &GenerationRequest, answer: &Completion) -> Value {
        let status = status(answer);
        let mut response = self.response(request, status);
        response["output"] = json!([self.item(&answer.text, status)]);
        response["usage"] = usage(answer);
        response["wsd"] = details(request, answer);
        if status == "incomplete" {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        } else {
            response["completed_at"] = json!(unix_time());
        }
        if let Some(mut messages) = self.kept.take() {
            messages.push(json!({"role": "assistant", "content": answer.text}));
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

    /// Returns the item that holds a text.
    fn item(&self, text: &str, status: &str) -> Value {
        let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
        json!({"id": self.item, "type": "message", "status": status, "role": "assistant", "content": [part]})
    }

    /// Returns the next event.
    fn line(&mut self, event: &'static str, mut data: Value) -> Line {
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Line::named(event, data)
    }

    /// Returns the next event about the one part of the answer.
    fn content_line(&mut self, event: &'static str, mut data: Value) -> Line {
        data["item_id"] = json!(self.item);
        data["output_index"] = json!(0);
        data["content_index"] = json!(0);
        self.line(event, data)
    }
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
    // Its other member is listed among the fields without effect.
    text.take::<Value>("verbosity")?;
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
