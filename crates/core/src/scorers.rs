//! The table of step scorers, one file each.

mod arithmetic;
mod command;
mod judge;
mod likelihood;
mod process;

use async_trait::async_trait;

pub use command::STEP_COMMAND;

use crate::{ChatRole, Error, Prompt, Recipe, Result};

/// A rating of the steps of answers, for strategies that accept or reject them.
#[async_trait]
pub trait StepScorer: Send + Sync {
    /// Begins to rate an answer to a prompt.
    ///
    /// # Errors
    /// Those of the engines, and of rendering the prompt.
    async fn open(&self, prompt: &Prompt) -> Result<Box<dyn Rating>>;

    /// Rates each step, given the prompt and the steps before it: one number from 0 (bad) to 1 (good)
    /// for each, in order.
    ///
    /// # Errors
    /// [`Error::Setting`] for an empty step; those of the engines.
    async fn score(&self, prompt: &Prompt, steps: &[String]) -> Result<Vec<f64>> {
        if let Some(empty) = steps.iter().position(String::is_empty) {
            let limit = "texts of at least one character".into();
            return Err(Error::Setting { name: "steps", limit, value: format!("none in step {empty}") });
        }
        Ok(self.open(prompt).await?.rate(steps, 0).await?.values)
    }
}

/// The rating of one answer as it grows. It keeps its sessions, and with them their caches.
#[async_trait]
pub trait Rating: Send {
    /// Rates the steps from number `from` on, each given those before it. No step is empty.
    ///
    /// # Errors
    /// Those of the engines.
    async fn rate(&mut self, steps: &[String], from: usize) -> Result<Ratings>;
}

/// Ratings of steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ratings {
    /// One number from 0 (bad) to 1 (good) for each step.
    pub values: Vec<f64>,
    /// Tokens that a model read for them.
    pub tokens: usize,
}

/// Every step scorer. The conformance tests derive from this table.
pub static SCORERS: &[&Recipe<dyn StepScorer>] = &[
    // In the order of messages.
    &likelihood::SCORER,
    &process::SCORER,
    &judge::SCORER,
    &arithmetic::SCORER,
    &command::SCORER,
];

/// The names of the table with their descriptions, for the setting that chooses one.
pub(crate) const STEP_SCORERS: &[(&str, &str)] = &[
    (likelihood::NAME, likelihood::ABOUT),
    (process::NAME, process::ABOUT),
    (judge::NAME, judge::ABOUT),
    (arithmetic::NAME, arithmetic::ABOUT),
    (command::NAME, command::ABOUT),
];

/// Finds a step scorer by its name.
///
/// # Errors
/// [`Error::UnknownRecipe`], with the known names.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{Pieces, Scripted};
/// use wsd_core::{Models, Prompt, Seat, Values, find_scorer};
///
/// # futures::executor::block_on(async {
/// let base = Scripted::random("base", Arc::new(Pieces::letters("ab ")), 1);
/// let models = Models::default().with(Seat::BASE, Arc::new(base));
/// let scorer = find_scorer("likelihood")?.build(&models, &Values::default())?;
/// let scores = scorer.score(&Prompt::Raw("a b".into()), &["ab ".into(), "ba".into()]).await?;
/// assert!(scores.len() == 2 && scores.iter().all(|score| (0.0..=1.0).contains(score)));
/// # Ok::<(), wsd_core::Error>(()) }).unwrap();
/// ```
pub fn find_scorer(name: &str) -> Result<&'static Recipe<dyn StepScorer>> {
    Recipe::find_in(SCORERS, "step scorer", name)
}

/// The problem that an answer is about: the text of a prompt, or the last message of its user.
fn problem(prompt: &Prompt) -> Result<String> {
    match prompt {
        Prompt::Raw(text) => Ok(text.clone()),
        Prompt::Chat(messages) | Prompt::ChatWith(messages, _) => {
            let mut users = messages.iter().rev().filter(|message| message.role == ChatRole::User);
            let message =
                users.next().ok_or_else(|| Error::Chat("the conversation has no message of a user".into()))?;
            Ok(message.content.clone())
        }
        Prompt::Tokens(_) => {
            Err(Error::Chat("a prompt of token ids has no text to rate\n  hint: give the prompt as text".into()))
        }
    }
}
