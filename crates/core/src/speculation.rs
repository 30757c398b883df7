//! Speculation: others propose tokens, the base checks many of them in one step, and the text is the
//! base's own.
//!
//! The base tells what it would have written at each position
//! ([`Session::choices`](crate::Session::choices),
//! [`Session::tree_choices`](crate::Session::tree_choices)), and proposals are kept as far as they
//! equal those choices; the base's own token follows. The answer is therefore, token for token,
//! the one that the base gives by
//! itself, greedy or sampled, whatever is proposed. This is the rule of Leviathan, Kalman and Matias
//! (arXiv 2211.17192, algorithm 1) for a proposal that puts all its probability on one token `x`:
//! `x` is accepted with probability `p(x)`, and otherwise the token drawn is distributed as `p`
//! without `x`.
//!
//! Proposals come from [`Source`](crate::Source)s: models of the same vocabulary, n-grams of prompt and answer, and
//! the rest of a draft. [`plan`] chooses among them, and how much to propose, by measured costs.

mod chain;
mod level;
mod lookup;
mod plan;
mod proposal;

use std::time::Instant;

use chain::{Chain, Plan};
pub(crate) use level::Level;
pub(crate) use lookup::Rest;
use plan::{Action, Request};

use crate::steps::{generation, write_into};
use crate::{Answer, FinishReason, Flow, Guide, Result, Seat, Setting, Step, Terms, TokenRecord, Values};

/// The setting for the sources of proposals.
pub static SPECULATE: Setting = Setting::choice(
    "speculate",
    "Who proposes tokens that the base checks in one step (speculative decoding); changes only the speed",
    &[
        ("auto", "models of the base's vocabulary and text at hand, whichever is expected to save time, or none"),
        ("draft", "models of the base's vocabulary only"),
        ("lookup", "text at hand only: repetitions of prompt and answer, and the rest of a draft after the switch"),
        ("off", "nobody"),
    ],
)
.with_placeholder("SOURCES")
.speed_only();

/// The sources of proposals that a user allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// Models of the base's vocabulary.
    pub(crate) models: bool,
    /// Prompt and answer, and the rest of a draft.
    pub(crate) texts: bool,
}

impl Sources {
    /// The sources that `values` allow.
    pub(crate) fn from_values(values: &Values) -> Self {
        let word = values.get::<&str>(&SPECULATE);
        Self { models: matches!(word, "auto" | "draft"), texts: matches!(word, "auto" | "lookup") }
    }

    /// True if there are none.
    pub(crate) fn is_empty(self) -> bool {
        !self.models && !self.texts
    }
}

/// Speculative decoding by the last of a chain of models.
pub(crate) struct Speculation<'a> {
    chain: Chain,
    terms: &'a Terms,
}

impl<'a> Speculation<'a> {
    /// Speculation that continues the present token list of the last of `levels`, which are ordered by
    /// size. With `texts` the target also takes proposals from text at hand.
    pub(crate) fn new(levels: Vec<Level>, terms: &'a Terms, texts: Option<Rest>) -> Self {
        Self { chain: Chain::new(levels, terms, texts), terms }
    }

    /// The same speculation, of an answer that took `seconds` so far.
    pub(crate) fn after(mut self, seconds: f64) -> Self {
        self.chain.target().planner.spend(seconds);
        self
    }

    /// The same speculation of an answer under the base's `guide`. Smaller models propose under it too,
    /// so that the base finds the masks computed.
    pub(crate) fn guided(mut self, guide: Option<&Guide>) -> Self {
        self.chain.set_guide(guide);
        self
    }

    /// Writes until the answer ends.
    pub(crate) async fn run(mut self, answer: &mut Answer) -> Result<FinishReason> {
        let reason = self.write(answer).await?;
        answer.reused(self.chain.target().session.reused_tokens()).await;
        Ok(reason)
    }

    async fn write(&mut self, answer: &mut Answer) -> Result<FinishReason> {
        loop {
            let remaining = answer.remaining().min(self.chain.target().space());
            if remaining == 0 {
                return Ok(FinishReason::Length);
            }
            let plan = self.chain.plan(remaining);
            let done = match plan.action {
                Action::Alone(count) => self.decode_alone(count, answer).await?,
                Action::Propose(request) => self.check(plan, request, answer).await?,
            };
            self.chain.target().mark_computed();
            if let Some(reason) = done {
                return Ok(reason);
            }
        }
    }

    /// Lets the base decode `count` tokens alone. Returns the reason why the answer ended, if it did.
    async fn decode_alone(&mut self, count: usize, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let (target, started) = (self.chain.target(), Instant::now());
        let lacking = target.uncomputed();
        let generation = generation(self.terms, Seat::BASE, target.guide.as_ref(), answer, count);
        let (written, done) = write_into(target.session.as_mut(), Seat::BASE, &generation, answer).await?;
        let seconds = target.profile.record_writing(lacking, written.max(1), started.elapsed().as_secs_f64());
        target.planner.record_alone(written, seconds);
        Ok(done)
    }

    /// Lets the base check proposals and writes its choices into the answer. Returns the reason why
    /// the answer ended, if it did.
    async fn check(&mut self, plan: Plan, request: Request, answer: &mut Answer) -> Result<Option<FinishReason>> {
        let steps = self.chain.round(plan, request).await?;
        for call in self.chain.take_calls() {
            answer.call(call).await;
        }
        let session = &mut self.chain.target().session;
        for step in steps {
            let Step::Token(sampled) = step else { return Ok(Some(FinishReason::Stop)) };
            session.append(&[sampled.token]);
            if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled, Seat::BASE)).await? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }
}
