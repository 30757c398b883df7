//! `wsd data sample`: answers to prompts.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};
use wsd::config::{Settings, SharedArgs};
use wsd::data::card::{Card, Step};
use wsd::data::read_prompts;
use wsd::data::sampling::Sampling;
use wsd::eval::{Candidate, System};
use wsd::models;
use wsd_core::{ChatRole, Message};

use super::{input_files, tell};
use crate::cli::progress::Rows;
use crate::cli::{Ending, GlobalArgs, counted, distinct, resumable, usage};

#[derive(Args, Debug)]
pub(crate) struct SampleArgs {
    /// Files that `wsd data read` or `filter` wrote
    #[arg(value_name = "PROMPTS", required = true)]
    files: Vec<PathBuf>,
    /// The folder for answers, one file for each system; answers that are there are kept
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The systems, separated by commas: strategies, and in_context for the base with examples
    /// [default: the one of --strategy]
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(System::all().map(|system| system.name)),
        conflicts_with = "strategy"
    )]
    systems: Vec<String>,
    /// Answers to each prompt, with seeds that count up
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    samples: u16,
    /// Answers at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    #[command(flatten)]
    settings: SharedArgs,
}

pub(super) async fn run(args: SampleArgs, global: &GlobalArgs) -> Result<Ending> {
    let settings = global.settings(args.settings.0.clone())?;
    if settings.terms().sampling.temperature == 0.0 && args.samples > 1 {
        return Err(usage("`temperature` must be above 0 for several samples: equal answers make no pair"));
    }
    let prompts = read_prompts(&args.files)?;
    let systems = systems(&args, &settings)?;
    let system = settings.prompt.system.iter().map(|text| Message::new(ChatRole::System, text));
    let sampling = Sampling {
        prompts: &prompts,
        samples: args.samples.into(),
        seed: settings.terms().sampling.seed,
        before: system.collect(),
        values: settings.values.clone(),
        parallel: args.parallel.into(),
    };
    let done = resumable(answer(&args, &settings, (&systems, &sampling), global)).await?;
    Ok(done.map_or(Ending::Interrupted, |()| Ending::Done))
}

fn systems(args: &SampleArgs, settings: &Settings) -> Result<Vec<System>> {
    if args.systems.is_empty() {
        return Ok(vec![System::find(settings.recipe.name)?]);
    }
    let named = args.systems.iter().map(|name| System::find(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(distinct(named, |system| system.name))
}

async fn answer(
    args: &SampleArgs,
    settings: &Settings,
    (systems, sampling): (&[System], &Sampling<'_>),
    global: &GlobalArgs,
) -> Result<()> {
    let mut work = Vec::new();
    for system in systems {
        let mut record: Map<String, Value> = Settings { recipe: system.recipe, ..settings.clone() }.record();
        record.insert("system_name".into(), system.name.into());
        let path = args.out.join(format!("{}.jsonl", system.name));
        // Checked before models are loaded, which takes long.
        let done = sampling.check(system.name, &record, &path)?;
        work.push((system, record, path, done));
    }
    let open = work.iter().filter(|(.., done)| *done < sampling.rows());
    let needs = models::needs(open.map(|(system, ..)| system.recipe));
    let loaded = models::load(settings, &needs, sampling.parallel, global.progress().as_mut())?;
    fs_err::create_dir_all(&args.out)?;
    let inputs = input_files(&args.files)?;
    let mut failures = 0;
    for (system, record, path, _) in work {
        let journal = sampling.open(system.name, record.clone(), &path)?;
        let mut step = Step::new("sample", inputs.clone());
        step.settings.clone_from(&record);
        step.settings.insert("samples".into(), sampling.samples.into());
        let mut failed = journal.failed();
        if journal.done() < sampling.rows() {
            let strategy = system.recipe.build(&loaded, &settings.values)?;
            let candidate = Candidate { system: *system, strategy, settings: record };
            tell(global, &format!("{}:", system.name));
            let mut rows = Rows::new(sampling.rows(), journal.done(), global.quiet);
            failed = sampling.run(&candidate, journal, |row, error| rows.on_row(row, error)).await?;
            rows.stop();
        }
        step.counts.insert("answers".into(), sampling.rows().into());
        step.counts.insert("failed".into(), failed.into());
        Card::of(&args.files)?.with(step).write(&path)?;
        tell(global, &format!("{} answers in {}, {failed} failed", sampling.rows() - failed, path.display()));
        failures += failed;
    }
    if failures > 0 {
        let rows = counted(sampling.rows() * systems.len(), "row");
        anyhow::bail!("{failures} of {rows} could not be answered: see `error` in {}", args.out.display());
    }
    Ok(())
}
