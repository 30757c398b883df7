//! `wsd generate`: streams one answer, or answers a file of prompts.

use anyhow::{Result, bail};
use clap::Args;
use wsd::config::SharedArgs;
use wsd_core::{Completion, FinishReason, Prompt};

use super::answer::{Outcome, Told, answer, hint_outside, load_strategy, stream};
use super::batch::{self, BatchArgs};
use super::constraint::ConstraintArgs;
use super::output::{FAINT, Output};
use super::prompt::{TokenIds, last_text, of_text, read_stdin};
use super::{Ending, GlobalArgs, counted};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd generate \"Where does the bread come from?\"
      Answer with the built-in pair: the draft opens, the base takes over once it is confident.
  wsd generate --pair smollm2-135m+gemma3-270m \"How do I make bread?\"
      A tested pair of real models, downloaded at first use; wsd pairs lists them.
  wsd generate --base meta-llama/Llama-3.1-8B --draft ./my-aligned-1b \"How do I make bread?\"
      A large base model from the Hugging Face hub, a small aligned one from a folder.
  echo \"Where does the bread come from?\" | wsd generate --json | jq .handover
      The whole answer as one JSON object: its tokens, their authors, where the switch came.
  wsd generate --raw --temperature 0.7 --seed 1 \"Once upon a time\"
      Continue a text as it stands, sampled.
  wsd generate --strategy base --stop $'\\n\\n' -n 100 \"Where does the bread come from?\"
      The base alone, to compare; at most 100 tokens, or to the first empty line.
  wsd generate --base vllm+http://gpu-box:8000 --draft ./my-aligned-1b \"How do I make bread?\"
      A base behind vLLM on another machine, whose tokenizer is in Hugging Face's cache.
  wsd generate --json-schema person.json \"Describe a person.\"
      JSON that is valid under a schema, whichever of the two writes.
  wsd generate --input questions.jsonl --output answers.jsonl --parallel 16
      Rows with {\"prompt\": ...} or {\"messages\": [...]}. The same command resumes after a stop.
  wsd generate --input bees.csv --prompt-key question --samples 4 -t 0.8 | jq -r .output
      Each row of a CSV file answered four times, to standard output.";

#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// The prompt; read from standard input where absent or `-`
    #[arg(conflicts_with_all = ["input", "prompt_ids"])]
    prompt: Option<String>,
    /// The prompt, as llama.cpp's option
    #[arg(
        short = 'p',
        long = "prompt",
        value_name = "TEXT",
        hide = true,
        conflicts_with_all = ["input", "prompt_ids", "prompt"]
    )]
    prompt_option: Option<String>,
    /// Token ids to continue, such as 1,15,27: for models of one vocabulary
    #[arg(long, hide_short_help = true, value_name = "IDS", conflicts_with_all = ["input", "system", "prefill"])]
    prompt_ids: Option<TokenIds>,
    /// Print one JSON object instead of the text: tokens, authors, hand-over, usage, timings
    #[arg(long, conflicts_with = "input")]
    json: bool,
    #[command(flatten)]
    constraint: ConstraintArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    settings: SharedArgs,
}

pub(crate) async fn run(args: GenerateArgs, global: &GlobalArgs) -> Result<Ending> {
    let mut settings = global.settings(args.settings.0)?;
    if let Some(input) = &args.batch.input {
        return batch::run(input, &args.batch, settings, global).await;
    }
    let prompt = match (args.prompt_ids, args.prompt.or(args.prompt_option)) {
        (Some(ids), _) => Prompt::Tokens(ids.0),
        (None, Some(text)) if text != "-" => of_text(&text, &settings.prompt)?,
        _ => of_text(&read_stdin("the prompt", global.quiet)?, &settings.prompt)?,
    };
    // Read before models are loaded, so that a wrong file is told at once.
    let grammar = args.constraint.grammar()?;
    let strategy = load_strategy(&mut settings, 1, global)?;
    if let Some(question) = last_text(&prompt) {
        hint_outside(question, &settings, global);
    }
    let mut job = settings.job(prompt);
    job.terms.grammar = grammar;
    let mut output = Output::stdout(global.color);
    let outcome = if args.json {
        let outcome = answer(&strategy, job, |_| Ok(())).await?;
        if !outcome.interrupted {
            output.text(&format!("{}\n", serde_json::to_string(&outcome.completion)?))?;
        }
        outcome
    } else {
        let outcome = stream(&strategy, job, &mut output).await?;
        let mut notes = Output::stderr(global.color);
        if !global.quiet {
            notes.model_text(FAINT, &outcome.summary(Told::of(&settings, global)))?;
            notes.text("\n")?;
        }
        outcome
    };
    if outcome.interrupted {
        return Ok(Ending::Interrupted);
    }
    if args.constraint.has_schema() {
        check_whole(&outcome)?;
    }
    Ok(Ending::Done)
}

/// Refuses an answer under a schema that was cut before its JSON ended.
fn check_whole(outcome: &Outcome) -> Result<()> {
    let Completion { text, finish_reason, usage, .. } = &outcome.completion;
    if *finish_reason == FinishReason::Length && serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        bail!(
            "the answer was cut at {} before its JSON ended\n  hint: take a larger --max-tokens, or bound texts and \
             lists in the schema (`maxLength`, `maxItems`)",
            counted(usage.completion_tokens, "token")
        );
    }
    Ok(())
}
