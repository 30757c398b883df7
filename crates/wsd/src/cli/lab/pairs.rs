//! `wsd lab pairs`: preference pairs from sampled answers.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use wsd::lab::world::{Item, Pair, World, deduplicated};
use wsd_core::files::write_whole;

use crate::cli::{Ending, GlobalArgs, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd generate --input world/prompts.jsonl --output base.jsonl --strategy base --temperature 0.8
  wsd generate --input world/prompts.jsonl --output draft.jsonl --strategy draft --temperature 0.8
  wsd lab pairs --answers base.jsonl --answers draft.jsonl --seed 1 --output pairs.jsonl
      Of the answers to each prompt, the best and the worst by the oracle.";

#[derive(Args, Debug)]
pub(crate) struct PairsArgs {
    /// Answers to a world's prompts.jsonl, written by `wsd generate`; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    answers: Vec<PathBuf>,
    /// The world's seed: pairs with a name or a phrasing of its evaluation are left out
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The file of pairs; a data card is written beside it, with the ending .md
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// A prompt with one answer.
#[derive(Deserialize)]
struct Row {
    #[serde(flatten)]
    item: Item,
    output: Option<String>,
}

/// The data card of the pairs.
fn card(args: &PairsArgs, pairs: &[Pair], prompts: usize) -> String {
    let table = |title: &str, counts: BTreeMap<String, usize>| {
        let rows: String = counts.iter().map(|(name, count)| format!("| {name} | {count} |\n")).collect();
        format!("| {title} | pairs |\n|---|---|\n{rows}")
    };
    format!(
        include_str!("pairs.md"),
        seed = args.seed,
        pairs = pairs.len(),
        prompts = prompts,
        samples = args.answers.len(),
        kinds = table("asked", counted(pairs.iter().map(|pair| pair.kind))),
        faults = table("fault of the rejected answer", counted(pairs.iter().map(|pair| pair.fault))),
    )
}

/// Counts the values, by their names in the files.
fn counted(values: impl Iterator<Item = impl Serialize>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        let name = serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned));
        *counts.entry(name.unwrap_or_default()).or_default() += 1;
    }
    counts
}

pub(super) fn run(args: &PairsArgs, global: &GlobalArgs) -> Result<Ending> {
    let mut items: Vec<(Item, Vec<String>)> = Vec::new();
    let mut places = HashMap::new();
    for path in &args.answers {
        for (number, line) in wsd_core::Input::PROMPTS.read_text(path)?.lines().enumerate() {
            let at = || format!("{}:{}", path.display(), number + 1);
            let Row { item, output } = serde_json::from_str(line).with_context(at)?;
            let place = *places.entry(item.id.clone()).or_insert(items.len());
            if place == items.len() {
                items.push((item, Vec::new()));
            } else if items[place].0 != item {
                bail!("{}: another prompt was `{}` before", at(), item.id);
            }
            items[place].1.extend(output);
        }
    }
    let pairs: Vec<_> = items.iter().filter_map(|(item, answers)| Pair::of(item, answers)).collect();
    let found = pairs.len();
    // A model trained on the whole world may name things that are not in the prompt.
    let leaks = World::new(args.seed).leak_check();
    let (clean, leaking): (Vec<_>, Vec<_>) =
        deduplicated(pairs).into_iter().partition(|pair| pair.texts().all(|text| leaks.check(text).is_ok()));
    let mut prompts = clean.iter().chain(&leaking).flat_map(|pair| &pair.prompt);
    prompts.try_for_each(|message| leaks.check(&message.content))?;
    let rows = clean.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    write_whole(&args.output, (rows.join("\n") + "\n").as_bytes())?;
    write_whole(&args.output.with_extension("md"), card(args, &clean, items.len()).as_bytes())?;
    if !global.quiet {
        note(&format!(
            "{} pairs of {} prompts in {}; {} repeated others, {} named what is kept for the evaluation",
            clean.len(),
            items.len(),
            args.output.display(),
            found - clean.len() - leaking.len(),
            leaking.len(),
        ));
    }
    Ok(Ending::Done)
}
