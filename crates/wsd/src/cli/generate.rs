//! `wsd generate`: one answer, streamed, or a file of them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use wsd::config::{Partial, Settings};
use wsd::models::{self, seats};
use wsd_core::{Prompt, Strategy};

use super::answer::{answer, stream, summary};
use super::output::{FAINT, Output};
use super::prompt::{TokenIds, of_text, read_stdin};
use super::{Ending, GlobalArgs, batch};

/// More than one example teaches more than many words.
pub(super) const EXAMPLES: &str = "\
Examples:
  wsd generate \"How do I make bread?\"
      Answer with the built-in pair: the draft opens, the base takes over once it is confident.
  wsd generate --base meta-llama/Llama-3.1-8B --draft ./my-aligned-1b \"How do I make bread?\"
      A large base model from the Hugging Face hub, a small aligned one from a folder.
  echo \"How do I make bread?\" | wsd generate --json | jq .handover
      The whole answer as one JSON object: its tokens, their authors, where the switch came.
  wsd generate --raw --temperature 0.7 --seed 1 \"Once upon a time\"
      Continue a text as it stands, sampled.
  wsd generate --strategy base --stop $'\\n\\n' -n 100 \"How do I make bread?\"
      The base alone, to compare; at most 100 tokens, or to the first empty line.
  wsd generate --base vllm+http://gpu-box:8000 --draft ./my-aligned-1b \"How do I make bread?\"
      A base behind vLLM on another machine, whose tokenizer is in Hugging Face's cache.
  wsd generate --input questions.jsonl --output answers.jsonl --parallel 16
      A file of {\"prompt\": ...} or {\"messages\": [...]} rows. Run it again to go on after an interruption.";

#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// What to answer; from standard input where absent or `-`
    #[arg(conflicts_with_all = ["input", "prompt_ids"])]
    prompt: Option<String>,
    /// Token ids to continue, such as 1,15,27: for models of one vocabulary
    #[arg(long, value_name = "IDS", conflicts_with_all = ["input", "system", "prefill"])]
    prompt_ids: Option<TokenIds>,
    /// Print one JSON object instead of the text: tokens, authors, hand-over, usage, timings
    #[arg(long, conflicts_with = "input")]
    json: bool,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    settings: Partial,
}

/// Many prompts at once.
#[derive(Args, Debug)]
#[command(next_help_heading = "Files")]
pub(crate) struct BatchArgs {
    /// JSON lines to answer, `-` for standard input: rows with "prompt", "messages" or "context"; other keys are carried over
    #[arg(long, value_name = "FILE", requires = "output")]
    pub(super) input: Option<PathBuf>,
    /// Where the rows go, in order, with "output" and "wsd" (or "error") added; rows already there are kept
    #[arg(long, value_name = "FILE", requires = "input", conflicts_with_all = ["prompt", "prompt_ids", "json"])]
    pub(super) output: Option<PathBuf>,
    /// Rows answered at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024), requires = "input", allow_negative_numbers = true, conflicts_with_all = ["prompt", "prompt_ids", "json"])]
    pub(super) parallel: u16,
    /// Write every token and engine call of each row too
    #[arg(long, requires = "input", conflicts_with_all = ["prompt", "prompt_ids", "json"])]
    pub(super) full: bool,
}

pub(crate) async fn run(args: GenerateArgs, look: &GlobalArgs) -> Result<Ending> {
    let settings = look.settings(args.settings)?;
    if let (Some(input), Some(output)) = (&args.batch.input, &args.batch.output) {
        return batch::run(input, output, &args.batch, &settings, look).await;
    }
    let prompt = match (args.prompt_ids, args.prompt) {
        (Some(ids), _) => Prompt::Tokens(ids.0),
        (None, Some(text)) if text != "-" => of_text(text, &settings.prompt)?,
        _ => of_text(read_stdin("the prompt", look.quiet)?, &settings.prompt)?,
    };
    let strategy = strategy(&settings, 1, look)?;
    let mut output = Output::stdout(look.color);
    let answered = if args.json {
        let answered = answer(&strategy, settings.job(prompt), |_| Ok(())).await?;
        if !answered.interrupted {
            output.text(&format!("{}\n", serde_json::to_string(&answered.completion)?))?;
        }
        answered
    } else {
        let answered = stream(&strategy, settings.job(prompt), &mut output).await?;
        let mut notes = Output::stderr(look.color);
        if notes.for_people() && !look.quiet {
            notes.model_text(FAINT, &summary(&answered.completion))?;
            notes.text("\n")?;
        }
        answered
    };
    Ok(if answered.interrupted { Ending::Interrupted } else { Ending::Done })
}

/// The strategy of the settings over freshly loaded models.
pub(super) fn strategy(settings: &Settings, max_sessions: usize, look: &GlobalArgs) -> Result<Arc<dyn Strategy>> {
    let models = models::load(settings, &seats(settings.recipe), max_sessions, look.progress().as_mut())?;
    Ok(settings.recipe.build(&models, &settings.values)?)
}
