//! The proposing side: a draft session kept in step with the base's list.

use crate::{Generation, Result, Sampling, Session, Token, Written, common_prefix};

/// A draft that proposes tokens to a base.
pub(crate) struct Speculator {
    /// A session that holds the draft's prompt and some answer, whose common prefix with the base's
    /// is reused.
    pub(crate) session: Box<dyn Session>,
    /// Tokens in the draft's prompt.
    pub(crate) prompt: usize,
    /// Tokens in the base's prompt.
    pub(crate) base_prompt: usize,
    /// Tokens that the draft's context holds.
    pub(crate) max_len: usize,
}

impl Speculator {
    /// Makes the draft's answer equal to the base's. Returns how many tokens it lacked.
    pub(super) fn follow(&mut self, base: &[Token]) -> usize {
        let answer = &base[self.base_prompt..];
        let same = common_prefix(&self.session.tokens()[self.prompt..], answer);
        self.session.truncate(self.prompt + same);
        self.session.append(&answer[same..]);
        answer.len() - same
    }

    /// Tells whether the context has no space left for `count` proposals.
    pub(super) fn is_full(&self, count: usize) -> bool {
        self.session.tokens().len() + count > self.max_len
    }

    /// Proposes the draft's most likely tokens.
    pub(super) async fn propose(&mut self, count: usize) -> Result<Written> {
        let generation = Generation { max_tokens: count, sampling: Sampling::default(), top_logprobs: 0 };
        self.session.write(&generation).await
    }
}
