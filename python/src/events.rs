//! Events as the records of the package's Python part.

use pyo3::prelude::*;
use serde_json::json;
use wsd_core::{Completion, Event};

use crate::class;
use crate::error::raise;

/// Converts an event.
pub(crate) fn event<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyAny>> {
    match event {
        Event::Prompt { tokens } => class(py, "Prompt")?.call1((tokens,)),
        Event::Token(it) => {
            let (text, author) = (it.text.as_str(), it.by.name());
            let fields = (it.id, text, author, it.logprob, it.confidence, it.repeats, it.switch, it.top.clone());
            class(py, "Token")?.call1(fields)
        }
        Event::Handover(it) => class(py, "Handover")?.call1((it.at, it.confidence, it.window, it.threshold)),
        Event::Call(it) => {
            let kind = json!(it.kind);
            class(py, "Call")?.call1((it.to.name(), kind.as_str(), it.tokens, it.seconds, it.accepted))
        }
        Event::DraftEnd(it) => class(py, "DraftEnd")?.call1((it.at, it.reason.name())),
        Event::Look(it) => class(py, "Look")?.call1((it.at, it.text.as_str(), it.taken)),
        Event::Reused { tokens } => class(py, "Reused")?.call1((tokens,)),
        Event::StopString(text) => class(py, "StopString")?.call1((text.as_str(),)),
        Event::Done(reason) => class(py, "Done")?.call1((reason.name(),)),
    }
}

/// Converts a whole answer.
pub(crate) fn answer<'py>(py: Python<'py>, completion: &Completion) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(completion).map_err(raise)?;
    class(py, "Answer")?.call_method1("from_json", (text,))
}
