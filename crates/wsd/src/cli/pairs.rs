//! `wsd pairs`: tested pairs of models.

use anyhow::Result;
use clap::Args;
use serde_json::json;
use wsd::config::{PAIRS, Pair};

use super::output::Output;
use super::{Ending, GlobalArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd compare --pair smollm2-135m+gemma3-270m \"How do I keep bees?\"
      The pair is downloaded at first use and runs with its own window and threshold.
  wsd serve --pair qwen2.5-coder-0.5b+1.5b --base ./coder-1.5b.gguf --draft ./coder-0.5b.gguf
      The pair's settings with files of your own.";

#[derive(Args, Debug)]
pub(crate) struct PairsArgs {
    /// Print one JSON object for each pair
    #[arg(long)]
    json: bool,
}

/// Lists the pairs.
pub(crate) fn run(args: &PairsArgs, global: &GlobalArgs) -> Result<Ending> {
    let mut output = Output::stdout(global.color);
    for pair in PAIRS {
        output.text(&if args.json { format!("{}\n", json(pair)) } else { shown(pair) })?;
    }
    if !args.json {
        output.text(
            "Take one with --pair NAME; files of your own in its place: --pair NAME --base FILE --draft FILE.\n\
             Window and threshold for another pair: wsd calibrate.\n",
        )?;
    }
    Ok(Ending::Done)
}

fn json(pair: &Pair) -> serde_json::Value {
    json!({
        "name": pair.name, "draft": pair.draft, "base": pair.base, "megabytes": pair.megabytes,
        "licence": pair.licence, "window": pair.window, "threshold": pair.threshold,
        "skip_repetitions": pair.skips_repetitions, "measured": pair.measured,
    })
}

fn shown(pair: &Pair) -> String {
    let size = match pair.megabytes {
        megabytes @ ..1000 => format!("{megabytes} MB"),
        megabytes => format!("{:.1} GB", f64::from(megabytes) / 1000.0),
    };
    let skips = if pair.skips_repetitions { ", repetitions do not count" } else { "" };
    format!(
        "{}\n    {size} · {}\n    draft {}\n    base  {}\n    window {}, threshold {}{skips}: {}\n\n",
        pair.name,
        pair.licence,
        pair.draft,
        pair.base,
        pair.window,
        pair.threshold,
        pair.measured.unwrap_or("not measured, the paper's rule"),
    )
}
