//! Ollama's `POST /api/chat` and `/api/generate`, and what its clients ask about models.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Map, Value, json};
use wsd_core::{Completion, Engine, MAX_TOKENS, Recipe};

use super::details;
use super::form::{Form, Line, Wire};
use super::item::{Item, Kind, Part, Said};
use crate::config::OLLAMA_TAG;
use crate::models::{seats, short_name};
use crate::serve::app::App;
use crate::serve::chat;
use crate::serve::clock::{format_time, timestamp};
use crate::serve::error::{ApiError, Shape};
use crate::serve::fields::Fields;
use crate::serve::ignored::Place;
use crate::serve::request::{GenerationRequest, find_recipe, named_recipes};
use crate::serve::request_log::Caller;
use crate::serve::source::{Given, Source};

/// The version of Ollama whose requests are understood.
const VERSION: &str = "0.12.0";
/// The end of the time for which a model stays loaded.
const NEVER: &str = "9999-12-31T23:59:59Z";

/// A reply to `/api/chat`.
#[derive(Default)]
pub(crate) struct Chat {
    model: &'static str,
}

/// A reply to `/api/generate`.
#[derive(Default)]
pub(crate) struct Generate {
    model: &'static str,
}

impl Form for Chat {
    const WIRE: Wire = Wire::Lines;

    fn read(app: &Arc<App>, _: &Caller, fields: &mut Fields) -> Result<(Self, Source), ApiError> {
        read_common(app, fields)?;
        let mut given = chat::given(fields)?;
        given.iter_mut().for_each(|given| read_result(&mut given.value));
        Ok((Self::default(), Source::Messages(given)))
    }

    fn begin(&mut self, request: &GenerationRequest, _: usize) -> Vec<Line> {
        self.model = request.model;
        Vec::new()
    }

    fn part(&mut self, _: usize, part: &Part<'_>) -> Vec<Line> {
        let message = match part {
            Part::More(Item { kind: Kind::Text, .. }, text) => message(text),
            Part::More(Item { kind: Kind::Reasoning, .. }, text) => with(message(""), "thinking", json!(text)),
            Part::End(item) if item.kind == Kind::Call => {
                let Some(call) = call(item) else { return Vec::new() };
                with(message(""), "tool_calls", json!([call]))
            }
            _ => return Vec::new(),
        };
        vec![more(self.model, json!({"message": message}))]
    }

    fn end(&mut self, request: &GenerationRequest, said: &Said) -> Vec<Line> {
        vec![Line::new(last(request, &said.answer, ("message", message(""))))]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Line> {
        vec![Line::new(error.body_in(Shape::Ollama))]
    }

    fn whole(&mut self, request: &GenerationRequest, said: &Said) -> Value {
        let (mut message, thinking) = (message(&said.text(Kind::Text)), said.text(Kind::Reasoning));
        if !thinking.is_empty() {
            message["thinking"] = json!(thinking);
        }
        let calls: Vec<_> = said.all(Kind::Call).filter_map(call).collect();
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        last(request, &said.answer, ("message", message))
    }
}

impl Form for Generate {
    const WIRE: Wire = Wire::Lines;

    fn read(app: &Arc<App>, _: &Caller, fields: &mut Fields) -> Result<(Self, Source), ApiError> {
        read_common(app, fields)?;
        fields.unsupported(&[
            ("images", &["[]"]),
            ("context", &["[]"]),
            ("suffix", &["\"\""]),
            ("template", &["\"\""]),
        ])?;
        let prompt: String = fields.take("prompt")?.unwrap_or_default();
        let system: Option<String> = fields.take("system")?;
        if fields.take("raw")?.unwrap_or(false) {
            if system.is_some() {
                return Err(ApiError::parameter("system", "must be left out where `raw` is true"));
            }
            return Ok((Self::default(), Source::Text(prompt)));
        }
        let system = system.map(|text| ("system", text)).into_iter();
        let messages = system.chain([("user", prompt)]).zip(["system", "prompt"]);
        let given = messages
            .map(|((role, text), path)| Given { path: path.to_owned(), value: json!({"role": role, "content": text}) });
        Ok((Self::default(), Source::Messages(given.collect())))
    }

    fn begin(&mut self, request: &GenerationRequest, _: usize) -> Vec<Line> {
        self.model = request.model;
        Vec::new()
    }

    fn part(&mut self, _: usize, part: &Part<'_>) -> Vec<Line> {
        let said = match part {
            Part::More(Item { kind: Kind::Text, .. }, text) => json!({"response": text}),
            Part::More(Item { kind: Kind::Reasoning, .. }, text) => json!({"response": "", "thinking": text}),
            _ => return Vec::new(),
        };
        vec![more(self.model, said)]
    }

    fn end(&mut self, request: &GenerationRequest, said: &Said) -> Vec<Line> {
        vec![Line::new(last(request, &said.answer, ("response", json!(""))))]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Line> {
        vec![Line::new(error.body_in(Shape::Ollama))]
    }

    fn whole(&mut self, request: &GenerationRequest, said: &Said) -> Value {
        let line = last(request, &said.answer, ("response", json!(said.text(Kind::Text))));
        let thinking = said.text(Kind::Reasoning);
        if thinking.is_empty() { line } else { with(line, "thinking", json!(thinking)) }
    }
}

/// Returns an object with one more field.
fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}

/// Returns a call of a tool; `None` for one that was cut off.
fn call(item: &Item) -> Option<Value> {
    Some(json!({"id": item.id, "function": {"name": item.name, "arguments": item.arguments()?}}))
}

/// Renames the fields of a message with the result of a call. Earlier clients name only the tool.
fn read_result(message: &mut Value) {
    if message["role"] == "tool"
        && let Some(fields) = message.as_object_mut()
    {
        if let Some(name) = fields.remove("tool_name") {
            fields.insert("name".into(), name);
        }
        fields.entry("tool_call_id").or_insert_with(|| json!(""));
    }
}

fn message(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

/// Returns a line before the last one, with what it says.
fn more(model: &str, said: Value) -> Line {
    let line = with(with(said, "model", json!(model)), "created_at", json!(timestamp()));
    Line::new(with(line, "done", json!(false)))
}

/// Returns the last line of an answer, which is the reply where it is not streamed.
fn last(request: &GenerationRequest, answer: &Completion, content: (&str, Value)) -> Value {
    let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
    let (total, prompt) = (answer.timings.total, answer.timings.first_token.unwrap_or(answer.timings.total));
    let line = json!({
        "model": request.model, "created_at": timestamp(), "done": true,
        "done_reason": answer.finish_reason.name(), "total_duration": nanoseconds(total), "load_duration": 0,
        "prompt_eval_count": answer.usage.prompt_tokens, "prompt_eval_duration": nanoseconds(prompt),
        "eval_count": answer.usage.completion_tokens, "eval_duration": nanoseconds(total - prompt),
        "wsd": details(request, answer),
    });
    with(line, content.0, content.1)
}

/// Renames the fields that both routes have.
fn read_common(app: &App, fields: &mut Fields) -> Result<(), ApiError> {
    fields.rename("name", "model");
    if fields.get("stream").is_none_or(Value::is_null) {
        fields.set("stream", json!(true));
    }
    if let Some(format) = fields.take::<Value>("format")? {
        let format = match &format {
            Value::String(word) if word.is_empty() => json!({"type": "text"}),
            Value::String(word) if word == "json" => json!({"type": "json_object"}),
            Value::Object(_) => json!({"type": "json_schema", "json_schema": {"name": "format", "schema": format}}),
            other => {
                return Err(ApiError::parameter("format", format!("must be `json` or a JSON schema, got {other}")));
            }
        };
        fields.set("response_format", format);
    }
    if let Some(options) = fields.take::<Value>("options")? {
        let mut options = Fields::new(options, "options")?;
        options.ignore(Place::Options, app.serve.strict);
        // -1 and -2 mean no limit but the context length.
        if options.take_if("num_predict", &json!(-2)) {
            options.set("num_predict", json!(-1));
        }
        fields.absorb(options);
        fields.rename("num_predict", MAX_TOKENS.name);
    }
    Ok(())
}

/// Returns the version.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": VERSION}))
}

/// Lists the models, which are the strategies.
pub(crate) async fn tags(State(app): State<Arc<App>>) -> Json<Value> {
    let modified = format_time(Duration::from_secs(app.started));
    list(&app, |_| json!({"modified_at": modified}))
}

/// Lists the models that are loaded: all, for good.
pub(crate) async fn running(State(app): State<Arc<App>>) -> Json<Value> {
    list(&app, |recipe| json!({"size_vram": 0, "expires_at": NEVER, "context_length": max_len(&app, recipe)}))
}

/// Lists the models on offer with their sizes and what `more` tells of each.
fn list(app: &App, more: impl Fn(&'static Recipe) -> Value) -> Json<Value> {
    let models = named_recipes(app).map(|(name, recipe)| {
        let name = if name.contains(':') { name.to_owned() } else { format!("{name}{OLLAMA_TAG}") };
        let bytes = engines(app, recipe).map(|engine| engine.files().bytes).sum::<u64>();
        let mut entry = json!({
            "name": name, "model": name, "size": bytes, "digest": "", "details": facts(app, recipe),
        });
        if let (Some(entry), Value::Object(more)) = (entry.as_object_mut(), more(recipe)) {
            entry.extend(more);
        }
        entry
    });
    Json(json!({"models": models.collect::<Vec<_>>()}))
}

/// The engines behind a strategy.
fn engines<'a>(app: &'a App, recipe: &'static Recipe) -> impl Iterator<Item = &'a Arc<dyn Engine>> {
    seats(recipe).into_iter().filter_map(|seat| app.models.get(seat))
}

/// The shortest context of the engines behind a strategy.
fn max_len(app: &App, recipe: &'static Recipe) -> Option<usize> {
    engines(app, recipe).map(|engine| engine.card().max_len).min()
}

/// Takes curl's usual media type for one that was left out: in Ollama's own examples, `curl -d` sends
/// JSON so. A page of another site can send it too, and is known by its `Origin`.
pub(crate) async fn accept_curl(mut request: Request, next: Next) -> Response {
    let headers = request.headers_mut();
    let is_form = headers.get(header::CONTENT_TYPE).is_some_and(|media| media == "application/x-www-form-urlencoded");
    if is_form && !headers.contains_key(header::ORIGIN) {
        headers.remove(header::CONTENT_TYPE);
    }
    next.run(request).await
}

/// Describes one model.
pub(crate) async fn show(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Json<Value>, ApiError> {
    let mut fields = app.bodies.read(&headers, body).await?;
    fields.rename("name", "model");
    let recipe = find_recipe(&app, Some(fields.need("model")?))?;
    // The whole list of the vocabulary is never part of the reply.
    fields.take::<bool>("verbose")?;
    fields.finish()?;
    let info = json!({"general.architecture": "wsd", "wsd.context_length": max_len(&app, recipe)});
    Ok(Json(json!({
        "modelfile": "", "parameters": "", "template": "", "modified_at": format_time(Duration::from_secs(app.started)),
        "details": facts(&app, recipe), "model_info": info, "capabilities": ["completion", "tools"],
    })))
}

/// The models behind a strategy, in the place where Ollama has those that a model was made of.
fn facts(app: &App, recipe: &'static Recipe) -> Value {
    let parents = engines(app, recipe).map(|engine| short_name(&engine.card().name)).collect::<Vec<_>>().join("+");
    let empty = Map::from_iter(["format", "parameter_size", "quantization_level"].map(|key| (key.into(), json!(""))));
    let mut facts = Value::Object(empty);
    facts["parent_model"] = json!(parents);
    facts["family"] = json!("wsd");
    facts["families"] = json!(["wsd"]);
    facts
}
