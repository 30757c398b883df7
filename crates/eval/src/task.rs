//! A task: one benchmark with its file format, prompts and grader.

use std::collections::BTreeMap;

use crate::{Form, Item, Response, Sample, Source, SourceError, Verdict};

/// A number that a task reports.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name in tables and JSON.
    pub name: &'static str,
    /// Name in lm-evaluation-harness's results, or an empty text if it has none.
    pub lm_eval: &'static str,
}

impl Metric {
    /// A metric that lm-evaluation-harness does not have.
    #[must_use]
    pub const fn own(name: &'static str) -> Self {
        Self { name, lm_eval: "" }
    }

    /// A metric and its name in lm-evaluation-harness.
    #[must_use]
    pub const fn new(name: &'static str, lm_eval: &'static str) -> Self {
        Self { name, lm_eval }
    }
}

/// Choices that a reader of a benchmark file takes into account.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Number of worked examples above each question; the task's own number if absent.
    pub shots: Option<usize>,
    /// File of worked examples; the task's usual file beside its own if absent.
    pub examples: Option<Source>,
}

/// A writer of a system's answers in a benchmark's own form: it takes the system's name and returns a
/// file name and its text.
pub type Export = fn(&str, &[Sample]) -> (String, String);

/// A benchmark.
pub struct Task {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The file that it reads, in words.
    pub file: &'static str,
    /// The usual form of its prompts.
    pub form: Form,
    /// Metrics, the most important one first.
    pub metrics: &'static [Metric],
    /// Reader of the file.
    pub read: fn(&Source, &ReadOptions) -> Result<Vec<Item>, SourceError>,
    /// Grader of one response.
    pub grade: fn(&Item, Response<'_>) -> Verdict,
    /// Maker of a Python program that ends without an error if an answer is right.
    pub program: Option<fn(&Item, &str) -> String>,
    /// Writer of a system's answers in the benchmark's own form: a file name and its text.
    pub export: Option<Export>,
    /// Maker of the next turn of a conversation from an item and its answer.
    pub follow_up: Option<fn(&Item, &str) -> Option<Item>>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Task {
    /// Reads the items of a file.
    ///
    /// # Errors
    /// [`SourceError`] for a file of another form, without items, or with an identifier twice.
    pub fn items(&self, source: &Source, options: &ReadOptions) -> Result<Vec<Item>, SourceError> {
        let items = (self.read)(source, options).map_err(|error| match error {
            SourceError::Row { path, line, message } if !message.contains("hint:") => {
                let message = format!("{message}\n  hint: `{}` reads {}", self.name, self.file);
                SourceError::Row { path, line, message }
            }
            error => error,
        })?;
        if items.is_empty() {
            return Err(source.fault(format!("the file has no items\n  hint: `{}` reads {}", self.name, self.file)));
        }
        let mut seen = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            if let Some(first) = seen.insert(item.id.as_str(), index) {
                let (first, again) = (first + 1, index + 1);
                return Err(source.fault(format!("the id `{}` stands at items {first} and {again}", item.id)));
            }
        }
        Ok(items)
    }
}
