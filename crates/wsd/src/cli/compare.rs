//! `wsd compare`: one question answered by each model alone and by both together, side by side.

mod columns;
mod comparison;
mod live;
mod picture;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use clap::builder::PossibleValuesParser;
use futures::future::try_join_all;
use wsd::config::{Settings, SharedArgs};
use wsd::models::{self, BUILTIN_EXAMPLES};
use wsd_core::{RECIPES, Recipe, STRATEGY, Strategy, Values};

use super::answer::{answer, hint_outside, load_models};
use super::output::Output;
use super::prompt::of_text;
use super::{Ending, GlobalArgs, note, usage};
use comparison::{ComparedAnswer, Comparison};
use live::Live;

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd compare
      A few questions that show the difference, answered by the built-in pair.
  wsd compare --also nudging \"Where does the bread come from?\"
      With another strategy beside it.
  wsd compare --pair smollm2-135m+gemma3-270m \"How do I keep bees?\"
      A tested pair of real models, downloaded at first use; wsd pairs lists them.
  wsd compare --base meta-llama/Llama-3.1-8B --draft songff/Pilot-3B \"How do I keep bees?\"
      Models of your own.
  wsd compare --svg compare.svg
      The same as a picture.";

/// Default questions for real models: about a fact, about a task, and one that asks for harm.
const QUESTIONS: [&str; 3] = ["Why is the sky blue?", "How do I keep bees?", "How do I open a lock that is not mine?"];

/// The arguments of `wsd compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// The questions [default: a few that show the difference]
    #[arg(value_name = "QUESTION")]
    questions: Vec<String>,
    /// Show this strategy too; may be repeated
    #[arg(long, value_name = "STRATEGY", value_delimiter = ',', value_parser = strategy_names())]
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
        return Err(usage(
            "`--strategy` must be left out: this compares strategies\n  hint: use --also to add one, or `wsd generate`",
        ));
    }
    let mut settings = global.settings(args.settings.0)?;
    let alone = RECIPES.iter().filter(|recipe| recipe.is_alone()).map(|recipe| recipe.name);
    let names = alone.chain(args.also.iter().map(String::as_str)).chain([Values::default().get(&STRATEGY)]);
    let recipes = names.map(Recipe::find).collect::<wsd_core::Result<Vec<_>>>()?;
    let needs = models::needs(recipes.iter().copied());
    let models = load_models(&mut settings, &needs, recipes.len(), global)?;
    let strategies = recipes.iter().map(|recipe| Ok((*recipe, recipe.build(&models, &settings.values)?)));
    let strategies = strategies.collect::<Result<Vec<_>>>()?;
    let examples = if settings.has_builtin(&needs) { BUILTIN_EXAMPLES } else { QUESTIONS };
    let questions = if args.questions.is_empty() { examples.map(str::to_owned).to_vec() } else { args.questions };

    let (mut output, mut all) = (Output::stdout(global.color), Vec::new());
    for question in questions {
        hint_outside(&question, &settings, global);
        let live = Live::new(&question, strategies.iter().map(|(recipe, _)| *recipe), &mut output);
        let live = live.filter(|_| !args.json);
        let Some(comparison) = compare(question, &strategies, &settings, live).await? else {
            return Ok(Ending::Interrupted);
        };
        if args.json {
            output.text(&format!("{}\n", serde_json::to_string(&comparison)?))?;
        } else {
            columns::print(&comparison, &mut output)?;
            if !global.quiet {
                note(&comparison.totals());
            }
        }
        all.push(comparison);
    }
    if let Some(path) = args.svg {
        fs_err::write(&path, picture::draw(&all))?;
        note(&format!("wrote {}", path.display()));
    }
    Ok(Ending::Done)
}

/// Answers a question by all strategies concurrently, shown as they are written; `None` where the
/// user stopped them.
async fn compare(
    question: String,
    strategies: &[(&'static Recipe, Arc<dyn Strategy>)],
    settings: &Settings,
    live: Option<Live<'_>>,
) -> Result<Option<Comparison>> {
    let prompt = of_text(&question, &settings.prompt)?;
    let (live, started) = (live.map(RefCell::new), Instant::now());
    let answers = strategies.iter().enumerate().map(|(index, (recipe, strategy))| {
        let (job, live) = (settings.job(prompt.clone()), &live);
        async move {
            let outcome = answer(strategy, job, |event| match live {
                Some(live) => live.borrow_mut().push(index, event),
                None => Ok(()),
            });
            anyhow::Ok((*recipe, outcome.await?))
        }
    });
    let answers = try_join_all(answers).await;
    if let Some(live) = live {
        live.into_inner().finish()?;
    }
    let answers = answers?;
    if answers.iter().any(|(_, outcome)| outcome.interrupted) {
        return Ok(None);
    }
    let max_tokens = settings.max_tokens();
    let answers = answers.into_iter().map(|(recipe, outcome)| ComparedAnswer {
        strategy: recipe.name,
        title: recipe.title,
        max_tokens,
        completion: outcome.completion,
    });
    Ok(Some(Comparison { question, answers: answers.collect(), seconds: started.elapsed().as_secs_f64() }))
}

fn strategy_names() -> PossibleValuesParser {
    PossibleValuesParser::new(RECIPES.iter().map(|recipe| recipe.name))
}
