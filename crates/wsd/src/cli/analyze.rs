//! `wsd analyze`: the paper's analyses of a pair on given prompts.

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::json;
use wsd::config::{Settings, SharedArgs};
use wsd::eval::RunFolder;
use wsd::eval::analysis::{Analysis, Analyzing, read_measured};
use wsd::eval::raters::{RATERS, find};
use wsd::lab::data::Journal;
use wsd::models;
use wsd_core::{MAX_DRAFT_TOKENS, MAX_TOKENS, Recipe, Rule};

use super::output::Output;
use super::progress::{Rows, is_whole};
use super::prompts::{Prompts, PromptsArgs};
use super::{Ending, GlobalArgs, resumable};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd analyze prompts.jsonl --out analysis --base ./base.gguf --draft ./aligned.gguf --limit 50
      Probability of the drafted tokens at the base's layers, confidence and perplexity by position,
      the place of the switch, and answers continued by the base after 0, 4, 8, ... drafted tokens.
  wsd analyze alpaca_eval=alpaca_eval.json --out run --aligned-key output --prefixes 0 --layers 0
      Perplexity of the file's own answers beside those of draft and base.";

/// Default tokens in a draft and in an answer.
const DEFAULT_TOKENS: usize = 128;
/// The file of measurements in the folder.
const FILE: &str = "measured.jsonl";

#[derive(Args, Debug)]
pub(crate) struct AnalyzeArgs {
    #[command(flatten)]
    prompts: PromptsArgs,
    /// Key of an aligned answer in the rows of the prompts, to be scored too
    #[arg(long, value_name = "KEY")]
    aligned_key: Option<String>,
    /// Numbers of drafted tokens after which the base continues, separated by commas
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "0,4,8,16,32,64")]
    prefixes: Vec<usize>,
    /// Layers of the base to read out, evenly spread; each costs as much as scoring the draft; 0 for none
    #[arg(long, value_name = "N", default_value_t = 13)]
    layers: usize,
    /// Rater of the continued answers
    #[arg(
        long,
        value_name = "RATER",
        default_value = "rules",
        value_parser = PossibleValuesParser::new(RATERS.iter().map(|rater| rater.name))
    )]
    by: String,
    #[command(flatten)]
    settings: SharedArgs,
}

pub(crate) async fn run(mut args: AnalyzeArgs, global: &GlobalArgs) -> Result<Ending> {
    for setting in [&MAX_DRAFT_TOKENS, &MAX_TOKENS] {
        args.settings.0.set_default(setting, DEFAULT_TOKENS)?;
    }
    let settings = global.settings(args.settings.0.clone())?;
    let prompts = args.prompts.read(&settings)?;
    if let Some(key) = args.aligned_key.as_deref()
        && prompts.records.iter().all(|record| record.text(key).is_none())
    {
        let rows = prompts.records.len();
        bail!("`--aligned-key` must name a text of the rows, got `{key}`, which none of {rows} has");
    }
    let folder = RunFolder::new(&args.prompts.out);
    if resumable(measure(&args, &settings, (&prompts, &folder), global)).await?.is_none() {
        return Ok(Ending::Interrupted);
    }
    let analysis = Analysis::of(&read_measured(&folder.file(FILE))?, Rule::from_values(&settings.values));
    folder.write("analysis.json", &format!("{}\n", serde_json::to_string_pretty(&analysis)?))?;
    folder.write("analysis.svg", &analysis.figure().svg())?;
    folder.write("analysis.md", &analysis.markdown())?;
    Output::stdout(global.color).text(&analysis.markdown())?;
    Ok(Ending::Done)
}

async fn measure(
    args: &AnalyzeArgs,
    settings: &Settings,
    (prompts, folder): (&Prompts, &RunFolder),
    global: &GlobalArgs,
) -> Result<()> {
    let Some(rater) = find(&args.by) else { return Ok(()) };
    let mut record = settings.record();
    let more = json!({"prefixes": args.prefixes, "layers": args.layers, "by": args.by, "aligned": args.aligned_key});
    record.extend(more.as_object().cloned().unwrap_or_default());
    let path = folder.file(FILE);
    if is_whole(&path, &prompts.records, &record, global.quiet)? {
        return Ok(());
    }
    let needs = [Recipe::find("wsd")?.needs, rater.needs].concat();
    let models = models::load(settings, &needs, args.prompts.parallel.into(), global.progress().as_mut())?;
    let aligned = prompts.records.iter().map(|record| record.text(args.aligned_key.as_deref()?));
    let labels = prompts.records.iter().map(|record| record.text("label").unwrap_or_default());
    let analyzing = Analyzing {
        models: &models,
        records: &prompts.records,
        jobs: &prompts.jobs,
        aligned: &aligned.collect::<Vec<_>>(),
        labels: &labels.collect::<Vec<_>>(),
        max_draft_tokens: settings.values.get(&MAX_DRAFT_TOKENS),
        prefixes: &args.prefixes,
        layers: args.layers,
        rater: rater.build(&models, &settings.values)?,
        parallel: args.prompts.parallel.into(),
    };
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    let journal = Journal::open(&path, &prompts.records, record)?;
    let mut rows = Rows::new(prompts.records.len(), journal.done(), global.quiet);
    analyzing.run(journal, |row, error| rows.on_row(row, error)).await?;
    rows.stop();
    Ok(())
}
