//! `wsd generate --input`: answers a file of prompts.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use wsd::config::Settings;
use wsd::lab::data::{Answering, Journal, Record, RowJobs, RowReader};
use wsd::models;
use wsd_core::SEED;

use super::answer::load_strategy;
use super::output::{Closed, note};
use super::progress::Rows;
use super::prompt::{of_row, read_stdin_bytes};
use super::{Ending, GlobalArgs, counted, usage};

/// The arguments that are for a single prompt.
const SINGLE: [&str; 4] = ["prompt", "prompt_option", "prompt_ids", "json"];
/// The name of standard input and of standard output.
const STDIO: &str = "-";

/// The options for a file of prompts.
#[derive(Args, Debug)]
#[command(next_help_heading = "Files")]
pub(super) struct BatchArgs {
    /// JSON lines, a JSON list or a CSV file to answer, `-` for standard input: rows with "prompt",
    /// "messages", "context", "question" or "instruction"; sampling such as "seed" and limits of a
    /// row are honoured, other keys are kept
    #[arg(long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// File for the rows, in order, with "output" and "wsd" (or "error") added; rows that it
    /// already has are kept [default: -, standard output]
    #[arg(long, value_name = "FILE", requires = "input", conflicts_with_all = SINGLE)]
    pub(super) output: Option<PathBuf>,
    /// The key of the prompt in each row, if it is another one
    #[arg(long, hide_short_help = true, value_name = "KEY", requires = "input", conflicts_with_all = SINGLE)]
    pub(super) prompt_key: Option<String>,
    /// Answer each row N times, with seeds that count up from the row's or the command's
    #[arg(
        long,
        hide_short_help = true,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        requires = "input",
        conflicts_with_all = SINGLE
    )]
    pub(super) samples: Option<u32>,
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
    #[arg(long, hide_short_help = true, requires = "input", conflicts_with_all = SINGLE)]
    pub(super) full: bool,
}

/// Answers every row of `input` that has no row in the output yet.
pub(super) async fn run(input: &Path, args: &BatchArgs, mut settings: Settings, global: &GlobalArgs) -> Result<Ending> {
    let output = args.output.as_deref().filter(|path| path.as_os_str() != STDIO);
    check_output(input, output)?;
    let records = read_records(input, args, &settings, global.quiet)?;
    let parallel = usize::from(args.parallel);
    // The record beside each answer has the sampling that the model's files recommend.
    let mut known = settings.clone();
    known.adopt(models::recommended_sampling(&settings, global.progress().as_mut())?);
    let jobs = records.iter().enumerate().map(|(row, record)| {
        let prompt = of_row(record.prompt(), &known.prompt);
        let prompt = prompt.with_context(|| format!("{}: row {}", input.display(), row + 1))?;
        Ok(known.job_with(prompt, record.values().clone()))
    });
    let jobs = jobs.collect::<Result<Vec<_>>>()?;
    let mut journal = match output {
        Some(path) => Journal::open(path, &records, known.record())?,
        None => Journal::stdout(known.record()),
    };
    let shown = output.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());

    if journal.done() < records.len() {
        let strategy = load_strategy(&mut settings, parallel, global)?;
        let mut rows = Rows::new(records.len(), journal.done(), global.quiet);
        let answering = Answering { parallel, timings: true, full: args.full };
        let on_row = |row, error: Option<&_>| rows.on_row(row, error);
        let batch = RowJobs { strategy: &strategy, records: &records, jobs: &jobs };
        let work = answering.answer(batch, &mut journal, on_row);
        tokio::select! {
            biased;
            Ok(()) = tokio::signal::ctrl_c() => {
                rows.stop();
                let (done, all) = (journal.done(), records.len());
                let resumes = if output.is_some() { "; the same command resumes there" } else { "" };
                note(&format!("stopped at row {done} of {all}{resumes}"));
                return Ok(Ending::Interrupted);
            }
            result = work => result.map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Closed.into(),
                _ => anyhow::Error::new(error).context(shown.clone()),
            })?,
        }
        rows.stop();
    }
    let (done, failed) = (journal.done(), journal.failed());
    journal.close()?;
    if !global.quiet && output.is_some() {
        note(&format!("{} in {shown}", counted(done, "row")));
    }
    if failed > 0 {
        bail!("{failed} of {} could not be answered: see `error` in {shown}", counted(done, "row"));
    }
    Ok(Ending::Done)
}

/// Refuses an output that is the input, or whose folder is missing, before any model is loaded.
fn check_output(input: &Path, output: Option<&Path>) -> Result<()> {
    let Some(output) = output else { return Ok(()) };
    if let (Ok(from), Ok(to)) = (fs_err::canonicalize(input), fs_err::canonicalize(output))
        && from == to
    {
        return Err(usage(format!("input and output are the same file: {}", input.display())));
    }
    if output.is_dir() {
        return Err(usage(format!("`--output` must be a file, got the folder {}", output.display())));
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let (output, folder) = (output.display(), folder.display());
        bail!("`--output` must be in a folder that is there, got {output}\n  hint: mkdir -p {folder}");
    }
    Ok(())
}

/// Reads the rows of a file, or of standard input for `-`, each as many times as there are samples.
fn read_records(input: &Path, args: &BatchArgs, settings: &Settings, quiet: bool) -> Result<Vec<Record>> {
    let reader = RowReader { prompt_key: args.prompt_key.clone() };
    let records = if input.as_os_str() == STDIO {
        reader.parse(Path::new("standard input"), &read_stdin_bytes("the rows", quiet)?)?
    } else {
        reader.read(input)?
    };
    let Some(samples) = args.samples else { return Ok(records) };
    let samples = records.iter().enumerate().flat_map(|(row, record)| {
        let first: u64 = record.values().clone().or(settings.values.clone()).get(&SEED);
        (0..u64::from(samples)).map(move |sample| {
            let sampled = record.sampled(sample as usize, first.wrapping_add(sample));
            sampled.with_context(|| format!("row {}", row + 1))
        })
    });
    samples.collect()
}
