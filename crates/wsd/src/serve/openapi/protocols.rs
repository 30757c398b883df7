//! The bodies of the protocols besides OpenAI's completions, and of embeddings.

use serde_json::{Value, json};
use wsd_core::MAX_TOKENS;

use super::{chat, common, extend, ids, ignored, model, object, schema, stream_options};
use crate::serve::embeddings::MAX_INPUTS;
use crate::serve::ignored::Place;
use crate::serve::request::MAX_MESSAGES;

/// The schemas by name.
pub(super) fn schemas() -> Value {
    json!({
        "AnthropicError": anthropic_error(),
        "OllamaError": object(json!({"error": {"type": "string"}}), &["error"]),
        "ResponsesRequest": responses(),
        "MessagesRequest": messages(),
        "EmbeddingsRequest": embeddings(),
        "OllamaChatRequest": ollama(json!({"messages": list(&open_object(&["role"]))}), &["messages"]),
        "OllamaGenerateRequest": ollama(json!({"prompt": text(), "system": text(), "raw": flag()}), &[]),
        "OllamaShowRequest": object(json!({"model": {"type": "string"}, "verbose": flag()}), &["model"]),
        "TemplateRequest": template(),
    })
}

fn text() -> Value {
    json!({"type": ["string", "null"]})
}

fn flag() -> Value {
    json!({"type": ["boolean", "null"]})
}

/// The schema of an object with further properties, of which some are required.
fn open_object(required: &[&str]) -> Value {
    json!({"type": "object", "required": required})
}

fn list(items: &Value) -> Value {
    json!({"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": items})
}

/// The fields of all protocols and those of one.
fn with_common(more: Value, required: &[&str]) -> Value {
    let mut fields = common();
    fields["n"] = json!({"enum": [1, null]});
    fields["chat_template_kwargs"] = chat()["properties"]["chat_template_kwargs"].clone();
    extend(&mut fields, more);
    object(fields, required)
}

fn anthropic_error() -> Value {
    let error = object(json!({"type": {"type": "string"}, "message": {"type": "string"}}), &["type", "message"]);
    object(json!({"type": {"const": "error"}, "error": error}), &["type", "error"])
}

fn responses() -> Value {
    let items = json!({"type": "array", "items": open_object(&[])});
    let more = json!({
        "input": {"anyOf": [text(), items]},
        "instructions": text(),
        "previous_response_id": text(),
        "max_output_tokens": schema(&MAX_TOKENS),
        "text": {"type": ["object", "null"]},
        "tools": {"type": ["array", "null"]},
        "stream_options": stream_options(),
    });
    with_common(more, &[])
}

fn messages() -> Value {
    let blocks = json!({"anyOf": [{"type": "string"}, {"type": "array", "items": open_object(&["type"])}]});
    let mut message = json!({"role": {"enum": ["user", "assistant", "system"]}, "content": blocks});
    extend(&mut message, ignored(Place::Message));
    let more = json!({
        "messages": list(&object(message, &["role", "content"])),
        "system": {"anyOf": [blocks, {"type": "null"}]},
        "stop_sequences": {"type": ["array", "null"], "items": {"type": "string"}},
        "tools": {"type": ["array", "null"]},
    });
    with_common(more, &["messages"])
}

fn ollama(more: Value, required: &[&str]) -> Value {
    let mut fields = json!({"model": text(), "options": {"type": ["object", "null"]}, "format": {}});
    extend(&mut fields, more);
    with_common(fields, required)
}

fn embeddings() -> Value {
    let texts = json!({"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": {"type": "string"}});
    let lists = json!({"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": ids(1)});
    let mut pooling = object(json!({"pooling": {"enum": ["mean", "last", null]}}), &[]);
    pooling["type"] = json!(["object", "null"]);
    let mut fields = json!({
        "model": {"enum": ["base", "draft", "wsd", null]},
        "input": {"anyOf": [{"type": "string"}, ids(1), texts, lists]},
        "encoding_format": {"enum": ["float", "base64", null]},
        "user": text(),
        "wsd": pooling,
    });
    extend(&mut fields, ignored(Place::Request));
    object(fields, &["input"])
}

/// The schema of a conversation as templates take it.
pub(super) fn template() -> Value {
    let chat = &chat()["properties"];
    let fields = json!({
        "model": model(), "messages": chat["messages"], "chat_template_kwargs": chat["chat_template_kwargs"],
        "continue_final_message": flag(), "add_generation_prompt": flag(), "tools": chat["tools"],
        "tool_choice": chat["tool_choice"], "parallel_tool_calls": chat["parallel_tool_calls"],
    });
    object(fields, &["messages"])
}
