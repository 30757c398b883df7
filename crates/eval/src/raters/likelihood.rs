//! The likelihood under the base.

use std::sync::Arc;

use async_trait::async_trait;
use wsd_core::{Caps, Engine, Need, Prompt, Recipe, Result, Seat};

use super::{Rated, Rater, Rating};
use crate::likelihood::text_logprobs;

pub(super) static RECIPE: Recipe<dyn Rater> = Recipe {
    name: "likelihood",
    title: "likelihood",
    about: "the mean natural log-probability of the answer's tokens under the base",
    needs: &[Need::with(Seat::BASE, Caps { score: true, ..Caps::GENERATE })],
    settings: &[],
    make: |models, _| Ok(Arc::new(Likelihood { base: models.require(RECIPE.name, Seat::BASE)? })),
};

struct Likelihood {
    base: Arc<dyn Engine>,
}

#[async_trait]
impl Rater for Likelihood {
    async fn rate(&self, rated: &Rated<'_>) -> Result<Rating> {
        let prompt = Prompt::Chat(rated.conversation.to_vec());
        let logprobs = text_logprobs(self.base.as_ref(), &prompt, rated.answer).await?;
        let mean = logprobs.iter().sum::<f64>() / logprobs.len() as f64;
        Ok(Rating { score: (!logprobs.is_empty()).then_some(mean), reply: String::new() })
    }
}
