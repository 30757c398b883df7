//! Speculative decoding: the base's own answer, with the draft writing ahead of it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join;

use crate::speculation::{Speculation, Speculator};
use crate::steps::render;
use crate::{Answer, Caps, Engine, FinishReason, Job, Models, Need, Recipe, Result, Seat, Strategy, Values};

pub(super) static RECIPE: Recipe = Recipe {
    name: "speculative",
    title: "speculative",
    about: "the base model alone, token for token, with the draft writing ahead of it",
    needs: &[
        Need::any(Seat::DRAFT).in_vocabulary_of(Seat::BASE),
        Need::with(Seat::BASE, Caps { choices: true, ..Caps::GENERATE }),
    ],
    settings: &[],
    make,
};

struct Speculative {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
}

fn make(models: &Models, _: &Values) -> Result<Arc<dyn Strategy>> {
    let [draft, base] = [Seat::DRAFT, Seat::BASE].map(|seat| models.require(RECIPE.name, seat));
    Ok(Arc::new(Speculative { draft: draft?, base: base? }))
}

#[async_trait]
impl Strategy for Speculative {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let prompt = render(self.base.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        answer.begin(self.base.codec(), &prompt.tokens, 0);
        let mut base = self.base.open(&prompt.tokens).await?;
        let mut draft = self.draft.open(&prompt.tokens).await?;
        try_join(base.warm(), draft.warm()).await?;
        let guide = job.terms.guide(self.base.as_ref(), b"", prompt.tokens.len())?;
        let draft = Speculator {
            session: draft,
            prompt: prompt.tokens.len(),
            base_prompt: prompt.tokens.len(),
            max_len: self.draft.card().max_len,
        };
        Speculation::new(base.as_mut(), draft, self.base.card().max_len, &job.terms, guide).run(answer).await
    }
}
