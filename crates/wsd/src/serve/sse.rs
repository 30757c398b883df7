//! Answers as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};
use wsd_core::Event;

use super::app::App;
use super::decoding::Events;
use super::envelope::{Envelope, Usage};
use super::reply::{Progress, token_details};
use super::request::GenerationRequest;

/// A reply that is streamed in chunks of one choice each.
pub(super) struct Chunks<C> {
    pub(super) envelope: Envelope,
    pub(super) request: Arc<GenerationRequest>,
    /// The choices that are sent before any event, as JSON text made when they are sent.
    pub(super) opening: Box<dyn Iterator<Item = String> + Send>,
    /// Makes a choice from the index of the answer, the event, and the number of characters in the
    /// answer before it; null for an event that adds nothing to the reply.
    pub(super) choice: C,
}

impl<C> Chunks<C>
where
    C: FnMut(usize, &Event, usize) -> Value + Send + 'static,
{
    /// Returns the response that streams the chunks of these events.
    pub(super) fn respond(self, app: &App, events: Events) -> Response {
        let Self { envelope, request, opening, mut choice } = self;
        let has_logprobs = request.logprobs.is_some();
        let (before, after) = envelope.around_choice(request.include_usage);
        let open = before.clone();
        let opening = opening.map(move |choice| format!("{open}{choice}{after}}}"));
        let chunk = move |choice: Value, rest: String| format!("{before}{choice}{after}{rest}}}");
        // `None` marks the end of the events; it yields the token counts and the last line.
        let events = events.map(Some).chain(stream::iter([None]));
        // The time of every answer begins with the request.
        let is_heavy = request.is_heavy();
        let (begun, state) = (Progress::begin(), (Usage::default(), Vec::<Progress>::new(), false));
        let lines = events.scan(state, move |(usage, progress, failed), event| {
            let lines = match event {
                Some(Ok((index, event))) => {
                    usage.push(request.prompt_of(index), &event);
                    progress.resize(progress.len().max(index + 1), begun.clone());
                    let characters = progress[index].characters;
                    progress[index].push(&event);
                    let choice = || choice(index, &event, characters);
                    let choice = event_choice(&request, index, &event, &progress[index], choice);
                    let is_last = matches!(event, Event::Done(_));
                    let timings = || format!(",\"timings\":{}", progress[index].timings());
                    let rest = if is_last { timings() } else { String::new() };
                    choice.map(|choice| chunk(choice, rest)).into_iter().collect()
                }
                Some(Err(error)) => {
                    *failed = true;
                    vec![error.body().to_string()]
                }
                None if *failed => vec![],
                None => {
                    let usage = request.include_usage.then(|| envelope.json(Vec::new(), usage).to_string());
                    usage.into_iter().chain(["[DONE]".to_owned()]).collect()
                }
            };
            std::future::ready(Some(stream::iter(lines)))
        });
        let lines = stream::iter(opening).chain(lines.flatten());
        // Spelling the alternatives of each token takes long, and a hop to another thread little.
        let lines = if has_logprobs { app.work.stream(is_heavy, lines.boxed()) } else { lines.boxed() };
        respond(app, lines.map(|line| SseEvent::default().data(line)))
    }
}

/// Returns the response that streams these events.
pub(super) fn respond(app: &App, events: impl Stream<Item = SseEvent> + Send + 'static) -> Response {
    let keep_alive = KeepAlive::new().interval(app.serve.keep_alive).text("keep-alive");
    unbuffered(Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response())
}

/// Keeps nginx from buffering the pieces of a response.
pub(super) fn unbuffered(mut response: Response) -> Response {
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Returns the choice that reports an event; `None` for an event that the client did not ask for.
fn event_choice(
    request: &GenerationRequest,
    index: usize,
    event: &Event,
    progress: &Progress,
    choice: impl FnOnce() -> Value,
) -> Option<Value> {
    let has_details = request.logprobs.is_some() || request.token_details;
    let mut choice = match event {
        Event::Token(token) if !token.text.is_empty() || has_details || request.reader.is_some() => choice(),
        Event::Handover(_) | Event::DraftEnd(_) | Event::Look(_) if request.token_details => choice(),
        Event::Done(_) => choice(),
        _ => return None,
    };
    if choice.is_null() {
        return None;
    }
    match event {
        Event::Token(token) if request.token_details => choice["wsd"] = token_details(token),
        Event::Handover(handover) => choice["wsd"] = json!({"handover": handover}),
        Event::DraftEnd(end) => choice["wsd"] = json!({"draft_end": end}),
        Event::Look(look) => choice["wsd"] = json!({"look": look}),
        Event::Done(reason) => {
            if choice["finish_reason"].is_null() {
                choice["finish_reason"] = json!(reason.name());
            }
            choice["wsd"] = progress.summary(request, index);
        }
        _ => {}
    }
    Some(choice)
}
