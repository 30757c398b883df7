//! The table of raters, one file each: a rater gives one answer to a conversation a number.

mod grade;
mod guard;
mod length;
mod likelihood;
mod prompted;
mod reward;
mod rules;

use async_trait::async_trait;
use wsd_core::{FinishReason, Message, Recipe, Result};

pub use grade::grade;
pub use guard::verdict;
pub use prompted::JUDGE_PROMPT;
pub(crate) use prompted::question;

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
    &[&rules::RECIPE, &length::RECIPE, &likelihood::RECIPE, &reward::RECIPE, &guard::RECIPE, &grade::RECIPE];

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use futures::executor::block_on;
    use wsd_core::scripted::{Pieces, Scripted};
    use wsd_core::{ChatRole, Engine, Head, Models, Prompt, Seat, Values};

    #[test]
    fn raters_of_models_ask_for_what_they_are_named_after() {
        let pieces = Arc::new(Pieces::letters("ab \n[]UserAitn"));
        let judge =
            Scripted::random("judge", pieces.clone(), 1).with_head(Head::REWARD, |list| vec![list.len() as f32]);
        let base: Arc<dyn Engine> = Arc::new(Scripted::random("base", pieces, 2));
        let models = Models::default().with(Seat::JUDGE, Arc::new(judge)).with(Seat::BASE, base.clone());
        let conversation = [Message::new(ChatRole::User, "ab ba")];
        let rated = Rated { conversation: &conversation, answer: "ba", label: "", finish_reason: None };
        let rate = |name: &str| {
            let rater = find(name).unwrap().build(&models, &Values::default()).unwrap();
            block_on(rater.rate(&rated)).unwrap()
        };

        let answer = Message::new(ChatRole::Assistant, "ba");
        let list = base.codec().render_whole(&[&conversation[..], &[answer]].concat()).unwrap().tokens;
        assert_eq!(rate("reward").score, Some(list.len() as f64));

        let rendered = base.codec().render(&Prompt::Chat(conversation.to_vec())).unwrap();
        let list = base.codec().encode_after(&rendered, "ba").unwrap();
        let logprobs = block_on(async { base.open(&list).await.unwrap().score(rendered.tokens.len()).await }).unwrap();
        assert_eq!((rate("likelihood").score, logprobs.len()), (Some(logprobs.iter().sum::<f64>() / 2.0), 2));

        let missing = find("reward").unwrap().build(&Models::default(), &Values::default());
        assert!(missing.err().unwrap().to_string().contains("`reward` needs a judge model"));
    }
}
