//! Failures to open a remote model.

use wsd_core::Seat;

use crate::hub::HubError;

/// A remote model that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Text that is not the address of a model.
    #[error("`{address}` is not the address of a model: {why}\n  hint: for example vllm+http://host:8000/model")]
    Address {
        /// The text given, without any password in it.
        address: String,
        /// The part that is wrong.
        why: String,
    },
    /// An API key that is missing or malformed.
    #[error("`{name}` must hold the API key of the {seat} model, but the environment variable {why}")]
    Key {
        /// The environment variable.
        name: String,
        /// The model.
        seat: Seat,
        /// The fault.
        why: &'static str,
    },
    /// TLS that cannot be set up, for example because the system has no certificates.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A probe that could not run.
    #[error("the probe could not run: {0}")]
    Runtime(String),
    /// A server that does not answer, or cannot do what it must.
    #[error("the {seat} model at {address}, {phase}: {why}")]
    Probe {
        /// The model.
        seat: Seat,
        /// Its address.
        address: String,
        /// The step of the probe that failed.
        phase: &'static str,
        /// The reason, with a hint where there is a next step.
        why: String,
    },
    /// Tokenizer files that cannot be read.
    #[error("the tokenizer `{name}` of the {seat} model cannot be read")]
    Tokenizer {
        /// The folder or hub name.
        name: String,
        /// The model.
        seat: Seat,
        /// The cause.
        source: Box<wsd_nn::Error>,
    },
    /// The hub's cache cannot be read.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl RemoteError {
    pub(super) const NO_TOKENIZER: &'static str = "the server offers no tokenizer";
}
