//! `wsd data score`: scores of answers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};
use wsd::config::{Settings, SharedArgs};
use wsd::data::card::{Card, Step};
use wsd::data::scoring::{self, Missing, NamedRaters, Scoring};
use wsd::data::{Answers, read_answers};
use wsd::eval::raters::{JUDGE_PROMPT, RATERS, Rater, find};
use wsd::models;
use wsd_core::{Recipe, Seat};

use super::{input_files, tell};
use crate::cli::eval::with_judge_prompt;
use crate::cli::progress::Rows;
use crate::cli::{Ending, GlobalArgs, distinct, resumable, usage};

#[derive(Args, Debug)]
pub(crate) struct ScoreArgs {
    /// Files of answers that `wsd data sample` or `score` wrote, or prompts with the answers of their data set
    #[arg(value_name = "ANSWERS", required = true)]
    files: Vec<PathBuf>,
    /// The file of scored answers; rows that are there are kept
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The raters, separated by commas: rules and length need no model, likelihood the base, the others
    /// --model judge=MODEL
    #[arg(
        long,
        value_name = "RATERS",
        required = true,
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(RATERS.iter().map(|rater| rater.name))
    )]
    by: Vec<String>,
    /// Text that a judge is shown by grade and guard, with {question} and {answer}
    #[arg(long, value_name = "FILE")]
    judge_prompt: Option<PathBuf>,
    /// Answers at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    #[command(flatten)]
    settings: SharedArgs,
}

pub(super) async fn run(args: ScoreArgs, global: &GlobalArgs) -> Result<Ending> {
    let settings = with_judge_prompt(&global.settings(args.settings.0.clone())?, args.judge_prompt.as_deref())?;
    let answers = read_answers(&args.files)?;
    if answers.rows.is_empty() {
        bail!("the files have no answers\n  hint: `wsd data sample` writes them");
    }
    let raters = distinct(args.by.iter().filter_map(|name| find(name)), |rater| rater.name);
    let seats: BTreeSet<_> = raters.iter().flat_map(|rater| rater.needs.iter().map(|need| need.seat)).collect();
    if seats.contains(&Seat::JUDGE) && settings.model(Seat::JUDGE).is_none() {
        return Err(usage(format!(
            "`--by` {} needs a model\n  hint: name one with --model judge=MODEL",
            args.by.join(",")
        )));
    }
    let done = resumable(score(&args, &settings, (&answers, &raters), global)).await?;
    Ok(done.map_or(Ending::Interrupted, |()| Ending::Done))
}

async fn score(
    args: &ScoreArgs,
    settings: &Settings,
    (answers, raters): (&Answers, &[&'static Recipe<dyn Rater>]),
    global: &GlobalArgs,
) -> Result<()> {
    let seats: BTreeSet<_> = raters.iter().flat_map(|rater| rater.needs.iter().map(|need| need.seat)).collect();
    let seats: Vec<_> = seats.into_iter().collect();
    let inputs = input_files(&args.files)?;
    let names: Vec<_> = raters.iter().map(|rater| rater.name).collect();
    let mut record = Map::from_iter([("raters".to_owned(), json!(names))]);
    for seat in seats {
        record.insert(seat.name().into(), json!(settings.model(seat).map(|model| &model.name)));
    }
    record.insert("judge_prompt".into(), json!(settings.values.get::<Option<String>>(&JUDGE_PROMPT)));
    record.retain(|_, value| !value.is_null());
    record.insert("answers_sha256".into(), inputs.iter().map(|file| Value::from(file.sha256.as_str())).collect());
    let missing = rate(args, settings, (answers, raters, &record), global).await?;
    let mut step = Step::new("score", inputs);
    step.settings = record;
    let counts = [("answers", answers.rows.len()), ("failed", missing.failed), ("unmarked", missing.unmarked)];
    step.counts.extend(counts.map(|(name, count)| (name.to_owned(), count.into())));
    Card::of(&args.files)?.with(step).write(&args.out)?;
    tell(
        global,
        &format!(
            "{} scored answers in {}; {} failed, {} ratings without a mark, {} rows held an error before",
            answers.rows.len(),
            args.out.display(),
            missing.failed,
            missing.unmarked,
            answers.failed
        ),
    );
    Ok(())
}

/// Rates the answers that have no row in the file, and counts what is missing in all.
async fn rate(
    args: &ScoreArgs,
    settings: &Settings,
    (answers, raters, record): (&Answers, &[&'static Recipe<dyn Rater>], &Map<String, Value>),
    global: &GlobalArgs,
) -> Result<Missing> {
    let (all, parallel) = (answers.rows.len(), args.parallel.into());
    let open = || scoring::open(&answers.rows, &args.out, record.clone());
    // Checked before models are loaded, which takes long.
    let is_whole = scoring::check(&answers.rows, &args.out, record)? == all;
    let mut missing = Missing::default();
    if is_whole {
        missing.failed = open()?.failed();
    } else {
        let needs = models::needs(raters.iter().copied());
        let loaded = models::load(settings, &needs, parallel, global.progress().as_mut())?;
        let built = raters.iter().map(|rater| Ok((rater.name, rater.build(&loaded, &settings.values)?)));
        let scoring = Scoring { rows: &answers.rows, raters: built.collect::<Result<NamedRaters>>()?, parallel };
        let journal = open()?;
        let mut rows = Rows::new(all, journal.done(), global.quiet);
        missing = scoring.run(journal, |row, error| rows.on_row(row, error)).await?;
        rows.stop();
    }
    // Of a file, the rows of earlier calls count too.
    if args.out.is_file() {
        missing.unmarked = unmarked(&args.out, raters)?;
    }
    Ok(missing)
}

/// Counts the ratings without a mark in a file of scores.
fn unmarked(file: &Path, raters: &[&'static Recipe<dyn Rater>]) -> Result<usize> {
    let scored = read_answers(&[file.to_owned()])?.rows;
    let pairs = scored.iter().flat_map(|row| raters.iter().map(|rater| (&row.answer.scores, rater.name)));
    Ok(pairs.filter(|(scores, rater)| !scores.contains_key(*rater)).count())
}
