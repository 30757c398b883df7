//! `wsd train switch`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Deserialize;
use wsd_core::files::write_whole;
use wsd_core::{
    Features, Input, LEARNED_AGREEMENT, LEARNED_BIAS, LEARNED_CONFIDENCE, LEARNED_ENTROPY, LearnedSwitch, SWITCH_RULE,
};
use wsd_train::{Fit, Position, fit_switch};

use super::super::output::note;

#[derive(Args, Debug)]
pub(super) struct SwitchArgs {
    /// Scored drafts: JSON lines with `positions`, each with `confidence`, `entropy`, `agreement` and `good`, as
    /// `wsd lab eval --parts switch` writes them; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    input: Vec<PathBuf>,
    /// The file of settings to write, for --config [default: print them]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    positions: Vec<Position>,
}

pub(super) fn run(args: &SwitchArgs, quiet: bool) -> Result<()> {
    let mut positions = Vec::new();
    for path in &args.input {
        for (number, line) in Input::PROMPTS.read_text(path)?.lines().enumerate() {
            let row: Row = serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
            positions.extend(row.positions);
        }
    }
    let fit = fit_switch(&positions)?;
    if !quiet {
        let Fit { loss, constant_loss, .. } = fit;
        note(&format!("{} positions; log-loss {loss:.4}, of a constant {constant_loss:.4}", positions.len()));
    }
    let text = settings(&fit.switch);
    match &args.output {
        Some(path) => Ok(write_whole(path, text.as_bytes())?),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// The settings that make `wsd` use a switch.
fn settings(LearnedSwitch { bias, weights }: &LearnedSwitch) -> String {
    let Features { confidence, entropy, agreement } = weights;
    let lines = [
        (LEARNED_BIAS.name, bias),
        (LEARNED_CONFIDENCE.name, confidence),
        (LEARNED_ENTROPY.name, entropy),
        (LEARNED_AGREEMENT.name, agreement),
    ];
    let lines: String = lines.iter().map(|(name, value)| format!("{name} = {value:.6}\n")).collect();
    format!("[decode]\n{} = \"learned\"\n{lines}", SWITCH_RULE.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_a_configuration() {
        let weights = Features { confidence: 2.0, entropy: -0.25, agreement: 1.5 };
        let text = settings(&LearnedSwitch { bias: -1.0, weights });
        let parsed: wsd::config::Partial = toml::from_str(&text).unwrap();
        let values = parsed.resolve().unwrap().values;
        assert_eq!(LearnedSwitch::from_values(&values), Some(LearnedSwitch { bias: -1.0, weights }));
    }
}
