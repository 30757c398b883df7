//! The speed of a run.

use std::time::Instant;

/// Counts tokens and estimates the time that is left.
pub(crate) struct Pace {
    first_step: usize,
    started: Instant,
    /// The time of the last question.
    since: Instant,
    tokens: usize,
}

impl Pace {
    pub(crate) fn new(step: usize) -> Self {
        let now = Instant::now();
        Self { first_step: step, started: now, since: now, tokens: 0 }
    }

    pub(crate) fn add(&mut self, tokens: usize) {
        self.tokens += tokens;
    }

    /// Tokens per second since the last call.
    pub(crate) fn tokens_per_second(&mut self) -> f64 {
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        let speed = (self.tokens as f64 / seconds).round();
        (self.since, self.tokens) = (Instant::now(), 0);
        speed
    }

    /// The estimated seconds until step `total`.
    pub(crate) fn seconds_left(&self, step: usize, total: usize) -> f64 {
        let done = (step - self.first_step).max(1) as f64;
        self.started.elapsed().as_secs_f64() / done * (total - step) as f64
    }
}
