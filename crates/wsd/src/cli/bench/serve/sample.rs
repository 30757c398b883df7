//! The measurement of one request.

use std::time::Duration;

/// Times of one request, from its start, and its outcome.
pub(super) struct Sample {
    /// HTTP status; 200 for an answer of the library.
    pub(super) status: u16,
    pub(super) first_token: Option<Duration>,
    /// Longest gap between two tokens.
    pub(super) pause: Option<Duration>,
    /// Time to the end of the answer.
    pub(super) whole: Duration,
    pub(super) tokens: usize,
}
