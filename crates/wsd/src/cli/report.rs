//! The result of `wsd score`: each token of a response with its confidence, and the switch.

use serde::Serialize;
use wsd_core::Token;

/// A response as the base scores it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) tokens: Vec<ScoredToken>,
    pub(super) handover: Option<Switch>,
}

/// A token of the response.
#[derive(Debug, Serialize)]
pub(super) struct ScoredToken {
    pub(super) id: Token,
    pub(super) text: String,
    pub(super) logprob: f64,
    /// The geometric mean over the window that ends here; `None` before the first full window.
    pub(super) confidence: Option<f64>,
}

/// The position at which the base would take over.
#[derive(Debug, Serialize)]
pub(super) struct Switch {
    pub(super) at: usize,
    pub(super) confidence: f64,
}
