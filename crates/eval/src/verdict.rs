//! Verdicts: graded answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ChoiceScore;

/// A system's response to an item.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Text of the answer.
    pub text: &'a str,
    /// Scores of the item's choices.
    pub choices: &'a [ChoiceScore],
}

/// Points in one metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Points reached.
    pub sum: f64,
    /// Points possible.
    pub count: f64,
}

impl Score {
    /// One point or none.
    #[must_use]
    pub fn of(pass: bool) -> Self {
        Self { sum: f64::from(u8::from(pass)), count: 1.0 }
    }
}

/// The verdict on one answer: points by metric, and a word on the reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Points by name of the metric. A metric that is absent does not count this item.
    pub scores: BTreeMap<String, Score>,
    /// Extracted answer or reason, for readers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Verdict {
    /// The same verdict with the points of one more metric.
    #[must_use]
    pub fn with(mut self, metric: &str, score: Score) -> Self {
        self.scores.insert(metric.to_owned(), score);
        self
    }

    /// The same verdict with a note.
    #[must_use]
    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}
