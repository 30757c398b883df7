//! Prompts and lists of tokens from Python.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use wsd::config::PromptSettings;
use wsd_core::{ChatRole, Message, Prompt, Token};

/// Reads a prompt: a text, which is a user's message unless `raw` is set; a list of messages; or a
/// list of token ids.
pub(crate) fn read(value: &Bound<'_, PyAny>, settings: &PromptSettings) -> PyResult<Prompt> {
    if let Ok(text) = value.extract::<String>() {
        return Ok(if settings.raw {
            Prompt::Raw(text)
        } else {
            Prompt::Chat(settings.complete(vec![Message::new(ChatRole::User, text)]))
        });
    }
    let is_tokens = value.get_item(0).is_ok_and(|first| first.extract::<Token>().is_ok());
    if is_tokens { tokens(value).map(Prompt::Tokens) } else { Ok(Prompt::Chat(settings.complete(messages(value)?))) }
}

/// Reads a list of token ids, which may be an array.
pub(crate) fn tokens(value: &Bound<'_, PyAny>) -> PyResult<Vec<Token>> {
    value.try_iter()?.map(|token| token?.extract::<Token>()).collect()
}

/// Reads a conversation: a list of `{"role": ..., "content": ...}`.
pub(crate) fn messages(value: &Bound<'_, PyAny>) -> PyResult<Vec<Message>> {
    let hint = "a prompt is a text, a list of messages {\"role\": ..., \"content\": ...}, or a list of token ids";
    let text = value.py().import("json")?.call_method1("dumps", (value,));
    let text: String = text.and_then(|text| text.extract()).map_err(|_| {
        let kind = value.get_type().name().map_or_else(|_| "an object".into(), |name| name.to_string());
        PyTypeError::new_err(format!("`prompt` must not be of type {kind}\n  hint: {hint}"))
    })?;
    serde_json::from_str(&text)
        .map_err(|error| PyValueError::new_err(format!("`prompt` is not a conversation: {error}\n  hint: {hint}")))
}
