//! Weak-to-Strong Decoding, incrementally.
//!
//! The reference drafts 512 tokens, scores all, and lets the base continue from the first position whose window passes. Here
//! the draft is written and scored in chunks and ends at the switch; for every chunk length the tokens are the same, because a
//! position's score depends on nothing that follows it. A token is sent on as soon as its score is known: everything up to
//! the switch is kept. The base's cache holds the scored tokens, so it continues without a second prefill.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::{for_one_vocabulary, render, to_the_end, write_chunk};
use crate::strategy::Parts;
use crate::{
    Answer, Bridge, Call, CallKind, Edit, Engine, FinishReason, Flow, Handover, Job, OnDraftEnd, Options, Plan, Result,
    Role, Session, Stop, Strategy, TokenRecord, Window,
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
        for_one_vocabulary(&job.prompt, draft_text, base_text)?;
        let prompt = render(self.base.as_ref(), job)?;
        let draft_prompt = render(self.draft.as_ref(), job)?;
        answer.prompt(prompt.tokens.len()).await;
        let base = self.base.open(&prompt.tokens).await?;
        let mut draft = self.draft.open(&draft_prompt.tokens).await?;
        let mut bridge = Bridge::new(draft_text, base_text, &draft_prompt, &prompt);
        answer.begin(base_text, &prompt.tokens, 0);

        let mut reader = Reader {
            base,
            max_len: self.base.card().max_len,
            top_logprobs: job.top_logprobs,
            window: Window::new(self.options.rule),
            kept: 0,
        };
        let mut drafted = 0;
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
            if reader.kept == 0 && !edit.append.is_empty() {
                answer.begin(base_text, &prompt.tokens[..edit.keep], bridge.overlap(edit.keep)?);
            }
            match reader.read(edit, answer).await? {
                Verdict::Unsure if !draft_done => {}
                Verdict::Unsure if self.options.on_draft_end == OnDraftEnd::Stop => {
                    return Ok(if stop == Stop::End { FinishReason::Stop } else { FinishReason::Length });
                }
                Verdict::Unsure | Verdict::Sure => break,
                Verdict::Done(reason) => return Ok(reason),
            }
        }
        drop(draft);
        to_the_end(reader.base.as_mut(), Role::Base, job, answer).await
    }
}

/// What the base makes of a chunk.
enum Verdict {
    /// The window has not passed.
    Unsure,
    /// The window passed: the list ends with the token at which it did.
    Sure,
    /// The answer is complete.
    Done(FinishReason),
}

/// The base reading what the draft writes.
struct Reader {
    base: Box<dyn Session>,
    max_len: usize,
    top_logprobs: usize,
    window: Window,
    /// Tokens of the answer so far.
    kept: usize,
}

impl Reader {
    /// Take an edit over into the base's list, score what is new, and write it into the answer up to the switch.
    async fn read(&mut self, edit: Edit, answer: &mut Answer) -> Result<Verdict> {
        self.base.truncate(edit.keep);
        let room = self.max_len - edit.keep;
        self.base.append(&edit.append[..edit.append.len().min(room)]);
        for (i, record) in self.score(edit.keep, answer).await?.into_iter().enumerate() {
            let seen = record.logprob.and_then(|logprob| self.window.push(logprob));
            let flow = answer.token(TokenRecord { confidence: seen.map(|seen| seen.confidence), ..record }).await?;
            self.kept += 1;
            let passed = seen.filter(|seen| seen.passed);
            if let Some(seen) = passed {
                answer.handover(Handover::new(self.kept - 1, seen.confidence, self.window.rule())).await;
            }
            if let Flow::Done(reason) = flow {
                return Ok(Verdict::Done(reason));
            }
            if passed.is_some() {
                self.base.truncate(edit.keep + i + 1);
                return Ok(Verdict::Sure);
            }
        }
        Ok(if edit.append.len() > room { Verdict::Done(FinishReason::Length) } else { Verdict::Unsure })
    }

    /// Score the list from `keep` on. A token that has nothing before it has no score.
    async fn score(&mut self, keep: usize, answer: &mut Answer) -> Result<Vec<TokenRecord>> {
        if keep == self.base.tokens().len() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let from = keep.max(1);
        let scored = self.base.score_top(from, self.top_logprobs).await?;
        answer.call(Call::since(started, Role::Base, CallKind::Score, scored.len())).await;
        let first = self.base.tokens()[keep..from].iter().map(|&token| TokenRecord::unscored(token, Role::Draft));
        Ok(first.chain(scored.into_iter().map(|scored| TokenRecord::new(scored, Role::Draft))).collect())
    }
}
