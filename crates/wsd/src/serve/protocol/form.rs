//! The form of answers in a protocol.

use std::sync::Arc;

use serde_json::Value;

use super::item::{Part, Said};
use crate::serve::app::App;
use crate::serve::error::ApiError;
use crate::serve::fields::Fields;
use crate::serve::request::GenerationRequest;
use crate::serve::request_log::Caller;
use crate::serve::source::Source;

/// The encoding of a stream.
pub(crate) enum Wire {
    /// Server-sent events.
    Events,
    /// JSON, one object to a line.
    Lines,
}

/// A piece of a stream.
pub(crate) struct Line {
    /// The name of a server-sent event.
    pub(super) event: Option<&'static str>,
    pub(super) data: Value,
}

/// The form of one answer in a protocol.
pub(crate) trait Form: Sized + Send + 'static {
    /// The encoding of streams.
    const WIRE: Wire;

    /// Renames the fields of a body to those of chat completions, and takes the text to continue.
    fn read(app: &Arc<App>, caller: &Caller, fields: &mut Fields) -> Result<(Self, Source), ApiError>;

    /// Returns the lines before the answer, once the length of the prompt is known.
    fn begin(&mut self, request: &GenerationRequest, prompt_tokens: usize) -> Vec<Line>;

    /// Returns the lines that report a change of item `index` of the answer.
    fn part(&mut self, index: usize, part: &Part<'_>) -> Vec<Line>;

    /// Returns the lines after the answer.
    fn end(&mut self, request: &GenerationRequest, said: &Said) -> Vec<Line>;

    /// Returns the lines of a failure.
    fn fail(&mut self, error: &ApiError) -> Vec<Line>;

    /// Returns the answer as one reply.
    fn whole(&mut self, request: &GenerationRequest, said: &Said) -> Value;
}

impl Line {
    /// A line without a name.
    pub(crate) fn new(data: Value) -> Self {
        Self { event: None, data }
    }

    /// A server-sent event whose name is the `type` of its data.
    pub(crate) fn named(event: &'static str, mut data: Value) -> Self {
        data["type"] = event.into();
        Self { event: Some(event), data }
    }
}
