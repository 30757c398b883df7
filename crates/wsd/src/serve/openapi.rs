//! `GET /openapi.json`: all routes and parameters with their limits.

use axum::Json;
use serde_json::{Map, Value, json};
use wsd_core::{Kind, MAX_TOKENS, RECIPES, SAMPLING, STRATEGY, Setting, TOP_K, strategy_settings};

use super::request::{MAX_ANSWERS, MAX_MESSAGES, MAX_N, MAX_STOP_BYTES, MAX_STOPS, MAX_TOP};

/// Returns the document.
pub(super) async fn document() -> Json<Value> {
    Json(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "wsd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Weak-to-Strong Decoding behind OpenAI's protocol. Each strategy is a model.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"key": []}],
        "paths": paths(),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": error(), "Reply": {"type": "object"}, "ChatRequest": chat(), "CompletionRequest": completion(),
                "Message": message(), "Wsd": wsd(), "TokenizeRequest": tokenize(),
                "DetokenizeRequest": object(json!({"model": model(), "tokens": ids(0)}), &["tokens"]),
            },
        },
    }))
}

fn paths() -> Value {
    let json_of = |name: &str| json!({"schema": {"$ref": format!("#/components/schemas/{name}")}});
    let fault = |about: &str| json!({"description": about, "content": {"application/json": json_of("Error")}});
    let get = |about: &str, media: &str| {
        let reply = json!({"description": about, "content": {media: {"schema": {}}}});
        let responses = json!({"200": reply, "401": fault("No valid key."), "503": fault("Shutting down.")});
        json!({"get": {"summary": about, "responses": responses}})
    };
    let post = |about: &str, schema: &str, streams: bool| {
        let mut content = json!({"application/json": json_of("Reply")});
        if streams {
            content["text/event-stream"] = json!({"schema": {"type": "object"}});
        }
        let mut responses = json!({"200": {"description": about, "content": content}});
        for (status, about) in [
            ("400", "A parameter is unknown, unsupported or outside its limits; the error names it."),
            ("401", "No valid key."),
            ("404", "No such model."),
            ("408", "The body was too slow."),
            ("413", "The body is too large."),
            ("415", "The body is not JSON."),
            ("429", "The queue is full; retry after the time in Retry-After."),
            ("500", "The server failed."),
            ("503", "Shutting down."),
            ("504", "The answer took too long."),
        ] {
            responses[status] = fault(about);
        }
        let body = json!({"required": true, "content": {"application/json": json_of(schema)}});
        json!({"post": {"summary": about, "requestBody": body, "responses": responses}})
    };
    let mut model = get("One model", "application/json");
    model["get"]["parameters"] =
        json!([{"name": "model", "in": "path", "required": true, "schema": {"type": "string", "enum": names()}}]);
    model["get"]["responses"]["404"] = fault("No such model.");
    json!({
        "/v1/chat/completions": post("Answer a conversation", "ChatRequest", true),
        "/v1/completions": post("Continue texts or token ids", "CompletionRequest", true),
        "/v1/models": get("The models: one for each strategy", "application/json"),
        "/v1/models/{model}": model,
        "/tokenize": post("Text or a conversation to token ids", "TokenizeRequest", false),
        "/detokenize": post("Token ids to text", "DetokenizeRequest", false),
        "/tokenizer_info": get("The special tokens behind /tokenize", "application/json"),
        "/health": get("The process runs", "application/json"),
        "/ready": get("Requests are accepted", "application/json"),
        "/metrics": get("Prometheus metrics", "text/plain"),
        "/openapi.json": get("This document", "application/json"),
        "/": get("The page", "text/html"),
    })
}

/// The names of the models, which are the strategies.
fn names() -> Vec<&'static str> {
    RECIPES.iter().map(|recipe| recipe.name).collect()
}

fn model() -> Value {
    let names = names().into_iter().map(Value::from).chain([Value::Null]).collect::<Vec<_>>();
    json!({"type": ["string", "null"], "enum": names})
}

/// The schema of an object without further properties.
fn object(properties: impl Into<Value>, required: &[&str]) -> Value {
    let properties = properties.into();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// The schema of a whole number within limits, or null.
fn whole(min: usize, max: usize) -> Value {
    json!({"type": ["integer", "null"], "minimum": min, "maximum": max})
}

/// The schema of a list of at least `min` token ids.
fn ids(min: usize) -> Value {
    json!({"type": "array", "minItems": min, "items": {"type": "integer", "minimum": 0, "maximum": u32::MAX}})
}

/// The parameters of both protocols.
fn common() -> Value {
    let flag = json!({"type": ["boolean", "null"]});
    // The limit is in bytes; a character has at most four.
    let stop = json!({"type": "string", "minLength": 1, "maxLength": MAX_STOP_BYTES / 4});
    let mut fields = json!({
        "model": model(),
        "stop": {"anyOf": [stop, {"type": "array", "maxItems": MAX_STOPS, "items": stop}, {"type": "null"}]},
        "n": whole(1, MAX_N),
        "stream": flag,
        "user": {"type": ["string", "null"]},
        "cache_salt": {"type": ["string", "null"], "minLength": 1, "maxLength": 64},
        "wsd": {"$ref": "#/components/schemas/Wsd"},
        "response_format": response_format(),
        "grammar": {"type": ["string", "null"]},
        "json_schema": {"type": ["object", "null"]},
        "guided_json": {"type": ["object", "string", "null"]},
        "guided_regex": {"type": ["string", "null"]},
        "guided_choice": {"type": ["array", "null"], "items": {"type": "string"}},
        "guided_grammar": {"type": ["string", "null"]},
        "structured_outputs": {"type": ["object", "null"]},
    });
    extend(&mut fields, settings(SAMPLING));
    extend(&mut fields, settings(&[&MAX_TOKENS]));
    // vLLM's clients send -1 for all tokens.
    fields[TOP_K.name]["minimum"] = json!(-1);
    fields
}

fn response_format() -> Value {
    let text = json!({"type": ["string", "null"]});
    let named = json!({
        "name": text, "description": text, "strict": {"type": ["boolean", "null"]},
        "schema": {"type": ["object", "null"]},
    });
    let fields = json!({
        "type": {"enum": ["text", "json_object", "json_schema"]}, "json_schema": object(named, &[]),
        "schema": {"type": ["object", "null"]},
    });
    let mut schema = object(fields, &["type"]);
    schema["type"] = json!(["object", "null"]);
    schema
}

/// The schemas of settings, by name.
fn settings(settings: &[&Setting]) -> Value {
    settings.iter().map(|setting| (setting.name.to_owned(), schema(setting))).collect::<Map<_, _>>().into()
}

/// The schema of a setting, which may also be null.
fn schema(setting: &Setting) -> Value {
    let mut schema = match setting.kind {
        Kind::Integer { min, max } => json!({"type": ["integer", "null"], "minimum": min, "maximum": max}),
        Kind::Number { min, max, above_min } => {
            let minimum = if above_min { "exclusiveMinimum" } else { "minimum" };
            json!({"type": ["number", "null"], minimum: min, "maximum": max})
        }
        Kind::Seed => json!({"type": ["integer", "null"], "minimum": i64::MIN, "maximum": i64::MAX}),
        Kind::Flag => json!({"type": ["boolean", "null"]}),
        Kind::Choice(words) => {
            let words = words.iter().map(|(word, _)| json!(word)).chain([Value::Null]);
            json!({"enum": words.collect::<Vec<_>>()})
        }
        Kind::Text => json!({"type": ["string", "null"]}),
        Kind::Texts => json!({"type": ["array", "null"], "items": {"type": "string", "minLength": 1}}),
    };
    schema["description"] = json!(setting.about);
    schema
}

fn chat() -> Value {
    let mut fields = common();
    let more = json!({
        "messages": {
            "type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": {"$ref": "#/components/schemas/Message"},
        },
        "max_completion_tokens": schema(&MAX_TOKENS),
        "tools": {"type": ["array", "null"], "items": tool()},
        "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required", null]}, {"type": "object"}]},
        "parallel_tool_calls": {"type": ["boolean", "null"]},
        "logprobs": {"type": ["boolean", "null"]},
        "top_logprobs": whole(0, MAX_TOP),
        "stream_options": stream_options(),
        "continue_final_message": {"type": ["boolean", "null"]},
        "add_generation_prompt": {"type": ["boolean", "null"]},
    });
    extend(&mut fields, more);
    object(fields, &["messages"])
}

fn completion() -> Value {
    let mut fields = common();
    let texts = json!({"type": "array", "minItems": 1, "maxItems": MAX_ANSWERS, "items": {"type": "string"}});
    let lists = json!({"type": "array", "minItems": 1, "maxItems": MAX_ANSWERS, "items": ids(1)});
    let more = json!({
        "prompt": {"anyOf": [{"type": "string"}, ids(1), texts, lists]},
        "echo": {"type": ["boolean", "null"]},
        "logprobs": whole(0, MAX_TOP),
        "stream_options": stream_options(),
    });
    extend(&mut fields, more);
    object(fields, &["prompt"])
}

fn stream_options() -> Value {
    let mut options = object(json!({"include_usage": {"type": ["boolean", "null"]}}), &[]);
    options["type"] = json!(["object", "null"]);
    options
}

fn message() -> Value {
    let part = object(json!({"type": {"const": "text"}, "text": {"type": "string"}}), &["type", "text"]);
    let content = json!({"anyOf": [{"type": "string"}, {"type": "array", "items": part}, {"type": "null"}]});
    let role = json!({"enum": ["system", "developer", "user", "assistant", "tool"]});
    let text = json!({"type": "string"});
    let function = object(json!({"name": text, "arguments": text}), &["name"]);
    let call = object(json!({"id": text, "type": {"const": "function"}, "function": function}), &["function"]);
    let calls = json!({"type": ["array", "null"], "items": call});
    object(json!({"role": role, "content": content, "tool_calls": calls, "tool_call_id": text}), &["role"])
}

fn tool() -> Value {
    let text = json!({"type": ["string", "null"]});
    let parameters = json!({"type": ["object", "null"]});
    let fields = json!({
        "name": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_.-]+$"},
        "description": text, "parameters": parameters, "strict": {"type": ["boolean", "null"]},
    });
    let function = object(fields, &["name"]);
    object(json!({"type": {"const": "function"}, "function": function}), &["function"])
}

/// The parameters that OpenAI's API does not have.
fn wsd() -> Value {
    let about = "Author and confidence of each token";
    let mut fields = json!({"tokens": {"type": ["boolean", "null"], "description": about}});
    extend(&mut fields, settings(&[&STRATEGY]));
    extend(&mut fields, settings(&strategy_settings()));
    let mut schema = object(fields, &[]);
    schema["type"] = json!(["object", "null"]);
    schema
}

fn tokenize() -> Value {
    let flag = json!({"type": ["boolean", "null"]});
    let messages = chat()["properties"]["messages"].clone();
    let common = json!({"model": model(), "add_special_tokens": flag, "return_token_strs": flag});
    let form = |name: &str, schema: Value| {
        let mut fields = common.clone();
        fields[name] = schema;
        object(fields, &[name])
    };
    json!({"anyOf": [form("prompt", json!({"type": "string"})), form("messages", messages)]})
}

fn error() -> Value {
    let text = json!({"type": ["string", "null"]});
    let fields = json!({"message": {"type": "string"}, "type": {"type": "string"}, "param": text, "code": text});
    object(json!({"error": object(fields, &["message", "type", "param", "code"])}), &["error"])
}

fn extend(fields: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (fields, more) {
        fields.extend(more);
    }
}
