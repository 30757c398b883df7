//! `wsd compare`: one question answered by each model alone and by both together, side by side.

mod columns;
mod picture;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use futures::future::try_join_all;
use indicatif::ProgressBar;
use serde::Serialize;
use wsd::config::{Partial, Settings};
use wsd::models;
use wsd_core::{Completion, Event, Recipe, Seat, Strategy};

use super::answer::{answer, summary};
use super::output::Output;
use super::prompt::of_text;
use super::{Ending, GlobalArgs, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd compare
      A few questions that show the difference, answered by the built-in pair.
  wsd compare --nudging \"Where does the bread come from?\"
      With WSD's closest rival beside it.
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
    /// Show nudging too, where the models write by turns
    #[arg(long)]
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
    #[serde(flatten)]
    completion: Completion,
}

impl Answered {
    /// What stands above the answer.
    fn title(&self) -> &'static str {
        match self.strategy {
            "base" => "base alone",
            "draft" => "draft alone",
            strategy => strategy,
        }
    }

    fn summary(&self) -> String {
        summary(&Completion { timings: wsd_core::Timings::default(), ..self.completion.clone() })
    }
}

pub(crate) async fn run(args: CompareArgs, look: &GlobalArgs) -> Result<Ending> {
    if args.settings.decode.strategy.is_some() {
        bail!("`--strategy` chooses one, and this compares all\n  hint: leave it out, or use `wsd generate`");
    }
    let settings = look.settings(args.settings)?;
    let names = ["base", "draft", "nudging", "wsd"].into_iter().filter(|&name| args.nudging || name != "nudging");
    let recipes = names.map(Recipe::find).collect::<wsd_core::Result<Vec<_>>>()?;
    let models = models::load(&settings, &[Seat::BASE, Seat::DRAFT], recipes.len(), look.progress().as_mut())?;
    let strategies = recipes.iter().map(|recipe| Ok((recipe.name, recipe.build(&models, settings.options)?)));
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
    strategies: &[(&'static str, Arc<dyn Strategy>)],
    settings: &Settings,
    quiet: bool,
) -> Result<Option<Compared>> {
    let prompt = of_text(question.clone(), &settings.prompt)?;
    let waiting = (!quiet && std::io::stderr().is_terminal()).then(ProgressBar::new_spinner);
    let written = std::sync::atomic::AtomicUsize::new(0);
    let answers = strategies.iter().map(|(name, strategy)| {
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
            anyhow::Ok((*name, answered.await?))
        }
    });
    let answers = try_join_all(answers).await?;
    if let Some(waiting) = waiting {
        waiting.finish_and_clear();
    }
    if answers.iter().any(|(_, answered)| answered.interrupted) {
        return Ok(None);
    }
    let answers =
        answers.into_iter().map(|(strategy, answered)| Answered { strategy, completion: answered.completion });
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
            Answered { strategy, completion: trace.finish() }
        });
        Compared { question: "What colour is a fox?".into(), answers: answers.into() }
    }
}
