//! Speculation: the draft proposes tokens, the base checks many of them in one step, and the text
//! is the base's own.
//!
//! The draft proposes its most likely tokens. The base tells what it would have written at each
//! position ([`Session::choices`]), and the proposals are kept as far as they equal those choices;
//! the base's own token follows. The answer is therefore, token for token, the one that the base
//! gives by itself, greedy or sampled. This is the rule of Leviathan, Kalman and Matias (arXiv
//! 2211.17192, algorithm 1) for a draft that puts all its probability on one token `x`: `x` is
//! accepted with probability `p(x)`, and otherwise the token drawn is distributed as `p` without
//! `x`.

mod pace;
mod propose;
mod verify;

use std::time::Instant;

pub(crate) use propose::Speculator;

use crate::steps::{generation, write_into, write_to_end};
use crate::{Answer, Bridge, Call, CallKind, Engine, FinishReason, Result, Seat, Session, Terms};
use pace::{MAX_AHEAD, Pace, Turn};
use verify::verify;

/// Tokens that a draft prefills together with its first step of a round at no extra cost: those
/// that the round before may have left.
const FREE_PREFILL: usize = 2;

/// Tells whether both models share ids and the base can return its choices.
pub(crate) fn can_speculate(draft: &dyn Engine, base: &dyn Engine) -> bool {
    base.card().caps.choices && Bridge::passes_ids(draft.codec(), base.codec())
}

/// A base that writes, with a draft ahead of it.
pub(crate) struct Speculation<'a> {
    base: &'a mut dyn Session,
    draft: Speculator,
    /// Tokens that the base's context holds.
    max_len: usize,
    terms: &'a Terms,
    pace: Pace,
}

impl<'a> Speculation<'a> {
    /// Speculation from the present end of `base`, whose context holds `max_len` tokens.
    pub(crate) fn new(base: &'a mut dyn Session, draft: Speculator, max_len: usize, terms: &'a Terms) -> Self {
        Self { base, draft, max_len, terms, pace: Pace::default() }
    }

    /// Writes until the answer ends.
    pub(crate) async fn run(mut self, answer: &mut Answer) -> Result<FinishReason> {
        loop {
            let remaining = answer.remaining().min(self.max_len - self.base.tokens().len());
            let behind = self.draft.follow(self.base.tokens());
            if remaining == 0 {
                return Ok(FinishReason::Length);
            }
            if self.draft.is_full(MAX_AHEAD) {
                return write_to_end(self.base, Seat::BASE, self.terms, answer).await;
            }
            let done = match self.pace.turn() {
                Turn::Propose(count) if remaining > 1 => self.round(count.min(remaining - 1), behind, answer).await?,
                Turn::Propose(_) => self.alone(1, answer).await?,
                Turn::Alone(count) => self.alone(count.min(remaining), answer).await?,
            };
            if let Some(reason) = done {
                return Ok(reason);
            }
        }
    }

    /// The base decodes `count` tokens alone.
    async fn alone(&mut self, count: usize, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let started = Instant::now();
        let generation = generation(self.terms, Seat::BASE, count);
        let (written, done) = write_into(self.base, Seat::BASE, &generation, answer).await?;
        self.pace.record_alone(written, started.elapsed().as_secs_f64());
        Ok(done)
    }

    /// The draft proposes `count` tokens, the base checks them. The draft lacked `behind` tokens
    /// before.
    async fn round(&mut self, count: usize, behind: usize, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let proposal = self.draft.propose(count).await?;
        let proposed = proposal.ids();
        let call = Call::new(Seat::DRAFT, CallKind::Generate, proposed.len(), proposal.seconds);
        answer.call(call).await;

        let verified = verify(self.base, &proposed, &generation(self.terms, Seat::BASE, 1), answer).await?;
        // A long prefill of what the base wrote alone is the price of a probe, not of a draft
        // token.
        let draft_seconds = (behind <= FREE_PREFILL).then_some(proposal.seconds);
        self.pace.record_round(proposed.len(), verified.accepted, draft_seconds, verified.seconds);
        Ok(verified.done)
    }
}
