//! The table of step scorers, one file each.

mod likelihood;

use async_trait::async_trait;

use crate::{Prompt, Recipe, Result};

/// A rating of the steps of an answer, for strategies that accept or reject them.
#[async_trait]
pub trait StepScorer: Send + Sync {
    /// Rates each step, given the prompt and the steps before it: one number from 0 (bad) to 1 (good)
    /// for each, in order.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for an empty step; those of the engines.
    async fn score(&self, prompt: &Prompt, steps: &[String]) -> Result<Vec<f64>>;
}

/// Every step scorer.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{Pieces, Scripted};
/// use wsd_core::{Models, Prompt, SCORERS, Seat, Values};
///
/// # futures::executor::block_on(async {
/// let base = Scripted::random("base", Arc::new(Pieces::letters("ab ")), 1);
/// let models = Models::default().with(Seat::BASE, Arc::new(base));
/// let scorer = SCORERS[0].build(&models, &Values::default())?;
/// let scores = scorer.score(&Prompt::Raw("a b".into()), &["ab ".into(), "ba".into()]).await?;
/// assert!(scores.len() == 2 && scores.iter().all(|score| (0.0..=1.0).contains(score)));
/// # Ok::<(), wsd_core::Error>(()) }).unwrap();
/// ```
pub static SCORERS: &[&Recipe<dyn StepScorer>] = &[&likelihood::SCORER];
