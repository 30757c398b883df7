//! `GET /openapi.json`: all routes and parameters with their limits.

mod protocols;

use axum::Json;
use serde_json::{Map, Value, json};
use wsd_core::{
    DRY_PENALTY_LAST_N, DRY_SEQUENCE_BREAKERS, Kind, MAX_TOKENS, RECIPES, REPETITION_PENALTY, SAMPLING, STRATEGY,
    Setting, TOP_K, TemplateVariables, strategy_settings,
};

use super::ignored::{IGNORED, Ignored, Place};
use super::request::{MAX_ANSWERS, MAX_MESSAGES, MAX_N, MAX_STOP_BYTES, MAX_STOPS, MAX_TOP};

/// Returns the document.
pub(super) async fn document() -> Json<Value> {
    Json(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "wsd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Weak-to-Strong Decoding behind OpenAI's, Anthropic's and Ollama's protocols. Each strategy \
                is a model. The routes below /v1 exist without it too.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"key": []}],
        "paths": paths(),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
        },
    }))
}

fn schemas() -> Value {
    let mut schemas = json!({
        "Error": error(), "Reply": {"type": "object"}, "ChatRequest": chat(), "CompletionRequest": completion(),
        "Message": message(), "Wsd": wsd(), "TokenizeRequest": tokenize(),
        "DetokenizeRequest": object(json!({"model": model(), "tokens": ids(0)}), &["tokens"]),
    });
    extend(&mut schemas, protocols::schemas());
    schemas
}

/// A route that takes a body.
struct Post {
    path: &'static str,
    about: &'static str,
    /// The schema of the body.
    schema: &'static str,
    /// The media type of a streamed reply, if it can be one.
    stream: Option<&'static str>,
    /// The schema of errors.
    error: &'static str,
}

const EVENTS: Option<&str> = Some("text/event-stream");
const LINES: Option<&str> = Some("application/x-ndjson");

const fn post_route(path: &'static str, about: &'static str, schema: &'static str) -> Post {
    Post { path, about, schema, stream: None, error: "Error" }
}

static POSTS: &[Post] = &[
    Post { stream: EVENTS, ..post_route("/v1/chat/completions", "Answer a conversation", "ChatRequest") },
    Post { stream: EVENTS, ..post_route("/v1/completions", "Continue texts or token ids", "CompletionRequest") },
    Post { stream: EVENTS, ..post_route("/v1/responses", "Answer as OpenAI's Responses", "ResponsesRequest") },
    Post {
        stream: EVENTS,
        error: "AnthropicError",
        ..post_route("/v1/messages", "Answer as Anthropic's Messages", "MessagesRequest")
    },
    Post {
        error: "AnthropicError",
        ..post_route("/v1/messages/count_tokens", "Count the tokens of a prompt", "MessagesRequest")
    },
    post_route("/v1/embeddings", "Hidden states of a model as vectors", "EmbeddingsRequest"),
    Post { stream: LINES, error: "OllamaError", ..post_route("/api/chat", "Answer as Ollama", "OllamaChatRequest") },
    Post {
        stream: LINES,
        error: "OllamaError",
        ..post_route("/api/generate", "Continue a prompt as Ollama", "OllamaGenerateRequest")
    },
    Post { error: "OllamaError", ..post_route("/api/show", "Describe a model as Ollama", "OllamaShowRequest") },
    post_route("/apply-template", "A conversation as the model reads it", "TemplateRequest"),
    post_route("/tokenize", "Text or a conversation to token ids", "TokenizeRequest"),
    post_route("/detokenize", "Token ids to text", "DetokenizeRequest"),
];

/// The routes that take no body, with the media type of the reply.
static GETS: &[(&str, &str, &str)] = &[
    ("/v1/models", "The models: one for each strategy", "application/json"),
    ("/api/ps", "The models that are loaded, as Ollama lists them", "application/json"),
    ("/api/tags", "The models as Ollama lists them", "application/json"),
    ("/api/version", "The version of Ollama whose requests are understood", "application/json"),
    ("/props", "The server and its base model, as llama-server has it", "application/json"),
    ("/slots", "The slots for answers, as llama-server has it", "application/json"),
    ("/tokenizer_info", "The special tokens behind /tokenize", "application/json"),
    ("/health", "The process runs", "application/json"),
    ("/ready", "Requests are accepted", "application/json"),
    ("/metrics", "Prometheus metrics", "text/plain"),
    ("/openapi.json", "This document", "application/json"),
    ("/", "The page", "text/html"),
];

/// The statuses of refusals and failures.
static FAULTS: &[(&str, &str)] = &[
    ("400", "A parameter is unknown, unsupported or outside its limits; the error names it."),
    ("401", "No valid key."),
    ("404", "No such model, or no such earlier response."),
    ("408", "The body was too slow."),
    ("413", "The body is too large."),
    ("415", "The body is not JSON."),
    ("429", "The queue is full; retry after the time in Retry-After."),
    ("500", "The server failed."),
    ("502", "An engine on another machine failed."),
    ("503", "Shutting down."),
    ("504", "The answer took too long."),
];

fn json_of(name: &str) -> Value {
    json!({"schema": {"$ref": format!("#/components/schemas/{name}")}})
}

fn fault(about: &str, schema: &str) -> Value {
    json!({"description": about, "content": {"application/json": json_of(schema)}})
}

fn get(about: &str, media: &str) -> Value {
    let reply = json!({"description": about, "content": {media: {"schema": {}}}});
    let error = if about.contains("Ollama") { "OllamaError" } else { "Error" };
    let responses = json!({
        "200": reply, "401": fault("No valid key.", error), "503": fault("Shutting down.", error),
    });
    json!({"get": {"summary": about, "responses": responses}})
}

impl Post {
    fn json(&self) -> Value {
        let mut content = json!({"application/json": json_of("Reply")});
        if let Some(media) = self.stream {
            content[media] = json!({"schema": {"type": "object"}});
        }
        let mut responses = json!({"200": {"description": self.about, "content": content}});
        for (status, about) in FAULTS {
            responses[*status] = fault(about, self.error);
        }
        let body = json!({"required": true, "content": {"application/json": json_of(self.schema)}});
        json!({"post": {"summary": self.about, "requestBody": body, "responses": responses}})
    }
}

fn paths() -> Value {
    let mut model = get("One model", "application/json");
    model["get"]["parameters"] =
        json!([{"name": "model", "in": "path", "required": true, "schema": {"type": "string", "enum": names()}}]);
    model["get"]["responses"]["404"] = fault("No such model.", "Error");
    let posts = POSTS.iter().map(|post| (post.path.to_owned(), post.json()));
    let gets = GETS.iter().map(|(path, about, media)| ((*path).to_owned(), get(about, media)));
    posts.chain(gets).chain([("/v1/models/{model}".to_owned(), model)]).collect::<Map<_, _>>().into()
}

/// The names of the models, which are the strategies.
fn names() -> Vec<&'static str> {
    RECIPES.iter().map(|recipe| recipe.name).collect()
}

fn model() -> Value {
    let names = names().into_iter().map(Value::from).chain([Value::Null]).collect::<Vec<_>>();
    json!({"type": ["string", "null"], "enum": names})
}

/// The schema of an object without further properties but nulls.
fn object(properties: impl Into<Value>, required: &[&str]) -> Value {
    let properties = properties.into();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": {"type": "null"}})
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
        "repeat_penalty": schema(&REPETITION_PENALTY),
        "logit_bias": {
            "type": ["object", "null"], "propertyNames": {"pattern": "^[0-9]+$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        },
        "cache_salt": {"type": ["string", "null"], "minLength": 1, "maxLength": 64},
        "wsd": {"$ref": "#/components/schemas/Wsd"},
        "response_format": response_format(),
        "grammar": {"type": ["string", "null"]},
        "json_schema": json_schema(),
        "guided_json": json_schema(),
        "guided_regex": {"type": ["string", "null"]},
        "guided_choice": {"type": ["array", "null"], "items": {"type": "string"}},
        "guided_grammar": {"type": ["string", "null"]},
        "structured_outputs": {"type": ["object", "null"]},
    });
    extend(&mut fields, settings(SAMPLING));
    extend(&mut fields, settings(&[&MAX_TOKENS]));
    // Clients of vLLM and of llama-server send -1 for all tokens.
    fields[TOP_K.name]["minimum"] = json!(-1);
    fields[DRY_PENALTY_LAST_N.name]["minimum"] = json!(-1);
    fields[DRY_SEQUENCE_BREAKERS.name]["maxItems"] = json!(MAX_STOPS);
    extend(&mut fields, ignored(Place::Request));
    fields
}

/// The fields of a place that are accepted and have no effect.
fn ignored(place: Place) -> Value {
    let rows = IGNORED.iter().filter(|row| row.place == place);
    let about = |row: &Ignored| json!({"description": format!("No effect: {}", row.reason)});
    rows.map(|row| (row.field.to_owned(), about(row))).collect::<Map<_, _>>().into()
}

/// A JSON schema, or the text of one.
fn json_schema() -> Value {
    json!({"type": ["object", "boolean", "string", "null"]})
}

fn response_format() -> Value {
    let text = json!({"type": ["string", "null"]});
    let named = json!({
        "name": text, "description": text, "strict": {"type": ["boolean", "null"]},
        "schema": json_schema(),
    });
    let fields = json!({
        "type": {"enum": ["text", "json_object", "json_schema"]}, "json_schema": object(named, &[]),
        "schema": json_schema(),
    });
    let mut schema = object(fields, &["type"]);
    schema["type"] = json!(["object", "null"]);
    schema
}

/// The schemas of settings, by name.
fn settings(settings: &[&Setting]) -> Value {
    let settings = settings.iter().filter(|setting| !setting.host_only);
    settings.map(|setting| (setting.name.to_owned(), schema(setting))).collect::<Map<_, _>>().into()
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
        Kind::Object => json!({"type": ["object", "null"]}),
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
        "chat_template_kwargs": template_variables(),
    });
    extend(&mut fields, more);
    object(fields, &["messages"])
}

/// Variables of chat templates.
fn template_variables() -> Value {
    json!({"type": ["object", "null"], "propertyNames": {"not": {"enum": TemplateVariables::RESERVED}}})
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
    let mut fields = json!({"include_usage": {"type": ["boolean", "null"]}});
    extend(&mut fields, ignored(Place::StreamOptions));
    let mut options = object(fields, &[]);
    options["type"] = json!(["object", "null"]);
    options
}

fn message() -> Value {
    let mut part = json!({"type": {"const": "text"}, "text": {"type": "string"}});
    extend(&mut part, ignored(Place::Message));
    let part = object(part, &["type", "text"]);
    let content = json!({"anyOf": [{"type": "string"}, {"type": "array", "items": part}, {"type": "null"}]});
    let role = json!({"enum": ["system", "developer", "user", "assistant", "tool"]});
    let text = json!({"type": "string"});
    let function = object(json!({"name": text, "arguments": text}), &["name"]);
    let call = object(json!({"id": text, "type": {"const": "function"}, "function": function}), &["function"]);
    let calls = json!({"type": ["array", "null"], "items": call});
    let mut fields = json!({"role": role, "content": content, "tool_calls": calls, "tool_call_id": text});
    extend(&mut fields, ignored(Place::Message));
    object(fields, &["role"])
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
    let common = json!({
        "model": model(), "add_special_tokens": flag, "return_token_strs": flag, "add_special": flag,
        "with_pieces": flag,
    });
    let form = |name: &str, schema: Value| {
        let mut fields = common.clone();
        fields[name] = schema;
        object(fields, &[name])
    };
    let text = json!({"type": "string"});
    let mut conversation = protocols::template();
    extend(&mut conversation["properties"], common.clone());
    json!({"anyOf": [form("prompt", text.clone()), form("content", text), conversation]})
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
