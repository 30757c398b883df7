//! `wsd calibrate`: a proposal of window and threshold for a pair of models.

mod toml;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use wsd::config::{DEFAULT_FILE, SharedArgs};
use wsd::eval::RunFolder;
use wsd::eval::calibration::{Calibration, Candidate};
use wsd::eval::sweep::read_drafts;
use wsd_core::{MAX_DRAFT_TOKENS, Rule, SKIP_REPETITIONS};

use super::output::Output;
use super::prompts::PromptsArgs;
use super::sweep::{DRAFTS, Work, draft};
use super::{Ending, GlobalArgs, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd calibrate prompts.jsonl --out calibration --base ./base.gguf --draft ./aligned.gguf
      A proposal, from the base's confidence on drafts, its own answers and shuffled words.
  wsd calibrate alpaca_eval=alpaca_eval.json --out calibration --limit 50 --write
      The same on a benchmark's prompts; window and threshold go to wsd.toml.";

/// Default tokens in a draft: the switch should come before.
const DEFAULT_DRAFT_TOKENS: usize = 128;

#[derive(Args, Debug)]
pub(crate) struct CalibrateArgs {
    #[command(flatten)]
    prompts: PromptsArgs,
    /// Write the proposal to wsd.toml, or to the file of --config
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    settings: SharedArgs,
}

pub(crate) async fn run(mut args: CalibrateArgs, global: &GlobalArgs) -> Result<Ending> {
    args.settings.0.set_default(&MAX_DRAFT_TOKENS, DEFAULT_DRAFT_TOKENS)?;
    let settings = global.settings(args.settings.0.clone())?;
    let prompts = args.prompts.read(&settings)?;
    let in_use = Rule::from_values(&settings.values);
    let folder = RunFolder::new(&args.prompts.out);
    let parallel = args.prompts.parallel.into();
    let work = Work { prompts: &prompts, continued: &[], contrasted: true, parallel };
    if draft(&work, &settings, &folder, global).await? == Ending::Interrupted {
        return Ok(Ending::Interrupted);
    }
    let Some(found) = Calibration::of(&read_drafts(&folder.file(DRAFTS))?, in_use)? else {
        bail!("every prompt failed: the errors are in {}", folder.file(DRAFTS).display());
    };
    folder.write("calibration.json", &format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    folder.write("calibration.md", &found.markdown())?;
    Output::stdout(global.color).text(&found.markdown())?;
    if args.write {
        let path = global.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        write(&path, &found.proposal)?;
        note(&format!("wrote the proposal to {}", path.display()));
    }
    Ok(Ending::Done)
}

/// Sets the rule in a file of settings and keeps everything else.
fn write(path: &Path, rule: &Candidate) -> Result<()> {
    let before = if path.exists() { fs_err::read_to_string(path)? } else { String::new() };
    let mut values = vec![("window", rule.window.to_string()), ("threshold", format!("{:?}", rule.threshold))];
    if rule.needs_guard() {
        values.push((SKIP_REPETITIONS.name, "true".into()));
    }
    let after = toml::set(&before, "decode", &values);
    wsd_core::files::write_whole(path, after.as_bytes())?;
    Ok(())
}
