//! Errors as Python exceptions.

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use wsd::config::ConfigError;
use wsd::hub::HubError;
use wsd::models::ModelError;

create_exception!(
    wsd,
    Error,
    PyException,
    "Failure of a model or of a file. The message ends with a line `hint: ...` if there is a next step; an option \
     `--name` in it is the keyword argument `name`."
);

/// Converts an error with its causes: `ValueError` if the caller can avoid it by another argument,
/// else [`Error`].
pub(crate) fn raise(error: impl Into<anyhow::Error>) -> PyErr {
    let error = error.into();
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // An error that contains its cause's message has reported it.
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { "\n  because: " });
            text.push_str(&cause);
        }
    }
    if is_usage(&error) { PyValueError::new_err(text) } else { Error::new_err(text) }
}

fn is_usage(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<wsd_core::Error>() {
        return is_usage_of_core(error);
    }
    match error.downcast_ref::<ModelError>() {
        Some(ModelError::Settings(error)) => is_usage_of_core(error),
        Some(error) => matches!(error, ModelError::NotBuiltin { .. } | ModelError::Name(HubError::Name { .. })),
        None => error.is::<ConfigError>(),
    }
}

fn is_usage_of_core(error: &wsd_core::Error) -> bool {
    use wsd_core::Error as E;
    matches!(
        error,
        E::Setting { .. }
            | E::UnknownRecipe { .. }
            | E::MissingModel { .. }
            | E::Unsupported { .. }
            | E::EmptyPrompt { .. }
            | E::PromptTooLong { .. }
            | E::TextTooLong { .. }
            | E::TokenRange { .. }
            | E::Chat(_)
            | E::Template { .. }
            | E::Unguided { .. }
            | E::UnguidedStrategy
    )
}
