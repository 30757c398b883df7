//! Answers as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use wsd_core::{Event, TokenRecord};

use super::App;
use super::decoding::{Items, finish_reason};
use super::reply::{Count, Progress, token_details};
use super::request::Ask;

/// What stands around the choices of every reply and chunk.
pub(super) struct Envelope(Value);

impl Envelope {
    pub(super) fn new(app: &App, prefix: &str, object: &str, model: &str) -> Self {
        Self(json!({
            "id": app.next_id(prefix), "object": object, "created": super::unix_time(), "model": model,
            "system_fingerprint": concat!("wsd-", env!("CARGO_PKG_VERSION")),
        }))
    }

    /// Around choices and their count.
    pub(super) fn json(&self, choices: Vec<Value>, count: &Count) -> Value {
        let mut reply = self.0.clone();
        reply["choices"] = Value::Array(choices);
        reply["usage"] = count.json();
        reply
    }

    /// What stands before and after the choices of each chunk of a stream, written once.
    fn around(&self, usage: bool) -> (String, &'static str) {
        let text = self.0.to_string();
        let open = text.strip_suffix('}').unwrap_or(&text);
        (format!("{open},\"choices\":["), if usage { "],\"usage\":null}" } else { "]}" })
    }
}

/// A stream of chunks. `opening` holds the choices sent at once; `choice` makes one that says a token, or nothing yet.
pub(super) fn respond(
    app: &App,
    envelope: Envelope,
    ask: Arc<Ask>,
    opening: Vec<Value>,
    items: Items,
    mut choice: impl FnMut(usize, Option<&TokenRecord>, usize) -> Value + Send + 'static,
) -> Response {
    let (before, after) = envelope.around(ask.include_usage);
    let chunk = move |choice: Value| format!("{before}{choice}{after}");
    let opening: Vec<_> = opening.into_iter().map(&chunk).collect();
    // The end of the items is an item too: it brings the count and the last line.
    let state = (Count::default(), Vec::<Progress>::new(), false);
    let chunks = items.map(Some).chain(stream::iter([None])).scan(state, move |(count, progress, failed), item| {
        let lines = match item {
            Some(Ok((index, event))) => {
                count.see(index / ask.n, &event);
                progress.resize(progress.len().max(index + 1), Progress::default());
                let characters = progress[index].characters;
                progress[index].see(&event);
                let said = said(&ask, index, &event, &progress[index], |token| choice(index, token, characters));
                said.map(&chunk).into_iter().collect()
            }
            Some(Err(error)) => {
                *failed = true;
                vec![error.body().to_string()]
            }
            None if *failed => vec![],
            None => {
                let usage = ask.include_usage.then(|| envelope.json(Vec::new(), count).to_string());
                usage.into_iter().chain(["[DONE]".to_owned()]).collect::<Vec<_>>()
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

/// The choice that tells an event, where the client wants to know of it.
fn said(
    ask: &Ask,
    index: usize,
    event: &Event,
    progress: &Progress,
    choice: impl FnOnce(Option<&TokenRecord>) -> Value,
) -> Option<Value> {
    let mut choice = match event {
        Event::Token(token) if !token.text.is_empty() || ask.logprobs.is_some() || ask.details => choice(Some(token)),
        Event::Handover(_) if ask.details => choice(None),
        Event::Done(_) => choice(None),
        _ => return None,
    };
    match event {
        Event::Token(token) if ask.details => choice["wsd"] = token_details(token),
        Event::Handover(handover) => choice["wsd"] = json!({"handover": handover}),
        Event::Done(reason) => {
            choice["finish_reason"] = json!(finish_reason(*reason));
            choice["wsd"] = progress.summary(ask, index);
        }
        _ => {}
    }
    Some(choice)
}
