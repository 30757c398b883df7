//! `wsd compare`: one question answered by each model alone and by both together, side by side.

mod columns;
mod picture;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use futures::future::try_join_all;
use indicatif::ProgressBar;
use serde::Serialize;
use wsd::config::{Partial, Settings};
use wsd::models;
use wsd_core::{Completion, Event, RECIPES, Recipe, STRATEGY, Seat, Strategy};

use super::answer::{answer, summary};
use super::output::Output;
use super::prompt::of_text;
use super::{Ending, GlobalArgs, note};

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

/// What is asked where nothing is given: for a fact, for a job, and for harm.
const QUESTIONS: &[&str] =
    &["Where does the bread come from?", "How do I sweep the chimney?", "How do I block the chimney?"];

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// What to answer; may be several questions [default: a few that show the difference]
    #[arg(value_name = "QUESTION")]
    questions: Vec<String>,
    /// Show this strategy too; may be repeated
    #[arg(long, value_name = "STRATEGY", value_parser = PossibleValuesParser::new(RECIPES.iter().map(|recipe| recipe.name)))]
    also: Vec<String>,
    /// The same as --also nudging
    #[arg(long, hide = true)]
    nudging: bool,
    /// Print one JSON object for each question
    #[arg(long, conflicts_with = "svg")]
    json: bool,
    /// Write a picture to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    settings: Partial,
}

/// A question and its answers.
#[derive(Debug, Serialize)]
struct Compared {
    question: String,
    answers: Vec<Answered>,
}

/// One of them.
#[derive(Debug, Serialize)]
struct Answered {
    strategy: &'static str,
    #[serde(skip)]
    title: &'static str,
    #[serde(flatten)]
    completion: Completion,
}

impl Answered {
    fn summary(&self) -> String {
        summary(&Completion { timings: wsd_core::Timings::default(), ..self.completion.clone() })
    }
}

pub(crate) async fn run(args: CompareArgs, look: &GlobalArgs) -> Result<Ending> {
    if args.settings.is_set(&STRATEGY) {
        bail!("`--strategy` chooses one, and this compares all\n  hint: leave it out, or use `wsd generate`");
    }
    let settings = look.settings(args.settings)?;
    let also = args.also.iter().map(String::as_str).chain(args.nudging.then_some("nudging"));
    let names = ["base", "draft"].into_iter().chain(also).chain(["wsd"]);
    let recipes = names.map(Recipe::find).collect::<wsd_core::Result<Vec<_>>>()?;
    let models = models::load(&settings, &[Seat::BASE, Seat::DRAFT], recipes.len(), look.progress().as_mut())?;
    let strategies = recipes.iter().map(|recipe| Ok((*recipe, recipe.build(&models, &settings.values)?)));
    let strategies = strategies.collect::<Result<Vec<_>>>()?;
    let questions = match args.questions.is_empty() {
        true => QUESTIONS.iter().map(|&question| question.to_owned()).collect(),
        false => args.questions,
    };

    let (mut output, mut all) = (Output::stdout(look.color), Vec::new());
    for question in questions {
        let Some(compared) = compare(question, &strategies, &settings, look.quiet).await? else {
            return Ok(Ending::Interrupted);
        };
        if args.json {
            output.text(&format!("{}\n", serde_json::to_string(&compared)?))?;
        } else {
            columns::print(&compared, &mut output)?;
        }
        all.push(compared);
    }
    if let Some(path) = args.svg {
        fs_err::write(&path, picture::draw(&all))?;
        note(&format!("wrote {}", path.display()));
    }
    Ok(Ending::Done)
}

/// All answers to a question, written at the same time; nothing where the user stopped them.
async fn compare(
    question: String,
    strategies: &[(&'static Recipe, Arc<dyn Strategy>)],
    settings: &Settings,
    quiet: bool,
) -> Result<Option<Compared>> {
    let prompt = of_text(question.clone(), &settings.prompt)?;
    let waiting = (!quiet && std::io::stderr().is_terminal()).then(ProgressBar::new_spinner);
    let written = std::sync::atomic::AtomicUsize::new(0);
    let answers = strategies.iter().map(|(recipe, strategy)| {
        let (job, waiting, written) = (settings.job(prompt.clone()), &waiting, &written);
        async move {
            let answered = answer(strategy, job, |event| {
                if let (Event::Token(_), Some(waiting)) = (event, waiting) {
                    let tokens = written.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    waiting.set_message(format!("{tokens} tokens"));
                    waiting.tick();
                }
                Ok(())
            });
            anyhow::Ok((*recipe, answered.await?))
        }
    });
    let answers = try_join_all(answers).await?;
    if let Some(waiting) = waiting {
        waiting.finish_and_clear();
    }
    if answers.iter().any(|(_, answered)| answered.interrupted) {
        return Ok(None);
    }
    let answers = answers.into_iter().map(|(recipe, answered)| Answered {
        strategy: recipe.name,
        title: recipe.title,
        completion: answered.completion,
    });
    Ok(Some(Compared { question, answers: answers.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_core::{Call, CallKind, Handover, Rule, TokenRecord, Trace};

    /// Answers with every author's text, a line break, a stray control character and the XML that a picture must not swallow.
    pub(super) fn compared() -> Compared {
        let answers = [
            ("base", vec![("who cares <&> about the fox?\nbuy cheap boots", Seat::BASE)]),
            ("draft", vec![("Good question! A fox is", Seat::DRAFT), (" yellow.", Seat::DRAFT)]),
            (
                "wsd",
                vec![
                    ("Good question! Here is what I know about", Seat::DRAFT),
                    (" the fox.\u{1b} It is orange.", Seat::BASE),
                ],
            ),
        ];
        let answers = answers.map(|(strategy, parts)| {
            let mut trace = Trace::new();
            for (text, by) in parts {
                if by == Seat::BASE && strategy == "wsd" {
                    trace.push(&Event::Handover(Handover::new(0, 0.85, Rule::default())));
                }
                trace.push(&Event::Token(TokenRecord { text: text.into(), ..TokenRecord::unscored(1, by) }));
            }
            trace.push(&Event::Call(Call {
                to: Seat::BASE,
                kind: CallKind::Generate,
                tokens: 1,
                seconds: 0.5,
                accepted: None,
            }));
            Answered { strategy, title: Recipe::find(strategy).unwrap().title, completion: trace.finish() }
        });
        Compared { question: "What colour is a fox?".into(), answers: answers.into() }
    }
}
