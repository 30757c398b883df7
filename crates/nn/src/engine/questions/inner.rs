//! Log-probabilities of given tokens under an inner layer.

use wsd_core::logprob;

use super::{Output, Reader};
use crate::engine::list::List;

/// Scores each token after the one at a position by the residual stream after `layers` layers, through
/// the final norm and the vocabulary head.
pub(in crate::engine) struct Inner {
    pub(in crate::engine) layers: usize,
}

impl Reader for Inner {
    type Item = f64;

    fn output(&self) -> Output {
        Output::Inner(self.layers)
    }

    /// The last token need not be run to be scored.
    fn end(&self, len: usize) -> usize {
        len - 1
    }

    fn read(&self, list: &List, position: usize, logits: &mut [f32]) -> Option<f64> {
        logprob(logits, list.tokens()[position + 1])
    }
}
