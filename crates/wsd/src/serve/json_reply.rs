//! Replies in JSON, sent in pieces: what several answers have in common is built and held once.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::Value;

use super::envelope::{Envelope, Usage};

/// A reply as pieces of JSON text.
pub(super) struct JsonReply {
    pieces: Vec<Bytes>,
    choices: usize,
}

impl JsonReply {
    /// A reply without choices.
    pub(super) fn new(envelope: &Envelope) -> Self {
        Self { pieces: vec![envelope.before_choices().into()], choices: 0 }
    }

    /// Adds a choice, and its log-probabilities if they are built apart.
    pub(super) fn push(&mut self, choice: &Value, logprobs: Option<&Bytes>) {
        let text = choice.to_string();
        let open = text.strip_suffix('}').unwrap_or(&text);
        let comma = if self.choices > 0 { "," } else { "" };
        self.choices += 1;
        match logprobs {
            None => self.pieces.push(format!("{comma}{text}").into()),
            Some(logprobs) => {
                let head = format!("{comma}{open},\"logprobs\":");
                self.pieces.extend([head.into(), logprobs.clone(), Bytes::from_static(b"}")]);
            }
        }
    }

    /// Ends the reply with the token counts and further fields.
    pub(super) fn finish(mut self, usage: &Usage, more: &[(&str, &Value)]) -> Self {
        let more: String = more.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
        self.pieces.push(format!("],\"usage\":{}{more}}}", usage.json()).into());
        self
    }
}

impl IntoResponse for JsonReply {
    fn into_response(self) -> Response {
        let length: usize = self.pieces.iter().map(Bytes::len).sum();
        let body = Body::from_stream(stream::iter(self.pieces.into_iter().map(Ok::<_, Infallible>)));
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CONTENT_LENGTH, HeaderValue::from(length)),
        ];
        (headers, body).into_response()
    }
}
