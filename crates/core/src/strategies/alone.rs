//! One model alone: what WSD is measured against.

use std::sync::Arc;

use async_trait::async_trait;

use super::{render, to_the_end};
use crate::strategy::Parts;
use crate::{Answer, Engine, FinishReason, Job, Result, Role, Strategy};

struct Alone {
    engine: Arc<dyn Engine>,
    role: Role,
}

pub(crate) fn base(parts: Parts) -> Arc<dyn Strategy> {
    make(parts, Role::Base)
}

pub(crate) fn draft(parts: Parts) -> Arc<dyn Strategy> {
    make(parts, Role::Draft)
}

fn make(mut parts: Parts, role: Role) -> Arc<dyn Strategy> {
    Arc::new(Alone { engine: parts.engines.swap_remove(0), role })
}

#[async_trait]
impl Strategy for Alone {
    fn speaker(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let prompt = render(self.engine.as_ref(), job)?;
        let mut session = self.engine.open(&prompt.tokens).await?;
        answer.prompt(prompt.tokens.len()).await;
        answer.begin(self.engine.codec(), session.tokens(), 0);
        to_the_end(session.as_mut(), self.role, job, answer).await
    }
}
