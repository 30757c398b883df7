//! The table of raters, one file each: a rater gives one answer to a conversation a number.

mod length;
mod likelihood;
mod reward;
mod rules;

use async_trait::async_trait;
use wsd_core::{FinishReason, Message, Recipe, Result};

/// An answer to rate.
#[derive(Clone, Copy, Debug)]
pub struct Rated<'a> {
    /// The conversation that it answers.
    pub conversation: &'a [Message],
    /// Text of the answer.
    pub answer: &'a str,
    /// Purpose of the prompt: `helpful`, `harmless`, `honest` or another word; empty if unknown.
    pub label: &'a str,
    /// Reason why the answer ended, if it is known.
    pub finish_reason: Option<FinishReason>,
}

/// A rater's verdict on one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rating {
    /// The number; larger is better. `None` if the rater's reply has no mark.
    pub score: Option<f64>,
    /// Text that the rater wrote; empty for one that writes none.
    pub reply: String,
}

impl From<f64> for Rating {
    fn from(score: f64) -> Self {
        Self { score: Some(score), reply: String::new() }
    }
}

/// A rating of whole answers.
#[async_trait]
pub trait Rater: Send + Sync {
    /// Rates an answer.
    ///
    /// # Errors
    /// Those of the engines.
    async fn rate(&self, rated: &Rated<'_>) -> Result<Rating>;
}

/// Every rater, in the order of the help.
pub static RATERS: &[&Recipe<dyn Rater>] =
    &[&rules::RECIPE, &length::RECIPE, &likelihood::RECIPE, &reward::RECIPE];

/// Finds a rater by its name.
///
/// ```
/// use wsd_core::{ChatRole, Message, Models, Values};
/// use wsd_eval::raters::{Rated, find};
///
/// let rater = find("length").unwrap().build(&Models::default(), &Values::default())?;
/// let conversation = [Message::new(ChatRole::User, "Name two colors.")];
/// let rated = Rated { conversation: &conversation, answer: "Red and blue.", label: "", finish_reason: None };
/// assert_eq!(futures::executor::block_on(rater.rate(&rated))?.score, Some(3.0));
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[must_use]
pub fn find(name: &str) -> Option<&'static Recipe<dyn Rater>> {
    RATERS.iter().copied().find(|rater| rater.name == name)
}
