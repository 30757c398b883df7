//! The table of step scorers, one file each.

mod likelihood;

use async_trait::async_trait;

use crate::{Error, Prompt, Recipe, Result};

/// A rating of the steps of an answer, for strategies that accept or reject them.
#[async_trait]
pub trait StepScorer: Send + Sync {
    /// Rates each step, given the prompt and the steps before it: one number from 0 (bad) to 1 (good)
    /// for each, in order. To be called through [`StepScorer::score`], so no step is empty.
    ///
    /// # Errors
    /// Those of the engines.
    async fn rate(&self, prompt: &Prompt, steps: &[String]) -> Result<Vec<f64>>;

    /// Checks the steps and rates them.
    ///
    /// # Errors
    /// [`Error::Setting`] for an empty step; those of the engines.
    async fn score(&self, prompt: &Prompt, steps: &[String]) -> Result<Vec<f64>> {
        if let Some(empty) = steps.iter().position(String::is_empty) {
            let limit = "texts of at least one character".into();
            return Err(Error::Setting { name: "steps", limit, value: format!("none in step {empty}") });
        }
        self.rate(prompt, steps).await
    }
}

/// Every step scorer. The conformance tests derive from this table.
pub static SCORERS: &[&Recipe<dyn StepScorer>] = &[
    // In the order of messages.
    &likelihood::SCORER,
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
