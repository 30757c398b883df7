//! Answers every row of a journal's input, some at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use wsd_core::{Call, Completion, FinishReason, Handover, Job, Strategy, Timings, TokenRecord, Trace, Usage, run};

use super::{Journal, Record};

/// What is added to a row that was answered.
#[derive(Serialize)]
struct Answer<'a> {
    output: &'a str,
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
    tokens: Option<&'a [TokenRecord]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<&'a [Call]>,
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
    /// Answer every record that has no row in the journal yet: the rows stand in the order of the records, however they
    /// finish. `told` hears of each row as it is written, with the reason where it could not be answered.
    ///
    /// # Errors
    /// Those of writing. What an engine refuses is written into the row.
    pub async fn answer(
        &self,
        strategy: &Arc<dyn Strategy>,
        records: &[Record],
        jobs: Vec<Job>,
        journal: &mut Journal,
        mut told: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> io::Result<()> {
        let answers = jobs.into_iter().enumerate().skip(journal.done());
        let answers = answers.map(|(row, job)| async move { (row, complete(strategy, job).await) });
        let mut answers = stream::iter(answers).buffer_unordered(self.parallel);
        let mut waiting = BTreeMap::new();
        while let Some((row, result)) = answers.next().await {
            waiting.insert(row, result);
            while let Some(result) = waiting.remove(&journal.done()) {
                let row = journal.done();
                let text = match &result {
                    Ok(completion) => records[row].with(&self.answered(completion, journal.settings()))?,
                    Err(error) => records[row].with(&Failure { error: error.to_string() })?,
                };
                journal.append(&text, result.is_err())?;
                told(row, result.as_ref().err());
            }
        }
        Ok(())
    }

    fn answered<'a>(&self, completion: &'a Completion, settings: &'a Map<String, Value>) -> Answer<'a> {
        Answer {
            output: &completion.text,
            wsd: Details {
                handover: completion.handover,
                finish_reason: completion.finish_reason,
                usage: completion.usage,
                timings: self.timings.then_some(completion.timings),
                settings,
                tokens: self.full.then_some(&completion.tokens),
                calls: self.full.then_some(&completion.calls),
            },
        }
    }
}

/// Run a job to its end.
///
/// # Errors
/// Those of the strategy.
pub async fn complete(strategy: &Arc<dyn Strategy>, job: Job) -> wsd_core::Result<Completion> {
    let (mut trace, mut events) = (Trace::new(), run(strategy.clone(), job));
    while let Some(event) = events.next().await.transpose()? {
        trace.push(&event);
    }
    Ok(trace.finish())
}
