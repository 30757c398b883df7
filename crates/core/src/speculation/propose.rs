//! Proposals: a session of the draft whose answer follows the base's.

use crate::{Generation, Guide, Result, Sampling, Session, Token, Written, common_prefix};

/// A draft that proposes tokens to a base.
pub(crate) struct Speculator {
    /// A session of the draft: its prompt, followed by any tokens of an answer, of which the common
    /// prefix with the base's answer is reused.
    pub(crate) session: Box<dyn Session>,
    /// Length of the draft's prompt, in tokens.
    pub(crate) prompt: usize,
    /// Length of the base's prompt, in tokens.
    pub(crate) base_prompt: usize,
    /// Length of the draft's context, in tokens.
    pub(crate) max_len: usize,
}

impl Speculator {
    /// Makes the draft's answer equal to the one in `base`, the base's token list. Returns the number
    /// of tokens that it lacked.
    pub(super) fn follow(&mut self, base: &[Token]) -> usize {
        let answer = &base[self.base_prompt..];
        let same = common_prefix(&self.session.tokens()[self.prompt..], answer);
        self.session.truncate(self.prompt + same);
        self.session.append(&answer[same..]);
        answer.len() - same
    }

    /// Tells whether the context has no space left for `count` proposed tokens.
    pub(super) fn is_full(&self, count: usize) -> bool {
        self.session.tokens().len() + count > self.max_len
    }

    /// Proposes up to `count` tokens, each the draft's most likely one among those that the base's
    /// `guide` allows. Both models share the guide, so that the base finds the masks computed.
    pub(super) async fn propose(&mut self, count: usize, guide: Option<&Guide>) -> Result<Written> {
        let guide = guide.map(|guide| guide.moved(self.base_prompt, self.prompt));
        let generation = Generation { max_tokens: count, sampling: Sampling::default(), top_logprobs: 0, guide };
        self.session.write(&generation).await
    }
}
