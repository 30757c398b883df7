//! `wsd generate --input`: answers a file of prompts.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use wsd::config::Settings;
use wsd::lab::data::{Answering, Journal, Record, RowJobs, parse_rows, read_rows};

use super::answer::load_strategy;
use super::output::{Closed, note};
use super::progress::Rows;
use super::prompt::{of_row, read_stdin_bytes};
use super::{Ending, GlobalArgs};

/// The arguments that are for a single prompt.
const SINGLE: [&str; 3] = ["prompt", "prompt_ids", "json"];

/// The options for a file of prompts.
#[derive(Args, Debug)]
#[command(next_help_heading = "Files")]
pub(super) struct BatchArgs {
    /// JSON lines or a JSON list to answer, `-` for standard input: rows with "prompt", "messages",
    /// "context", "question" or "instruction"; sampling such as "seed" and limits of a row are
    /// honoured, other keys are kept
    #[arg(long, value_name = "FILE", requires = "output")]
    pub(super) input: Option<PathBuf>,
    /// File for the rows, in order, with "output" and "wsd" (or "error") added; rows that it
    /// already has are kept
    #[arg(long, value_name = "FILE", requires = "input", conflicts_with_all = SINGLE)]
    pub(super) output: Option<PathBuf>,
    /// Rows answered at a time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=1024),
        requires = "input",
        allow_negative_numbers = true,
        conflicts_with_all = SINGLE
    )]
    pub(super) parallel: u16,
    /// Write every token and engine call of each row too
    #[arg(long, requires = "input", conflicts_with_all = SINGLE)]
    pub(super) full: bool,
}

/// Answers every row of `input` that has no row in `output` yet.
pub(super) async fn run(
    input: &Path,
    output: &Path,
    args: &BatchArgs,
    settings: &Settings,
    global: &GlobalArgs,
) -> Result<Ending> {
    if let (Ok(from), Ok(to)) = (fs_err::canonicalize(input), fs_err::canonicalize(output))
        && from == to
    {
        bail!("input and output are the same file: {}", input.display());
    }
    let records = read_records(input, global.quiet)?;
    let jobs = records.iter().enumerate().map(|(row, record)| {
        let prompt = of_row(record.prompt(), &settings.prompt);
        let prompt = prompt.with_context(|| format!("{}: row {}", input.display(), row + 1))?;
        Ok(settings.job_with(prompt, record.values().clone()))
    });
    let jobs = jobs.collect::<Result<Vec<_>>>()?;
    let mut journal = Journal::open(output, &records, settings.record())?;

    if journal.done() < records.len() {
        let strategy = load_strategy(settings, usize::from(args.parallel), global)?;
        let mut rows = Rows::new(records.len(), journal.done(), global.quiet);
        let answering = Answering { parallel: args.parallel.into(), timings: true, full: args.full };
        let on_row = |row, error: Option<&_>| rows.on_row(row, error);
        let batch = RowJobs { strategy: &strategy, records: &records, jobs: &jobs };
        let work = answering.answer(batch, &mut journal, on_row);
        tokio::select! {
            biased;
            Ok(()) = tokio::signal::ctrl_c() => {
                rows.stop();
                let (done, all) = (journal.done(), records.len());
                note(&format!("stopped at row {done} of {all}; the same command resumes there"));
                return Ok(Ending::Interrupted);
            }
            result = work => result.map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Closed.into(),
                _ => anyhow::Error::new(error).context(output.display().to_string()),
            })?,
        }
        rows.stop();
    }
    let (done, failed) = (journal.done(), journal.failed());
    journal.close()?;
    if !global.quiet {
        note(&format!("{done} rows in {}", output.display()));
    }
    if failed > 0 {
        bail!("{failed} of {done} rows could not be answered: they hold `error` in {}", output.display());
    }
    Ok(Ending::Done)
}

/// Reads the rows of a file, or of standard input for `-`.
fn read_records(input: &Path, quiet: bool) -> Result<Vec<Record>> {
    if input.as_os_str() == "-" {
        return Ok(parse_rows(Path::new("standard input"), &read_stdin_bytes("the rows", quiet)?)?);
    }
    Ok(read_rows(input)?)
}
