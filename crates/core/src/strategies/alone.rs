//! One model alone: the baseline of every other strategy.

use std::sync::Arc;

use async_trait::async_trait;

use crate::steps::{begin, write_to_end};
use crate::{Answer, Engine, FinishReason, Job, Need, Recipe, Result, Seat, Strategy};

pub(super) static BASE: Recipe = Recipe {
    name: "base",
    title: "base alone",
    about: "the base model alone",
    needs: &[Need::any(Seat::BASE)],
    settings: &[],
    make: |models, _| Ok(Arc::new(Alone { engine: models.require("base", Seat::BASE)?, seat: Seat::BASE })),
};

pub(super) static DRAFT: Recipe = Recipe {
    name: "draft",
    title: "draft alone",
    about: "the draft model alone",
    needs: &[Need::any(Seat::DRAFT)],
    settings: &[],
    make: |models, _| Ok(Arc::new(Alone { engine: models.require("draft", Seat::DRAFT)?, seat: Seat::DRAFT })),
};

struct Alone {
    engine: Arc<dyn Engine>,
    seat: Seat,
}

#[async_trait]
impl Strategy for Alone {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    fn follows_grammars(&self) -> bool {
        true
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let (prompt, guide) = begin(self.engine.as_ref(), job, answer).await?;
        let mut session = self.engine.open(&prompt).await?;
        let reason = write_to_end(session.as_mut(), self.seat, &job.terms, guide.as_ref(), answer).await?;
        answer.reused(session.reused_tokens()).await;
        Ok(reason)
    }
}
