//! Answers the rows of an input file concurrently and writes them in order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use wsd_core::{
    Call, Completion, DraftEnd, Error, FinishReason, Handover, Job, Result, Strategy, Timings, TokenRecord, Trace,
    Usage, run,
};

use super::{Journal, Record};

/// Fields added to an answered row.
#[derive(Serialize)]
struct Answer<'a> {
    output: String,
    wsd: Details<'a>,
}

/// The `wsd` object of an answered row.
#[derive(Serialize)]
struct Details<'a> {
    handover: Option<Handover>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_end: Option<DraftEnd>,
    finish_reason: FinishReason,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    settings: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<TokenRecord>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<Vec<Call>>,
}

/// Fields added to a row that failed.
#[derive(Serialize)]
struct Failure {
    error: String,
}

/// Concurrency and level of detail of a batch of answers.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    /// Number of rows answered concurrently.
    pub parallel: usize,
    /// Write timings. Without them the same rows give the same bytes.
    pub timings: bool,
    /// Write every token and engine call.
    pub full: bool,
}

/// Rows to answer, with their jobs.
#[derive(Clone, Copy)]
pub struct RowJobs<'a> {
    /// Strategy that answers all rows.
    pub strategy: &'a Arc<dyn Strategy>,
    /// Rows of the input.
    pub records: &'a [Record],
    /// One job for each record.
    pub jobs: &'a [Job],
}

impl Answering {
    /// Answers every record that has no row in the journal yet. `on_row` is called after each row
    /// is written, with the error if the row failed.
    ///
    /// # Errors
    /// I/O errors. An engine's error is written into its row instead.
    pub async fn answer(
        &self,
        batch: RowJobs<'_>,
        journal: &mut Journal,
        on_row: impl FnMut(usize, Option<&Error>),
    ) -> io::Result<()> {
        let settings = &journal.settings().clone();
        let work =
            async |row: usize| Ok(self.answered(complete(batch.strategy, batch.jobs[row].clone()).await?, settings));
        in_order(batch.records, journal, self.parallel, work, on_row).await
    }

    fn answered<'a>(&self, completion: Completion, settings: &'a Map<String, Value>) -> Answer<'a> {
        Answer {
            output: completion.text,
            wsd: Details {
                handover: completion.handover,
                draft_end: completion.draft_end,
                finish_reason: completion.finish_reason,
                usage: completion.usage,
                timings: self.timings.then_some(completion.timings),
                settings,
                tokens: self.full.then_some(completion.tokens),
                calls: self.full.then_some(completion.calls),
            },
        }
    }
}

/// Runs `work` for every record that has no row in the journal yet, `parallel` at a time. Rows are
/// written in the order of the records, whichever finishes first; a failed row holds `error`.
///
/// # Errors
/// I/O errors.
pub async fn in_order<Row: Serialize>(
    records: &[Record],
    journal: &mut Journal,
    parallel: usize,
    work: impl AsyncFn(usize) -> Result<Row>,
    mut on_row: impl FnMut(usize, Option<&Error>),
) -> io::Result<()> {
    let work = &work;
    let rows = (journal.done()..records.len()).map(|row| async move { (row, work(row).await) });
    let mut rows = stream::iter(rows).buffer_unordered(parallel.max(1));
    let mut waiting = BTreeMap::new();
    while let Some((row, result)) = rows.next().await {
        waiting.insert(row, result);
        while let Some(result) = waiting.remove(&journal.done()) {
            let row = journal.done();
            let (text, error) = match result {
                Ok(more) => (records[row].with(&more)?, None),
                Err(error) => (records[row].with(&Failure { error: error.to_string() })?, Some(error)),
            };
            journal.append(&text, error.is_some())?;
            on_row(row, error.as_ref());
        }
    }
    Ok(())
}

/// Runs a job to its end.
///
/// # Errors
/// Errors of the strategy.
pub async fn complete(strategy: &Arc<dyn Strategy>, job: Job) -> Result<Completion> {
    Trace::collect(run(strategy.clone(), job)).await
}
