//! `wsd train cues`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};
use wsd_core::files::write_whole;
use wsd_train::cues::{CUES, CueKind, add_cue};

use super::super::output::note;
use super::super::{Ending, GlobalArgs, usage};

#[derive(Args, Debug)]
pub(super) struct CuesArgs {
    /// Rows of training data or of prompts, a JSON object per line
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The file of the same rows with cues, in the same order
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Kinds of cues, separated by commas; each row gets one of them
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = names(), default_values = all())]
    kinds: Vec<String>,
    /// The seed of the choice of kinds and forms
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn all() -> impl Iterator<Item = &'static str> {
    CUES.iter().map(|kind| kind.name)
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(all())
}

pub(super) fn run(args: &CuesArgs, look: &GlobalArgs) -> Result<Ending> {
    if args.input == args.output {
        return Err(usage(format!("`--output` must be another file than `--input`, got {}", args.output.display())));
    }
    let kinds: Vec<_> = args.kinds.iter().filter_map(|name| CueKind::find(name)).collect();
    let text = wsd_core::Input::ROWS.read_text(&args.input)?;
    let (mut rows, mut count) = (String::new(), 0);
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = || format!("{}:{}", args.input.display(), index + 1);
        let mut row: Map<String, Value> = serde_json::from_str(line).with_context(at)?;
        add_cue(&mut row, &kinds, args.seed.wrapping_mul(0x1_0000_0001).wrapping_add(index as u64)).with_context(at)?;
        rows.push_str(&serde_json::to_string(&row)?);
        rows.push('\n');
        count += 1;
    }
    write_whole(&args.output, rows.as_bytes())?;
    if !look.quiet {
        note(&format!("{count} rows with cues in {}", args.output.display()));
    }
    Ok(Ending::Done)
}
