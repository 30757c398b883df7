//! `wsd lab eval`: systems on the items of a closed world.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};
use wsd::config::{Settings, SharedArgs};
use wsd::lab::eval::{Candidate, Evaluation, Grid, RunFolder, SAMPLES, SYSTEMS, System, TIMES, examples};
use wsd::lab::world::Item;
use wsd::models;
use wsd_core::{Engine, MAX_TOKENS, Models, Need, Recipe, STRATEGY, Seat};

use super::report;
use crate::cli::progress::{Rows, is_whole};
use crate::cli::{Ending, GlobalArgs, note, resumable, usage};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd lab world --seed 1 --out world && wsd lab eval --world world --out run
      Every system that the built-in pair allows, graded by the world's oracle; may be resumed.
  wsd lab eval --world world --out run --tuned ./tuned-base --parallel 32
      With the base that was itself tuned on the pilot's data.
  wsd lab eval --world world --out quick --systems base,pilot,wsd --limit 40 --parts table
      A quick look.";

#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    /// The folder of a closed world: eval.jsonl has the items, prompts.jsonl in-context examples
    #[arg(long, value_name = "FOLDER")]
    world: PathBuf,
    /// The run folder; answers that are there are kept
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The base after tuning on the pilot's data, for comparison [default: none]
    #[arg(long, value_name = "MODEL")]
    tuned: Option<String>,
    /// The systems, separated by commas [default: all that there are models for]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = system_names())]
    systems: Vec<String>,
    /// The measurements, separated by commas
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = PARTS, default_values = &PARTS[..4])]
    parts: Vec<String>,
    /// At most this many items of each task [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// At most this many items of each task in the ablation
    #[arg(long, value_name = "N", default_value_t = 100)]
    ablation_limit: usize,
    /// Items answered at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    /// Prompts in the measurement of times
    #[arg(long, value_name = "N", default_value_t = 40)]
    timed_prompts: usize,
    /// Rounds of the measurement of times
    #[arg(long, value_name = "N", default_value_t = 5)]
    timed_rounds: usize,
    #[command(flatten)]
    settings: SharedArgs,
}

/// The parts of a measurement; the last, scored drafts for `wsd train switch`, is written only if named.
const PARTS: [&str; 5] = ["table", "times", "positions", "ablation", "switch"];
/// The parts that measure the pair besides the systems.
const OF_THE_PAIR: [&str; 3] = ["positions", "ablation", "switch"];
/// Default tokens in an answer: more than any good answer in a closed world has.
const DEFAULT_MAX_TOKENS: usize = 128;

fn system_names() -> PossibleValuesParser {
    PossibleValuesParser::new(SYSTEMS.iter().map(|system| system.name))
}

impl EvalArgs {
    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|name| name == part)
    }

    /// The systems named; by default all that there are models and examples for.
    fn systems(&self, has_examples: bool) -> Result<Vec<&'static System>> {
        let possible = |system: &&System| (has_examples || !system.examples) && (self.tuned.is_some() || !system.tuned);
        if self.systems.is_empty() {
            return Ok(SYSTEMS.iter().filter(possible).collect());
        }
        let named = SYSTEMS.iter().filter(|system| self.systems.iter().any(|name| name == system.name));
        let named: Vec<_> = named.collect();
        match named.iter().find(|system| !possible(system)) {
            Some(system) if system.tuned => {
                Err(usage(format!("`{}` needs a model\n  hint: name one with --tuned", system.name)))
            }
            Some(system) => {
                bail!("`{}` needs examples, and {} has none", system.name, self.world.join("prompts.jsonl").display())
            }
            None => Ok(named),
        }
    }
}

pub(super) async fn run(mut args: EvalArgs, global: &GlobalArgs) -> Result<Ending> {
    if args.settings.0.is_set(&STRATEGY) {
        return Err(usage("`--strategy` must be left out, since each system has its own\n  hint: use --systems"));
    }
    args.settings.0.set_default(&MAX_TOKENS, DEFAULT_MAX_TOKENS)?;
    // All systems answer the same prompts, so a prefix cache would favor the later ones.
    args.settings.0.without_prefix_cache()?;
    let settings = global.settings(args.settings.0.clone())?;
    let (records, items) = Evaluation::read(&args.world.join("eval.jsonl"))?;
    let shown = match args.world.join("prompts.jsonl") {
        path if path.exists() => examples(&read_items(&path)?),
        _ => Vec::new(),
    };
    let systems = args.systems(!shown.is_empty())?;

    let sessions = usize::from(args.parallel);
    let of_pair = systems.iter().filter(|system| !system.tuned);
    let mut recipes = of_pair.map(|system| Recipe::find(system.recipe)).collect::<wsd_core::Result<Vec<_>>>()?;
    if OF_THE_PAIR.iter().any(|part| args.has(part)) {
        recipes.push(Recipe::find("wsd")?);
    }
    let systems = systems.into_iter().map(|system| Configured::try_new(system, &settings, args.tuned.as_deref()));
    let systems = systems.collect::<Result<Vec<_>>>()?;
    let mut evaluation = Evaluation {
        records,
        items,
        models: Models::default(),
        values: settings.values.clone(),
        examples: shown,
        terms: settings.terms(),
        parallel: sessions,
        settings: settings.record(),
    };
    evaluation.limit(args.limit.unwrap_or(usize::MAX));
    let folder = RunFolder::new(&args.out);
    let mut candidates = Vec::new();
    if !is_measured(&args, &evaluation, &systems, &folder, global.quiet)? {
        evaluation.models = models::load(&settings, &models::needs(recipes), sessions, global.progress().as_mut())?;
        let tuned = tuned(&args, &settings, sessions, global)?;
        for system in &systems {
            candidates.push(system.candidate(&evaluation.models, tuned.as_ref())?);
        }
    }
    folder.write_manifest(&evaluation.items, systems.iter().map(|system| (system.system.name, &system.record)))?;
    let is_due = !candidates.is_empty();
    if is_due && resumable(measure(&args, evaluation, &candidates, &folder, global)).await?.is_none() {
        return Ok(Ending::Interrupted);
    }
    // A report is on answers; scored drafts are for `wsd train switch`.
    if folder.file(SAMPLES).is_dir() { report::write(&[args.out.clone()], &args.out, global) } else { Ok(Ending::Done) }
}

async fn measure(
    args: &EvalArgs,
    mut evaluation: Evaluation,
    candidates: &[Candidate],
    folder: &RunFolder,
    global: &GlobalArgs,
) -> Result<()> {
    let progress = |name: &str, evaluation: &Evaluation| {
        if !global.quiet {
            note(&format!("{name}:"));
        }
        Rows::new(evaluation.records.len(), 0, global.quiet)
    };
    if args.has("table") {
        for candidate in candidates {
            let mut rows = progress(candidate.system.title, &evaluation);
            evaluation.samples(candidate, folder, |row, error| rows.on_row(row, error)).await?;
            rows.stop();
        }
    }
    if args.has("times") {
        if !global.quiet {
            note("times:");
        }
        evaluation.times(candidates, folder, args.timed_prompts, args.timed_rounds).await?;
    }
    if args.has("positions") {
        let mut rows = progress("positions", &evaluation);
        evaluation.positions(folder, |row, error| rows.on_row(row, error)).await?;
        rows.stop();
    }
    if args.has("switch") {
        let mut rows = progress("switch", &evaluation);
        evaluation.scored_drafts(folder, |row, error| rows.on_row(row, error)).await?;
        rows.stop();
    }
    if args.has("ablation") {
        evaluation.limit(args.ablation_limit);
        let mut rows = progress("ablation", &evaluation);
        evaluation.ablation(&Grid::default(), folder, |row, error| rows.on_row(row, error)).await?;
        rows.stop();
    }
    Ok(())
}

fn read_items(path: &std::path::Path) -> Result<Vec<Item>> {
    let text = wsd_core::Input::PROMPTS.read_text(path)?;
    let rows = text.lines().enumerate();
    let items = rows.map(|(line, row)| {
        serde_json::from_str(row)
            .with_context(|| format!("{}:{}: not an item of a closed world", path.display(), line + 1))
    });
    items.collect()
}

/// A system with its own settings.
struct Configured {
    system: &'static System,
    settings: Settings,
    /// The settings that stand in its rows.
    record: Map<String, Value>,
}

impl Configured {
    fn try_new(system: &'static System, settings: &Settings, tuned: Option<&str>) -> Result<Self> {
        let mut settings = settings.clone();
        settings.recipe = Recipe::find(system.recipe)?;
        settings.values = system.values(&settings.values)?;
        if let Some(name) = tuned.filter(|_| system.tuned) {
            settings = settings.with_base(name)?;
        }
        let mut record = settings.record();
        record.insert("system".into(), system.name.into());
        Ok(Self { system, settings, record })
    }

    fn candidate(&self, pair: &Models, tuned: Option<&Arc<dyn Engine>>) -> Result<Candidate> {
        let mut models = pair.clone();
        if let Some(engine) = tuned.filter(|_| self.system.tuned) {
            models.remove(Seat::BASE);
            models.add(Seat::BASE, engine.clone());
        }
        let strategy = self.settings.recipe.build(&models, &self.settings.values)?;
        Ok(Candidate { system: self.system, strategy, settings: self.record.clone() })
    }
}

/// Tells whether the run folder holds all that is to be measured, so that no model is needed.
fn is_measured(
    args: &EvalArgs,
    evaluation: &Evaluation,
    systems: &[Configured],
    folder: &RunFolder,
    quiet: bool,
) -> Result<bool> {
    let mut ablation = evaluation.clone();
    ablation.limit(args.ablation_limit);
    let of_systems = systems.iter().filter(|_| args.has("table"));
    let of_systems = of_systems.map(|system| (folder.samples(system.system.name), &evaluation.records, &system.record));
    let of_pair = OF_THE_PAIR.iter().filter(|part| args.has(part)).map(|part| {
        let records = if *part == "ablation" { &ablation.records } else { &evaluation.records };
        (folder.file(&format!("{part}.jsonl")), records, &evaluation.settings)
    });
    for (file, records, settings) in of_systems.chain(of_pair) {
        if !is_whole(&file, records, settings, quiet)? {
            return Ok(false);
        }
    }
    Ok(!args.has("times") || folder.file(TIMES).exists())
}

fn tuned(
    args: &EvalArgs,
    settings: &Settings,
    sessions: usize,
    global: &GlobalArgs,
) -> Result<Option<Arc<dyn Engine>>> {
    let Some(name) = &args.tuned else { return Ok(None) };
    let settings = settings.clone().with_base(name)?;
    let models = models::load(&settings, &[Need::any(Seat::BASE)], sessions, global.progress().as_mut())?;
    Ok(models.get(Seat::BASE).cloned())
}
