//! The base of an answer, which scores drafted tokens and finds the switch.

use std::time::Instant;

use crate::handover::repeats;
use crate::speculation::Rest;
use crate::switch::{ALTERNATIVES, FeatureWindow, LearnedSwitch};
use crate::{
    Answer, Call, CallKind, Edit, FinishReason, Flow, Handover, Profile, Result, Seat, Session, TokenRecord, Window,
};

/// The result of scoring a chunk.
pub(super) enum Verdict {
    /// The window has not passed.
    NotPassed,
    /// The window passed; the base's token list ends with the token at which it did.
    Passed,
    /// The answer is complete.
    AnswerComplete(FinishReason),
}

/// The beginning of the answer in the base's list.
pub(super) struct Begin {
    /// Position of the first token with text of the answer.
    pub(super) at: usize,
    /// Number of bytes of that token, or of the first ones, that belong to the prompt.
    pub(super) overlap: usize,
}

/// A session of the base that scores drafted tokens.
pub(super) struct Scorer {
    pub(super) session: Box<dyn Session>,
    /// Length of the base's context, in tokens.
    pub(super) max_len: usize,
    pub(super) top_logprobs: usize,
    pub(super) window: Window,
    /// True if a window that repeats what stands just before it does not count.
    pub(super) skips_repetitions: bool,
    /// The model that decides in place of the threshold, if any, with its features.
    pub(super) learned: Option<(LearnedSwitch, FeatureWindow)>,
    pub(super) begin: Begin,
    /// Number of tokens in the answer so far.
    pub(super) emitted: usize,
    /// Duration of the last scoring call, in seconds; 0 if the last chunk needed none.
    pub(super) seconds: f64,
    /// The measured speed of the base.
    pub(super) profile: Profile,
    /// Number of tokens that the base has computed.
    pub(super) computed: usize,
    /// The scored tokens after the switch.
    pub(super) rest: Rest,
}

impl Scorer {
    /// Applies an edit to the base's token list, scores the appended tokens, and emits them up to
    /// the switch. Tokens beyond the end of the base's context are dropped.
    pub(super) async fn score_chunk(&mut self, edit: Edit, answer: &mut Answer) -> Result<Verdict> {
        self.session.truncate(edit.keep);
        let space = self.max_len - edit.keep;
        self.session.append(&edit.append[..edit.append.len().min(space)]);
        let records = self.score_from(edit.keep, answer).await?;
        for (i, mut record) in records.iter().cloned().enumerate() {
            let window = record.logprob.and_then(|logprob| self.window.push(logprob));
            let confidence = window.map(|window| window.confidence);
            record.switch = self.probability(&record);
            record.top.truncate(self.top_logprobs);
            let passed = window.filter(|window| match (&self.learned, record.switch) {
                (None, _) => window.passed,
                (Some(_), probability) => probability.is_some_and(|probability| probability >= 0.5),
            });
            let repeats = passed.is_some() && self.skips_repetitions && self.repeats(edit.keep + i);
            let flow = answer.token(TokenRecord { confidence, repeats, ..record }).await?;
            self.emitted += 1;
            let passed = passed.filter(|_| !repeats);
            if let Some(window) = passed {
                answer.handover(Handover::new(self.emitted - 1, window.confidence, self.window.rule())).await;
            }
            if let Flow::Done(reason) = flow {
                return Ok(Verdict::AnswerComplete(reason));
            }
            if passed.is_some() {
                let rest = records[i + 1..].iter().map(|record| (record.id, record.logprob.map_or(0.0, f64::exp)));
                self.rest = Rest { at: edit.keep + i + 1, tokens: rest.collect() };
                self.session.truncate(edit.keep + i + 1);
                return Ok(Verdict::Passed);
            }
        }
        Ok(if edit.append.len() > space { Verdict::AnswerComplete(FinishReason::Length) } else { Verdict::NotPassed })
    }

    /// The learned probability that the base continues well after a token, if there is a model for it.
    fn probability(&mut self, record: &TokenRecord) -> Option<f64> {
        let (model, window) = self.learned.as_mut()?;
        let features = window.push(record.id, record.logprob?, &record.top)?;
        Some(model.probability(&features))
    }

    /// Tells whether the window of the answer that ends with the token at `position` of the list repeats
    /// what stands before it in the answer.
    fn repeats(&self, position: usize) -> bool {
        let answer = position.saturating_sub(self.emitted)..position + 1;
        repeats(self.session.tokens().get(answer).unwrap_or_default(), self.window.rule().window())
    }

    /// Scores the tokens from position `keep` to the end of the list. The token at position 0 has no
    /// context, so its record has no log-probability.
    async fn score_from(&mut self, keep: usize, answer: &mut Answer) -> Result<Vec<TokenRecord>> {
        self.seconds = 0.0;
        if keep == self.session.tokens().len() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let from = keep.max(1);
        let alternatives = if self.learned.is_some() { ALTERNATIVES } else { 0 };
        let scored = self.session.score_top(from, self.top_logprobs.max(alternatives)).await?;
        let call = Call::since(started, Seat::BASE, CallKind::Score, scored.len());
        self.seconds = call.seconds;
        let len = self.session.tokens().len();
        self.profile.record(len - self.computed.min(keep), call.seconds);
        self.computed = len - 1;
        answer.call(call).await;
        let first = self.session.tokens()[keep..from].iter().map(|&token| TokenRecord::unscored(token, Seat::DRAFT));
        Ok(first.chain(scored.into_iter().map(|scored| TokenRecord::new(scored, Seat::DRAFT))).collect())
    }
}
