//! `wsd train sensitivity`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use wsd::hub::{self, HubOptions};
use wsd_core::Input;
use wsd_nn::{Checkpoint, arch};
use wsd_train::data::{ExampleReader, TrainingRow};
use wsd_train::sensitivity::{Sensitivity, sensitivity};
use wsd_train::{Encoder, Layout, ModelOptions, Objective, Sequence, TrainableModel};

use super::super::{Ending, GlobalArgs};
use super::template::choose;

#[derive(Args, Debug)]
pub(super) struct SensitivityArgs {
    /// The model: a folder, a .gguf file or a Hugging Face name
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Rows with answers, without cues
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The same rows with cues, from `wsd train cues`
    #[arg(long, value_name = "FILE")]
    cued: PathBuf,
    /// Form of chats: own, plain, or a Jinja file
    #[arg(long, value_name = "TEMPLATE", default_value = "own")]
    template: String,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SensitivityArgs, look: &GlobalArgs) -> Result<Ending> {
    let folder = hub::resolve(&args.model, &HubOptions::from_env(), look.progress().as_mut())?;
    let checkpoint = Checkpoint::open(&folder)?.in_standard_form()?;
    let blueprint = arch::blueprint(&checkpoint.config)?;
    let encoder = Encoder::try_new(&checkpoint, &choose(&args.template)?, blueprint.vocab, None)?;
    let groups = groups(args, &encoder)?;
    let sequences = || groups.values().flatten().flatten();
    let options = ModelOptions {
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        max_len: sequences().map(|sequence| sequence.tokens.len()).max().unwrap_or(1),
        ..ModelOptions::default()
    };
    let weights = Layout::new(&blueprint).read(&checkpoint)?;
    let mut model = TrainableModel::try_new(&blueprint, &options)?;
    let measured: Vec<_> = groups
        .iter()
        .map(|(kind, pairs)| Ok((kind.as_str(), sensitivity(&mut model, &weights, pairs)?)))
        .collect::<Result<_>>()?;
    let all = total(&measured);
    let rows = measured.into_iter().chain([("all", all)]);
    if args.json {
        let row = |(kind, found): (&str, Sensitivity)| {
            (kind.to_owned(), json!({"rows": found.rows, "divergence": found.divergence, "drop": found.drop}))
        };
        println!("{}", Value::Object(rows.map(row).collect()));
    } else {
        println!("{:<12} {:>6} {:>12} {:>12}", "cue", "rows", "divergence", "drop");
        for (kind, Sensitivity { rows, divergence, drop }) in rows {
            println!("{kind:<12} {rows:>6} {divergence:>12.4} {drop:>12.4}");
        }
    }
    Ok(Ending::Done)
}

/// The mean over all rows.
fn total(measured: &[(&str, Sensitivity)]) -> Sensitivity {
    let rows: usize = measured.iter().map(|(_, found)| found.rows).sum();
    let mean = |part: fn(&Sensitivity) -> f64| {
        measured.iter().map(|(_, found)| part(found) * found.rows as f64).sum::<f64>() / rows.max(1) as f64
    };
    Sensitivity { rows, divergence: mean(|found| found.divergence), drop: mean(|found| found.drop) }
}

/// Pairs of sequences by the kind of cue.
fn groups(args: &SensitivityArgs, encoder: &Encoder) -> Result<BTreeMap<String, Vec<[Sequence; 2]>>> {
    let (plain, cued) = (Input::ROWS.read_text(&args.input)?, Input::ROWS.read_text(&args.cued)?);
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
    if lines(&plain) != lines(&cued) {
        let (cued_lines, plain_lines) = (lines(&cued), lines(&plain));
        bail!("{}: must have {plain_lines} rows, as {}, got {cued_lines}", args.cued.display(), args.input.display());
    }
    let mut groups: BTreeMap<String, Vec<[Sequence; 2]>> = BTreeMap::new();
    let rows = |text: &str| {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines.map(|(index, line)| (index + 1, line.to_owned())).collect::<Vec<_>>()
    };
    for ((number, plain), (cued_number, cued)) in rows(&plain).into_iter().zip(rows(&cued)) {
        let at = || format!("{}:{cued_number}", args.cued.display());
        let kind = serde_json::from_str::<Value>(&cued).with_context(at)?;
        let kind = kind["cue"].as_str().map(str::to_owned);
        let kind = kind.with_context(|| format!("{}: needs `cue`\n  hint: make it with `wsd train cues`", at()))?;
        let pair =
            [answer(encoder, &plain, (&args.input, number))?, answer(encoder, &cued, (&args.cued, cued_number))?];
        let tokens = |sequence: &Sequence| sequence.positions().map(|at| sequence.tokens[at]).collect::<Vec<_>>();
        if tokens(&pair[0]) != tokens(&pair[1]) {
            bail!("{}: must have the answer of {}:{number}", at(), args.input.display());
        }
        groups.entry(kind).or_default().push(pair);
    }
    Ok(groups)
}

/// The last answer of a row.
fn answer(encoder: &Encoder, line: &str, (file, number): (&Path, usize)) -> Result<Sequence> {
    let at = || format!("{}:{number}", file.display());
    let objective = Objective::find("sft").context("the table of objectives has no `sft`")?;
    let reader = ExampleReader { objective, encoder, packing: None };
    let examples = reader.examples(&TrainingRow::parse(line).with_context(at)?).with_context(at)?;
    examples.into_iter().next_back().and_then(|example| example.sequences.into_iter().next()).with_context(at)
}
