//! The step that samples answers.

use std::path::Path;

use serde_json::{Map, Value, json};
use wsd_core::{Job, Message, Terms, Values};
use wsd_eval::{Candidate, Form};
use wsd_lab::data::{Answering, Journal, Record, RowJobs};

use crate::{DataError, PromptRow};

/// Prompts to answer.
#[derive(Clone, Debug)]
pub struct Sampling<'a> {
    /// The prompts.
    pub prompts: &'a [PromptRow],
    /// Number of answers to each prompt; their seeds count up from `seed`.
    pub samples: usize,
    /// Seed of the first answer to each prompt.
    pub seed: u64,
    /// Messages above each conversation, such as instructions.
    pub before: Vec<Message>,
    /// Settings of terms and sampling.
    pub values: Values,
    /// Number of prompts answered at a time.
    pub parallel: usize,
}

impl Sampling<'_> {
    /// Number of answers that a system writes.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.prompts.len() * self.samples
    }

    /// Answers every prompt that has no row in the journal, which [`Sampling::open`] has opened. `on_row`
    /// is called after each row with its index, and with the error if the row failed. Returns the number
    /// of failed rows.
    ///
    /// # Errors
    /// [`DataError`]; an engine's error is written into its row instead.
    pub async fn run(
        &self,
        system: &Candidate,
        mut journal: Journal,
        on_row: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<usize, DataError> {
        let records = self.records(system.system.name)?;
        let jobs = self.jobs(&records, &system.system.messages_before());
        let answering = Answering { parallel: self.parallel, timings: false, full: false };
        let batch = RowJobs { strategy: &system.strategy, records: &records, jobs: &jobs };
        answering.answer(batch, &mut journal, on_row).await?;
        let failed = journal.failed();
        journal.close()?;
        Ok(failed)
    }

    /// Opens or creates the file at `path` for the answers of `system`; rows that it has are kept.
    ///
    /// # Errors
    /// [`DataError::Journal`] for answers to other prompts or of other settings.
    pub fn open(&self, system: &str, settings: Map<String, Value>, path: &Path) -> Result<Journal, DataError> {
        Ok(Journal::open(path, &self.records(system)?, settings)?)
    }

    /// Counts the answers of `system` in the file at `path`, which may be missing and then is not created.
    ///
    /// # Errors
    /// Those of [`Sampling::open`].
    pub fn check(&self, system: &str, settings: &Map<String, Value>, path: &Path) -> Result<usize, DataError> {
        Ok(Journal::check(path, &self.records(system)?, settings)?)
    }

    fn records(&self, by: &str) -> Result<Vec<Record>, DataError> {
        let record = |prompt: &PromptRow, sample: usize| {
            let PromptRow { id, source, label, messages, .. } = prompt;
            let mut row = json!({"id": id, "source": source, "label": label, "messages": messages, "by": by});
            row["sample"] = sample.into();
            row["seed"] = self.seed.wrapping_add(sample as u64).into();
            Record::parse(&row.to_string()).map_err(|source| DataError::Prompt { id: id.clone(), source })
        };
        let all = self.prompts.iter().flat_map(|prompt| (0..self.samples).map(move |sample| record(prompt, sample)));
        all.collect()
    }

    fn jobs(&self, records: &[Record], examples: &[Message]) -> Vec<Job> {
        let before = [examples, &self.before].concat();
        let job = |record: &Record| Job {
            prompt: Form::Chat.prompt(record.prompt(), &before),
            terms: Terms::from_values(&record.values().clone().or(self.values.clone())),
        };
        records.iter().map(job).collect()
    }
}
