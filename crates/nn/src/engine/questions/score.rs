//! Log-probabilities of given tokens.

use wsd_core::{Sampled, logprob_top};

use super::Reader;
use crate::engine::list::List;
use crate::executor::{Answer, Ask};

/// Scores each token after the one at a position, with the `top` most likely tokens at its
/// position.
pub(in crate::engine) struct Score {
    pub(in crate::engine) top: usize,
}

impl Reader for Score {
    type Item = Sampled;

    /// The last token need not be run to be scored.
    fn end(&self, len: usize) -> usize {
        len - 1
    }

    fn ask(&self, list: &List, position: usize) -> Option<Ask> {
        (self.top == 0).then(|| Ask::Logprob(list.tokens()[position + 1]))
    }

    fn read_answer(&self, _: &List, _: usize, answer: &Answer) -> Option<Sampled> {
        Some(Sampled { token: answer.token, logprob: Some(answer.logprob), top: Vec::new() })
    }

    fn read(&self, list: &List, position: usize, logits: &mut [f32]) -> Option<Sampled> {
        let token = list.tokens()[position + 1];
        let (logprob, top) = logprob_top(logits, token, self.top)?;
        Some(Sampled { token, logprob: Some(logprob), top })
    }
}
