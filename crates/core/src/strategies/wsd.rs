//! Weak-to-Strong Decoding, incrementally.
//!
//! The reference drafts 512 tokens, scores all, and lets the base continue from the first position whose window passes. Here
//! the draft is written and scored in chunks and ends at the switch; for every chunk length the tokens are the same, because a
//! position's score depends on nothing that follows it. A token is sent on as soon as its score is known: everything up to
//! the switch is kept. The base's cache holds the scored tokens, so it continues without a second prefill.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;

use super::{render, to_the_end};
use crate::strategy::Parts;
use crate::{
    Answer, Bridge, Call, CallKind, Engine, Error, FinishReason, Flow, Handover, Job, OnDraftEnd, Options, Plan,
    Prompt, Result, Role, Session, Step, Stop, Strategy, Token, Window,
};

struct Wsd {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
    options: Options,
}

pub(crate) fn make(mut parts: Parts) -> Arc<dyn Strategy> {
    let base = parts.engines.swap_remove(1);
    let draft = parts.engines.swap_remove(0);
    Arc::new(Wsd { draft, base, options: parts.options })
}

#[async_trait]
impl Strategy for Wsd {
    fn speaker(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let (draft_text, base_text) = (self.draft.text(), self.base.text());
        if matches!(job.prompt, Prompt::Tokens(_)) && !Bridge::passes_ids(draft_text, base_text) {
            return Err(Error::Chat(
                "a prompt of token ids needs models of one vocabulary\n  hint: give the prompt as text".into(),
            ));
        }
        let prompt = render(self.base.as_ref(), job)?;
        let draft_prompt = render(self.draft.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        let mut base = self.base.open(&prompt.tokens).await?;
        let mut draft = self.draft.open(&draft_prompt.tokens).await?;
        let mut bridge = Bridge::new(draft_text, base_text, &draft_prompt, &prompt);
        answer.begin(base_text, &prompt.tokens, 0);

        let mut window = Window::new(self.options.rule);
        let (mut drafted, mut kept) = (0, 0);
        loop {
            let plan = Plan {
                max_tokens: self.options.chunk_tokens.min(self.options.max_draft_tokens - drafted),
                sampling: job.sampling.of(Role::Draft),
                top_logprobs: 0,
            };
            let (chunk, stop) = write_chunk(draft.as_mut(), &plan, answer).await?;
            drafted += chunk.len();
            let draft_done =
                stop == Stop::End || chunk.len() < plan.max_tokens || drafted == self.options.max_draft_tokens;

            let edit = bridge.push(&chunk, draft_done)?;
            if kept == 0 && !edit.append.is_empty() {
                answer.begin(base_text, &prompt.tokens[..edit.keep], bridge.overlap(edit.keep)?);
            }
            base.truncate(edit.keep);
            let room = self.base.card().max_len - edit.keep;
            let context_full = edit.append.len() > room;
            base.append(&edit.append[..edit.append.len().min(room)]);

            let started = Instant::now();
            let scores = base.score_top(edit.keep, job.top_logprobs).await?;
            answer.call(Call::since(started, Role::Base, CallKind::Score, scores.len())).await;
            for (i, scored) in scores.into_iter().enumerate() {
                let seen = window.push(scored.logprob);
                let flow = answer.token(scored, Role::Draft, seen.map(|seen| seen.confidence)).await?;
                kept += 1;
                if let Some(seen) = seen.filter(|seen| seen.passed) {
                    answer.handover(Handover::new(kept - 1, seen.confidence, self.options.rule)).await;
                    if let Flow::Done(reason) = flow {
                        return Ok(reason);
                    }
                    base.truncate(edit.keep + i + 1);
                    drop(draft);
                    return to_the_end(base.as_mut(), Role::Base, job, answer).await;
                }
                if let Flow::Done(reason) = flow {
                    return Ok(reason);
                }
            }
            if context_full {
                return Ok(FinishReason::Length);
            }
            if draft_done {
                return match self.options.on_draft_end {
                    OnDraftEnd::Stop if stop == Stop::End => Ok(FinishReason::Stop),
                    OnDraftEnd::Stop => Ok(FinishReason::Length),
                    OnDraftEnd::Continue => to_the_end(base.as_mut(), Role::Base, job, answer).await,
                };
            }
        }
    }
}

/// Let the draft write the next chunk.
async fn write_chunk(draft: &mut dyn Session, plan: &Plan, answer: &mut Answer) -> Result<(Vec<Token>, Stop)> {
    let started = Instant::now();
    let mut chunk = Vec::with_capacity(plan.max_tokens);
    let mut stop = Stop::Length;
    let mut steps = draft.generate(plan);
    while let Some(step) = steps.next().await {
        match step? {
            Step::Token(sampled) => chunk.push(sampled.token),
            Step::End(end) => stop = end,
        }
    }
    drop(steps);
    answer.call(Call::since(started, Role::Draft, CallKind::Generate, chunk.len())).await;
    Ok((chunk, stop))
}
