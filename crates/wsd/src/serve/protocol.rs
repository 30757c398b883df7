//! Protocols besides OpenAI's completions: one form for each, of one handler.
//!
//! A [`Form`] says a body in the terms of chat completions, whose checks then apply, and says the
//! items of an answer in the terms of its protocol. An answer consists of items ([`item`]).

mod form;
mod item;
mod items;
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

use form::{Form, Line, Wire};
use item::Said;
use items::Items;

use super::app::App;
use super::chat;
use super::decoding::{self, Events, await_first_event};
use super::error::ApiError;
use super::fields::Fields;
use super::reply;
use super::request::GenerationRequest;
use super::request_log::Caller;
use super::sse;
use super::work::off_reactor;

/// A request, in the terms of chat completions, with its own form for the reply.
pub(super) struct Asked<F> {
    pub(super) form: F,
    pub(super) request: GenerationRequest,
    pub(super) prompt: Prompt,
}

/// Checks a request.
pub(super) fn parse<F: Form>(app: &Arc<App>, caller: &Caller, mut fields: Fields) -> Result<Asked<F>, ApiError> {
    let (form, source) = F::read(app, caller, &mut fields)?;
    let (request, prompt) = chat::parse(app, caller, fields, source)?;
    if request.n > 1 {
        return Err(ApiError::parameter("n", format!("must be 1 in this protocol, got {}", request.n)));
    }
    if request.logprobs.is_some() {
        let message = "must be left out in this protocol; /v1/chat/completions gives log-probabilities";
        return Err(ApiError::parameter("logprobs", message));
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
    let (parsing, client) = (app.clone(), caller.client);
    let (mut form, request, jobs) = app
        .work
        .of_body(fields.bytes(), move || {
            let Asked { form, request, prompt } = parse::<F>(&parsing, &caller, fields)?;
            let jobs = request.jobs(&[prompt])?;
            Ok((form, request, jobs))
        })
        .await?;
    let events = decoding::run(&app, &request, jobs, app.admit(client)?);
    if request.stream {
        let events = await_first_event(events).await?;
        return Ok(respond(&app, form, request, events));
    }
    let answers = decoding::collect(events, 1).await?;
    let whole = move || {
        let answer = answers.into_iter().next().ok_or_else(ApiError::internal)?;
        let said = Items::new(app, &request).read(&mut form, answer);
        Ok(form.whole(&request, &said))
    };
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
    items: Items,
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
            Event::Prompt { tokens } => {
                let lines = self.form.begin(&self.request, tokens);
                lines.into_iter().chain(self.items.begin(&mut self.form)).collect()
            }
            Event::Token(token) => self.items.token(&mut self.form, &token),
            Event::Done(reason) => {
                let lines = self.items.finish(&mut self.form, reason);
                let answer = std::mem::take(&mut self.trace).finish();
                let said = Said { answer, items: std::mem::take(&mut self.items.list) };
                lines.into_iter().chain(self.form.end(&self.request, &said)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Returns the answer as a stream.
fn respond<F: Form>(app: &Arc<App>, form: F, request: GenerationRequest, events: Events) -> Response {
    let items = Items::new(app.clone(), &request);
    let mut saying = Saying { form, request, trace: Trace::new(), items };
    let lines = events.flat_map(move |event| stream::iter(saying.lines(event.map(|(_, event)| event))));
    match F::WIRE {
        Wire::Events => sse::respond(app, lines.map(|line| named_event(&line))),
        Wire::Lines => json_lines(lines),
    }
}

fn named_event(line: &Line) -> SseEvent {
    // Some clients expect the name before the data.
    let event = SseEvent::default();
    let event = match &line.event {
        Some(name) => event.event(name),
        None => event,
    };
    event.data(line.data.to_string())
}

/// Returns the lines as newline-delimited JSON.
fn json_lines(lines: impl Stream<Item = Line> + Send + 'static) -> Response {
    let body = lines.map(|line| Ok::<_, Infallible>(Bytes::from(format!("{}\n", line.data))));
    let media = HeaderValue::from_static("application/x-ndjson");
    sse::unbuffered(([(header::CONTENT_TYPE, media)], Body::from_stream(body)).into_response())
}
