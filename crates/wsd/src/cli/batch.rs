//! A file of prompts to a file of answers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use wsd::config::Settings;
use wsd::lab::data::{Journal, Record, parse_rows, read_rows};
use wsd_core::{Call, Completion, FinishReason, Handover, Job, Strategy, Timings, TokenRecord, Trace, Usage};

use super::generate::{BatchArgs, strategy};
use super::output::{Closed, note};
use super::progress::Rows;
use super::prompt::{of_row, read_stdin_bytes};
use super::{Ending, Look};

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
    timings: Timings,
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

/// Answer every row of `input` that has no row in `output` yet.
pub(super) async fn run(
    input: &Path,
    output: &Path,
    args: &BatchArgs,
    settings: &Settings,
    look: &Look,
) -> Result<Ending> {
    if let (Ok(from), Ok(to)) = (fs_err::canonicalize(input), fs_err::canonicalize(output))
        && from == to
    {
        bail!("input and output are the same file: {}", input.display());
    }
    let records = read_records(input, look.quiet)?;
    let prompts = records.iter().map(|record| of_row(record.ask(), &settings.prompt));
    let jobs = prompts.enumerate().map(|(row, prompt)| {
        Ok(settings.job(prompt.with_context(|| format!("{}: row {}", input.display(), row + 1))?))
    });
    let jobs = jobs.collect::<Result<Vec<_>>>()?;
    let mut journal = Journal::open(output, &records, settings.record())?;

    if journal.done() < records.len() {
        let strategy = strategy(settings, usize::from(args.parallel), look)?;
        let mut rows = Rows::new(records.len(), journal.done(), look.quiet);
        let work = answer_all(&strategy, &records, jobs, args, &mut journal, &mut rows);
        tokio::select! {
            biased;
            Ok(()) = tokio::signal::ctrl_c() => {
                rows.stop();
                note(&format!("stopped at row {} of {}; the same command goes on from there", journal.done(), records.len()));
                return Ok(Ending::Interrupted);
            }
            result = work => result.map_err(|error| match error.downcast_ref::<io::Error>() {
                Some(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Closed.into(),
                _ => error.context(output.display().to_string()),
            })?,
        }
        rows.stop();
    }
    let (done, failed) = (journal.done(), journal.failed());
    journal.close()?;
    if !look.quiet {
        note(&format!("{done} rows in {}", output.display()));
    }
    if failed > 0 {
        bail!("{failed} of {done} rows could not be answered: they hold `error` in {}", output.display());
    }
    Ok(Ending::Done)
}

/// The rows of a file, or those of standard input for `-`.
fn read_records(input: &Path, quiet: bool) -> Result<Vec<Record>> {
    Ok(match input.as_os_str() == "-" {
        true => parse_rows(Path::new("standard input"), &read_stdin_bytes("the rows", quiet)?)?,
        false => read_rows(input)?,
    })
}

/// Some rows at a time, written in their order however they finish.
async fn answer_all(
    strategy: &Arc<dyn Strategy>,
    records: &[Record],
    jobs: Vec<Job>,
    args: &BatchArgs,
    journal: &mut Journal,
    rows: &mut Rows,
) -> Result<()> {
    let answers = jobs
        .into_iter()
        .enumerate()
        .skip(journal.done())
        .map(|(row, job)| async move { (row, complete(strategy, job).await) });
    let mut answers = stream::iter(answers).buffer_unordered(usize::from(args.parallel));
    let mut waiting = BTreeMap::new();
    while let Some((row, result)) = answers.next().await {
        waiting.insert(row, result);
        while let Some(result) = waiting.remove(&journal.done()) {
            let row = journal.done();
            match result {
                Ok(completion) => {
                    let answered = answered(&completion, args.full, journal.settings());
                    journal.append(&records[row].with(&answered)?, false)?;
                }
                Err(error) => {
                    rows.note(&format!("row {}: {error}", row + 1));
                    journal.append(&records[row].with(&Failure { error: error.to_string() })?, true)?;
                }
            }
            rows.advance();
        }
    }
    Ok(())
}

async fn complete(strategy: &Arc<dyn Strategy>, job: Job) -> wsd_core::Result<Completion> {
    Trace::collect(wsd_core::run(strategy.clone(), job)).await
}

fn answered<'a>(completion: &'a Completion, full: bool, settings: &'a Map<String, Value>) -> Answer<'a> {
    Answer {
        output: &completion.text,
        wsd: Details {
            handover: completion.handover,
            finish_reason: completion.finish_reason,
            usage: completion.usage,
            timings: completion.timings,
            settings,
            tokens: full.then_some(&completion.tokens),
            calls: full.then_some(&completion.calls),
        },
    }
}
