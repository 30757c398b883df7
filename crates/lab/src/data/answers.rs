//! Answers every row of a journal's input, some at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use wsd_core::{
    Call, Completion, Error, FinishReason, Handover, Job, Result, Strategy, Timings, TokenRecord, Trace, Usage, run,
};

use super::{Journal, Record};

/// What is added to a row that was answered.
#[derive(Serialize)]
struct Answer<'a> {
    output: String,
    wsd: Details<'a>,
}

/// How the answer came about.
#[derive(Serialize)]
struct Details<'a> {
    handover: Option<Handover>,
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

/// What is added to a row that could not be answered.
#[derive(Serialize)]
struct Failure {
    error: String,
}

/// How rows are answered and what is written of them.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    /// Rows answered at a time.
    pub parallel: usize,
    /// Write how long things took; without, the same rows give the same bytes.
    pub timings: bool,
    /// Write every token and engine call.
    pub full: bool,
}

impl Answering {
    /// Answer every record that has no row in the journal yet. `told` hears of each row as it is written, with the reason where
    /// it could not be answered.
    ///
    /// # Errors
    /// Those of writing. What an engine refuses is written into the row.
    pub async fn answer(
        &self,
        strategy: &Arc<dyn Strategy>,
        records: &[Record],
        jobs: &[Job],
        journal: &mut Journal,
        told: impl FnMut(usize, Option<&Error>),
    ) -> io::Result<()> {
        let settings = &journal.settings().clone();
        let work = async |row: usize| Ok(self.answered(complete(strategy, jobs[row].clone()).await?, settings));
        in_order(records, journal, self.parallel, work, told).await
    }

    fn answered<'a>(&self, completion: Completion, settings: &'a Map<String, Value>) -> Answer<'a> {
        Answer {
            output: completion.text,
            wsd: Details {
                handover: completion.handover,
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

/// Do some work for every record that has no row in the journal yet, `parallel` at a time. The rows stand in the order of the
/// records, however the work ends; what fails is a row with `error`.
///
/// # Errors
/// Those of writing.
pub(crate) async fn in_order<Row: Serialize>(
    records: &[Record],
    journal: &mut Journal,
    parallel: usize,
    work: impl AsyncFn(usize) -> Result<Row>,
    mut told: impl FnMut(usize, Option<&Error>),
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
            told(row, error.as_ref());
        }
    }
    Ok(())
}

/// Run a job to its end.
///
/// # Errors
/// Those of the strategy.
pub async fn complete(strategy: &Arc<dyn Strategy>, job: Job) -> Result<Completion> {
    let (mut trace, mut events) = (Trace::new(), run(strategy.clone(), job));
    while let Some(event) = events.next().await.transpose()? {
        trace.push(&event);
    }
    Ok(trace.finish())
}
