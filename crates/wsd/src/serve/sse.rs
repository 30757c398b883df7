//! Answers as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use wsd_core::Event;

use super::App;
use super::decoding::Items;
use super::reply::{Count, Progress};
use super::request::Ask;

/// What stands around the choices of every reply and chunk.
#[derive(Clone)]
pub(super) struct Envelope {
    id: String,
    object: &'static str,
    created: u64,
    model: &'static str,
}

impl Envelope {
    pub(super) fn new(app: &App, prefix: &str, object: &'static str, model: &'static str) -> Self {
        Self { id: app.next_id(prefix), object, created: super::unix_time(), model }
    }

    pub(super) fn json(&self, choices: impl Into<Value>) -> Value {
        let choices = choices.into();
        json!({
            "id": self.id, "object": self.object, "created": self.created, "model": self.model,
            "system_fingerprint": concat!("wsd-", env!("CARGO_PKG_VERSION")), "choices": choices,
        })
    }
}

/// A stream of chunks. `opening` holds the choices sent at once; `choice` makes one of an event, where there is something to say.
pub(super) fn respond(
    app: &App,
    envelope: Envelope,
    ask: Arc<Ask>,
    opening: Vec<Value>,
    items: Items,
    mut choice: impl FnMut(usize, Event, &Progress) -> Option<Value> + Send + 'static,
) -> Response {
    let usage = ask.include_usage;
    let chunk = move |choices: Vec<Value>| {
        let mut chunk = envelope.json(choices);
        if usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let opening: Vec<_> = opening.into_iter().map(|choice| chunk(vec![choice]).to_string()).collect();
    // The end of the items is an item too: it brings the count and the last line.
    let state = (Count::default(), Vec::<Progress>::new(), false);
    let chunks = items.map(Some).chain(stream::iter([None])).scan(state, move |(count, progress, failed), item| {
        let lines = match item {
            Some(Ok((index, event))) => {
                count.see(index / ask.n, &event);
                if progress.len() <= index {
                    progress.resize(index + 1, Progress::default());
                }
                let said = choice(index, event.clone(), &progress[index]);
                progress[index].see(&event);
                said.map(|choice| chunk(vec![choice]).to_string()).into_iter().collect()
            }
            Some(Err(error)) => {
                *failed = true;
                vec![error.body().to_string()]
            }
            None if *failed => vec![],
            None => {
                let mut last = chunk(vec![]);
                last["usage"] = count.json();
                usage.then(|| last.to_string()).into_iter().chain(["[DONE]".to_owned()]).collect::<Vec<_>>()
            }
        };
        std::future::ready(Some(stream::iter(lines)))
    });
    let lines = stream::iter(opening).chain(chunks.flatten());
    let events = lines.map(|line| Ok::<_, Infallible>(SseEvent::default().data(line)));
    let keep_alive = KeepAlive::new().interval(app.serve.keep_alive).text("keep-alive");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Tells nginx not to hold chunks back.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(unbuffered, HeaderValue::from_static("no"));
    response
}
