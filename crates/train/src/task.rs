//! A run before it runs.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::schedule::Schedule;
use crate::steps::Steps;
use crate::trainer::Term;

/// A run: objectives, data, settings of the loop, and the folder for results.
pub struct Task<'a> {
    /// The run's folder; it exists.
    pub folder: PathBuf,
    /// The objectives, whose weighted losses are summed; at least one, each with examples. The
    /// first one's examples are the run's epochs.
    pub terms: Vec<Term>,
    /// The settings of the loop.
    pub steps: Steps,
    /// The seed of the order of examples.
    pub seed: u64,
    /// A flag that stops the run after the current step.
    pub stop: &'a AtomicBool,
}

impl Task<'_> {
    /// The learning rates of all steps.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        self.steps.schedule(self.terms.first().map_or(0, |term| term.examples.len()))
    }
}
