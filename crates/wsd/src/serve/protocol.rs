//! Protocols besides OpenAI's completions: one form for each, of one handler.
//!
//! A [`Form`] says a body in the terms of chat completions, whose checks then apply, and says the
//! parts of an answer in the terms of its protocol. What an answer consists of is decided here, in
//! [`Part`].

pub(super) mod messages;
pub(super) mod ollama;
pub(super) mod responses;
pub(super) mod tools;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::Event as SseEvent;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use futures::{Stream, StreamExt as _, stream};
use serde_json::Value;
use wsd_core::{Completion, Event, Prompt, Trace};

use super::app::App;
use super::chat;
use super::decoding::{self, Events, await_first_event};
use super::error::ApiError;
use super::fields::Fields;
use super::json_reply::off_reactor;
use super::reply;
use super::request::GenerationRequest;
use super::request_log::Caller;
use super::source::Source;
use super::sse;

/// A part of an answer, as clients see it.
pub(super) enum Part<'a> {
    /// Text to read.
    Text(&'a str),
}

/// The encoding of a stream.
pub(super) enum Wire {
    /// Server-sent events.
    Events,
    /// JSON, one object to a line.
    Lines,
}

/// A piece of a stream.
pub(super) struct Line {
    /// The name of a server-sent event.
    event: Option<&'static str>,
    data: Value,
}

/// A request, in the terms of chat completions, with its own form for the reply.
pub(super) struct Asked<F> {
    pub(super) form: F,
    pub(super) request: GenerationRequest,
    pub(super) prompt: Prompt,
}

/// The form of one answer in a protocol.
pub(super) trait Form: Sized + Send + 'static {
    /// The encoding of streams.
    const WIRE: Wire;

    /// Renames the fields of a body to those of chat completions, and takes the text to continue.
    fn read(app: &Arc<App>, caller: &Caller, fields: &mut Fields) -> Result<(Self, Source), ApiError>;

    /// Returns the lines before the answer, once the length of the prompt is known.
    fn begin(&mut self, request: &GenerationRequest, prompt_tokens: usize) -> Vec<Line>;

    /// Returns the lines that report a part.
    fn part(&mut self, part: &Part<'_>) -> Vec<Line>;

    /// Returns the lines after the answer.
    fn end(&mut self, request: &GenerationRequest, answer: &Completion) -> Vec<Line>;

    /// Returns the lines of a failure.
    fn fail(&mut self, error: &ApiError) -> Vec<Line>;

    /// Returns the answer as one reply.
    fn whole(&mut self, request: &GenerationRequest, answer: &Completion) -> Value;
}

impl Line {
    /// A line without a name.
    pub(super) fn new(data: Value) -> Self {
        Self { event: None, data }
    }

    /// A server-sent event whose name is the `type` of its data.
    pub(super) fn named(event: &'static str, mut data: Value) -> Self {
        data["type"] = event.into();
        Self { event: Some(event), data }
    }
}

/// Checks a request.
pub(super) fn parse<F: Form>(app: &Arc<App>, caller: &Caller, mut fields: Fields) -> Result<Asked<F>, ApiError> {
    let (form, source) = F::read(app, caller, &mut fields)?;
    let (request, prompt) = chat::parse(app, caller, fields, source)?;
    if request.n > 1 {
        return Err(ApiError::parameter("n", format!("must be 1 in this protocol, got {}", request.n)));
    }
    Ok(Asked { form, request, prompt })
}

/// Handles a request.
pub(super) async fn answer<F: Form>(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.expect_room(caller.client)?;
    let fields = app.bodies.read(&headers, body).await?;
    let Asked { mut form, request, prompt } = parse::<F>(&app, &caller, fields)?;
    let jobs = request.jobs(&[prompt])?;
    let events = decoding::run(&app, &request, jobs, app.admit(caller.client)?);
    if request.stream {
        let events = await_first_event(events).await?;
        return Ok(respond(&app, form, request, events));
    }
    let answers = decoding::collect(events, 1).await?;
    let whole = move || answers.first().map(|answer| form.whole(&request, answer)).ok_or_else(ApiError::internal);
    Ok(Json(off_reactor(whole).await?).into_response())
}

/// Returns the `wsd` object of an answer: authors, hand-over, seed, and timings.
pub(super) fn details(request: &GenerationRequest, answer: &Completion) -> Value {
    reply::details(request, answer, 0)
}

/// The events of an answer that is being said in a form.
struct Saying<F> {
    form: F,
    request: GenerationRequest,
    trace: Trace,
}

impl<F: Form> Saying<F> {
    /// Returns the lines of an event.
    fn lines(&mut self, event: Result<Event, ApiError>) -> Vec<Line> {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.form.fail(&error),
        };
        self.trace.push(&event);
        match event {
            Event::Prompt { tokens } => self.form.begin(&self.request, tokens),
            Event::Token(token) if !token.text.is_empty() => self.form.part(&Part::Text(&token.text)),
            Event::Done(_) => self.form.end(&self.request, &std::mem::take(&mut self.trace).finish()),
            _ => Vec::new(),
        }
    }
}

/// Returns the answer as a stream.
fn respond<F: Form>(app: &App, form: F, request: GenerationRequest, events: Events) -> Response {
    let mut saying = Saying { form, request, trace: Trace::new() };
    let lines = events.flat_map(move |event| stream::iter(saying.lines(event.map(|(_, event)| event))));
    match F::WIRE {
        Wire::Events => sse::respond(app, lines.map(|line| named_event(&line))),
        Wire::Lines => json_lines(lines),
    }
}

fn named_event(line: &Line) -> SseEvent {
    let event = SseEvent::default().data(line.data.to_string());
    match &line.event {
        Some(name) => event.event(name),
        None => event,
    }
}

/// Returns the lines as newline-delimited JSON.
fn json_lines(lines: impl Stream<Item = Line> + Send + 'static) -> Response {
    let body = lines.map(|line| Ok::<_, Infallible>(Bytes::from(format!("{}\n", line.data))));
    let media = HeaderValue::from_static("application/x-ndjson");
    ([(header::CONTENT_TYPE, media)], Body::from_stream(body)).into_response()
}
