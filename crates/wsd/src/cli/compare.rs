//! `wsd compare`: one question answered by each model alone and by both together, side by side.

mod columns;
mod comparison;
mod picture;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use futures::future::try_join_all;
use indicatif::ProgressBar;
use wsd::config::{Settings, SharedArgs};
use wsd::models;
use wsd_core::{Event, RECIPES, Recipe, STRATEGY, Seat, Strategy, Values};

use super::answer::answer;
use super::output::Output;
use super::prompt::of_text;
use super::{Ending, GlobalArgs, note};
use comparison::{ComparedAnswer, Comparison};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd compare
      A few questions that show the difference, answered by the built-in pair.
  wsd compare --also nudging \"Where does the bread come from?\"
      With another strategy beside it.
  wsd compare --base meta-llama/Llama-3.1-8B --draft songff/Pilot-3B \"How do I keep bees?\"
      Models of your own.
  wsd compare --svg compare.svg
      The same as a picture.";

/// Default questions: about a fact, about a task, and one that asks for harm.
const QUESTIONS: &[&str] =
    &["Where does the bread come from?", "How do I sweep the chimney?", "How do I block the chimney?"];

/// The arguments of `wsd compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The questions [default: a few that show the difference]
    #[arg(value_name = "QUESTION")]
    questions: Vec<String>,
    /// Show this strategy too; may be repeated
    #[arg(long, value_name = "STRATEGY", value_parser = strategy_names())]
    also: Vec<String>,
    /// Print one JSON object for each question
    #[arg(long, conflicts_with = "svg")]
    json: bool,
    /// Write a picture to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    settings: SharedArgs,
}

/// Compares the strategies.
pub(crate) async fn run(args: CompareArgs, global: &GlobalArgs) -> Result<Ending> {
    if args.settings.0.is_set(&STRATEGY) {
        bail!(
            "`--strategy` must be left out: this compares strategies\n  hint: use --also to add one, or `wsd generate`"
        );
    }
    let settings = global.settings(args.settings.0)?;
    let alone = RECIPES.iter().filter(|recipe| recipe.is_alone()).map(|recipe| recipe.name);
    let names = alone.chain(args.also.iter().map(String::as_str)).chain([Values::default().get(&STRATEGY)]);
    let recipes = names.map(Recipe::find).collect::<wsd_core::Result<Vec<_>>>()?;
    let models = models::load(&settings, &[Seat::BASE, Seat::DRAFT], recipes.len(), global.progress().as_mut())?;
    let strategies = recipes.iter().map(|recipe| Ok((*recipe, recipe.build(&models, &settings.values)?)));
    let strategies = strategies.collect::<Result<Vec<_>>>()?;
    let questions = if args.questions.is_empty() {
        QUESTIONS.iter().map(|&question| question.to_owned()).collect()
    } else {
        args.questions
    };

    let (mut output, mut all) = (Output::stdout(global.color), Vec::new());
    for question in questions {
        let Some(comparison) = compare(question, &strategies, &settings, global.quiet).await? else {
            return Ok(Ending::Interrupted);
        };
        if args.json {
            output.text(&format!("{}\n", serde_json::to_string(&comparison)?))?;
        } else {
            columns::print(&comparison, &mut output)?;
        }
        all.push(comparison);
    }
    if let Some(path) = args.svg {
        fs_err::write(&path, picture::draw(&all))?;
        note(&format!("wrote {}", path.display()));
    }
    Ok(Ending::Done)
}

/// Answers a question by all strategies concurrently; `None` where the user stopped them.
async fn compare(
    question: String,
    strategies: &[(&'static Recipe, Arc<dyn Strategy>)],
    settings: &Settings,
    quiet: bool,
) -> Result<Option<Comparison>> {
    let prompt = of_text(question.clone(), &settings.prompt)?;
    let spinner = (!quiet && std::io::stderr().is_terminal()).then(ProgressBar::new_spinner);
    let written = std::sync::atomic::AtomicUsize::new(0);
    let answers = strategies.iter().map(|(recipe, strategy)| {
        let (job, spinner, written) = (settings.job(prompt.clone()), &spinner, &written);
        async move {
            let outcome = answer(strategy, job, |event| {
                if let (Event::Token(_), Some(spinner)) = (event, spinner) {
                    let tokens = written.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    spinner.set_message(format!("{tokens} tokens"));
                    spinner.tick();
                }
                Ok(())
            });
            anyhow::Ok((*recipe, outcome.await?))
        }
    });
    let answers = try_join_all(answers).await?;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    if answers.iter().any(|(_, outcome)| outcome.interrupted) {
        return Ok(None);
    }
    let answers = answers.into_iter().map(|(recipe, outcome)| ComparedAnswer {
        strategy: recipe.name,
        title: recipe.title,
        completion: outcome.completion,
    });
    Ok(Some(Comparison { question, answers: answers.collect() }))
}

fn strategy_names() -> PossibleValuesParser {
    PossibleValuesParser::new(RECIPES.iter().map(|recipe| recipe.name))
}
