//! `wsd sweep`: windows and thresholds on prompts that are drafted and scored once.

use anyhow::Result;
use clap::Args;
use wsd::config::{Settings, SharedArgs};
use wsd::eval::sweep::{Drafting, Sweep, read_drafts};
use wsd::eval::{Response, RunFolder};
use wsd::lab::data::Journal;
use wsd::lab::eval::Grid;
use wsd::models;
use wsd_core::{MAX_DRAFT_TOKENS, Recipe, Rule, SKIP_REPETITIONS, THRESHOLD, WINDOW};

use super::output::Output;
use super::progress::{Rows, is_whole};
use super::prompts::{Prompts, PromptsArgs};
use super::{Ending, GlobalArgs, note, usage};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd sweep prompts.jsonl --out sweep
      Where the base would take over, for windows of 2 to 12 tokens and thresholds of 0.5 to 0.95.
  wsd sweep gsm8k=gsm8k/test.jsonl --out sweep --score --limit 100
      With the score of each cell: cells that switch at the same token share an answer.";

#[derive(Args, Debug)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    prompts: PromptsArgs,
    /// Windows, separated by commas [default: 2,4,6,8,10,12 and the one in use]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    windows: Vec<usize>,
    /// Thresholds, separated by commas [default: 0.5 to 0.95 in steps of 0.05 and the one in use]
    #[arg(long, value_name = "P", value_delimiter = ',')]
    thresholds: Vec<f64>,
    /// Let the base finish the answers and grade them; needs the prompts of a benchmark
    #[arg(long)]
    score: bool,
    #[command(flatten)]
    settings: SharedArgs,
}

pub(crate) async fn run(args: SweepArgs, global: &GlobalArgs) -> Result<Ending> {
    let settings = global.settings(args.settings.0.clone())?;
    let grid = grid(&args, Rule::from_values(&settings.values));
    let rules = grid.rules()?;
    let prompts = args.prompts.read(&settings)?;
    if args.score && prompts.task.is_none() {
        return Err(usage(
            "`--score` needs the prompts of a benchmark\n  hint: give them as TASK=FILE; see wsd eval --list",
        ));
    }
    let folder = RunFolder::new(&args.prompts.out);
    let work = Work {
        prompts: &prompts,
        continued: if args.score { &rules } else { &[] },
        contrasted: false,
        parallel: args.prompts.parallel.into(),
    };
    if draft(&work, &settings, &folder, global).await? == Ending::Interrupted {
        return Ok(Ending::Interrupted);
    }
    let points = |row: usize, text: &str| {
        let Some((task, items)) = &prompts.task else { return 0.0 };
        let verdict = (task.grade)(&items[row], Response { text, choices: &[] });
        verdict.scores.get(task.metrics[0].name).map_or(0.0, |score| score.sum / score.count)
    };
    let sweep = Sweep::of(&read_drafts(&folder.file(DRAFTS))?, &grid, points)?;
    folder.write("sweep.json", &format!("{}\n", serde_json::to_string_pretty(&sweep)?))?;
    folder.write("sweep.svg", &sweep.figure().svg())?;
    folder.write("sweep.md", &sweep.markdown())?;
    Output::stdout(global.color).text(&sweep.markdown())?;
    Ok(Ending::Done)
}

/// The windows and thresholds to try: those named, or the usual ones and those of the rule in use.
fn grid(args: &SweepArgs, in_use: Rule) -> Grid {
    let (mut windows, mut thresholds) = (args.windows.clone(), args.thresholds.clone());
    if windows.is_empty() {
        windows = (1..=6).map(|half| 2 * half).chain([in_use.window()]).collect();
        windows.sort_unstable();
        windows.dedup();
    }
    if thresholds.is_empty() {
        thresholds = (10..20).map(|step| f64::from(step) / 20.0).chain([in_use.threshold()]).collect();
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
    }
    Grid { windows, thresholds }
}

/// The file of drafts in the folder.
pub(super) const DRAFTS: &str = "drafts.jsonl";

/// Prompts and what is wanted of them.
pub(super) struct Work<'a> {
    pub(super) prompts: &'a Prompts,
    pub(super) continued: &'a [Rule],
    pub(super) contrasted: bool,
    pub(super) parallel: usize,
}

/// Drafts and scores the prompts that have no draft yet.
pub(super) async fn draft(
    work: &Work<'_>,
    settings: &Settings,
    folder: &RunFolder,
    global: &GlobalArgs,
) -> Result<Ending> {
    // The rule does not change a draft, so it is no part of its record.
    let mut record = settings.record();
    let of_rule = [WINDOW.name, THRESHOLD.name, SKIP_REPETITIONS.name];
    record.retain(|key, _| !of_rule.contains(&key.as_str()));
    let rules = work.continued.iter().map(|rule| format!("{}:{}", rule.window(), rule.threshold()));
    record.insert("continued".into(), rules.collect::<Vec<_>>().into());
    record.insert("contrasted".into(), work.contrasted.into());
    if let Some(limit) = work.prompts.limit {
        record.insert("limit".into(), limit.into());
    }
    let path = folder.file(DRAFTS);
    if is_whole(&path, &work.prompts.records, &record, global.quiet)? {
        return Ok(Ending::Done);
    }
    let models = models::load(settings, Recipe::find("wsd")?.needs, work.parallel, global.progress().as_mut())?;
    let drafting = Drafting {
        models: &models,
        records: &work.prompts.records,
        jobs: &work.prompts.jobs,
        max_draft_tokens: settings.values.get(&MAX_DRAFT_TOKENS),
        continued: work.continued,
        contrasted: work.contrasted,
        parallel: work.parallel,
    };
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    let journal = Journal::open(&path, &work.prompts.records, record)?;
    let mut rows = Rows::new(work.prompts.records.len(), journal.done(), global.quiet);
    tokio::select! {
        biased;
        Ok(()) = tokio::signal::ctrl_c() => {
            rows.stop();
            note("stopped; the same command resumes there");
            return Ok(Ending::Interrupted);
        }
        result = drafting.run(journal, |row, error| rows.on_row(row, error)) => result?,
    }
    rows.stop();
    Ok(Ending::Done)
}
