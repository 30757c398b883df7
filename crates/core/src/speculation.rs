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

mod lookahead;
mod propose;
mod verify;

use std::time::Instant;

pub(crate) use propose::Speculator;

use crate::steps::{generation, write_into, write_to_end};
use crate::{Answer, Bridge, Call, CallKind, Engine, FinishReason, Guide, Result, Seat, Session, Terms};
use lookahead::{Action, Lookahead, MAX_PROPOSED};
use verify::verify;

/// Number of lacking tokens that a draft can prefill together with its first step of a round at no
/// noticeable cost: the base's own token of the round before, and one that the base decoded alone to
/// be measured.
const FREE_PREFILL: usize = 2;

/// Tells whether the base reads the draft's token ids as they are and can return its choices.
pub(crate) fn can_speculate(draft: &dyn Engine, base: &dyn Engine) -> bool {
    base.card().caps.choices && Bridge::passes_ids(draft.codec(), base.codec())
}

/// Speculative decoding by one base and one draft.
pub(crate) struct Speculation<'a> {
    base: &'a mut dyn Session,
    draft: Speculator,
    /// Length of the base's context, in tokens.
    max_len: usize,
    terms: &'a Terms,
    guide: Option<Guide>,
    lookahead: Lookahead,
}

impl<'a> Speculation<'a> {
    /// Speculation that continues the present token list of `base`, whose context holds `max_len`
    /// tokens, under `guide`.
    pub(crate) fn new(
        base: &'a mut dyn Session,
        draft: Speculator,
        max_len: usize,
        terms: &'a Terms,
        guide: Option<Guide>,
    ) -> Self {
        Self { base, draft, max_len, terms, guide, lookahead: Lookahead::default() }
    }

    /// Writes until the answer ends.
    pub(crate) async fn run(mut self, answer: &mut Answer) -> Result<FinishReason> {
        loop {
            let remaining = answer.remaining().min(self.max_len - self.base.tokens().len());
            let lacking = self.draft.follow(self.base.tokens());
            if remaining == 0 {
                return Ok(FinishReason::Length);
            }
            if self.draft.is_full(MAX_PROPOSED) {
                return write_to_end(self.base, Seat::BASE, self.terms, self.guide.as_ref(), answer).await;
            }
            let done = match self.lookahead.next_action() {
                Action::Propose(count) if remaining > 1 => {
                    self.propose_and_verify(count.min(remaining - 1), lacking, answer).await?
                }
                Action::Propose(_) => self.decode_alone(1, answer).await?,
                Action::DecodeAlone(count) => self.decode_alone(count.min(remaining), answer).await?,
            };
            if let Some(reason) = done {
                return Ok(reason);
            }
        }
    }

    /// Lets the base decode `count` tokens alone. Returns the reason why the answer ended, if it did.
    async fn decode_alone(&mut self, count: usize, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let started = Instant::now();
        let generation = generation(self.terms, Seat::BASE, self.guide.as_ref(), count);
        let (written, done) = write_into(self.base, Seat::BASE, &generation, answer).await?;
        self.lookahead.record_alone(written, started.elapsed().as_secs_f64());
        Ok(done)
    }

    /// Runs a round: the draft proposes `count` tokens and the base verifies them. `lacking` is the
    /// number of tokens that the draft has to prefill first. Returns the reason why the answer
    /// ended, if it did.
    async fn propose_and_verify(
        &mut self,
        count: usize,
        lacking: usize,
        answer: &mut Answer,
    ) -> Result<Option<FinishReason>> {
        let proposal = self.draft.propose(count, self.guide.as_ref()).await?;
        let proposed = proposal.ids();
        let call = Call::new(Seat::DRAFT, CallKind::Generate, proposed.len(), proposal.seconds);
        answer.call(call).await;

        let generation = generation(self.terms, Seat::BASE, self.guide.as_ref(), 1);
        let verified = verify(self.base, &proposed, &generation, answer).await?;
        // After a back-off the draft also prefills what the base decoded alone, which is no part of
        // the cost of a draft token.
        let draft_seconds = (lacking <= FREE_PREFILL).then_some(proposal.seconds);
        self.lookahead.record_round(proposed.len(), verified.accepted, draft_seconds, verified.seconds);
        Ok(verified.done)
    }
}
