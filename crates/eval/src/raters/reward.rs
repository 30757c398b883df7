//! The output of a reward model with a scalar head, as Skywork-Reward-V2 (Liu et al. 2025, arXiv
//! 2507.01352) and other `*ForSequenceClassification` checkpoints have it.

use std::sync::Arc;

use async_trait::async_trait;
use wsd_core::{Caps, ChatRole, Engine, Error, Head, Heads, Message, Need, Recipe, Result, Seat};

use super::{Rated, Rater, Rating};

pub(super) static RECIPE: Recipe<dyn Rater> = Recipe {
    name: "reward",
    title: "reward",
    about: "the number that a reward model gives the whole conversation (--model judge=MODEL)",
    needs: &[Need::with(Seat::JUDGE, Caps { heads: Heads::NONE.with(Head::REWARD), ..Caps::GENERATE })],
    settings: &[],
    make: |models, _| Ok(Arc::new(Reward { judge: models.require(RECIPE.name, Seat::JUDGE)? })),
};

struct Reward {
    judge: Arc<dyn Engine>,
}

#[async_trait]
impl Rater for Reward {
    async fn rate(&self, rated: &Rated<'_>) -> Result<Rating> {
        let (card, codec) = (self.judge.card(), self.judge.codec());
        let answer = Message::new(ChatRole::Assistant, rated.answer);
        let list = codec.render_whole(&[rated.conversation, &[answer]].concat())?.tokens;
        if list.len() > card.max_len {
            return Err(Error::PromptTooLong { engine: card.name.clone(), tokens: list.len(), limit: card.max_len });
        }
        let rewards = self.judge.open(&list).await?.reward().await?;
        Ok(Rating { score: rewards.first().map(|&reward| f64::from(reward)), reply: String::new() })
    }
}
