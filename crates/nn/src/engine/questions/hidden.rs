//! Hidden states.

use wsd_core::Layer;

use super::{Output, Reader};
use crate::engine::list::List;

/// Returns the hidden state of a layer at each position.
pub(in crate::engine) struct Hidden {
    pub(in crate::engine) layer: Layer,
}

impl Reader for Hidden {
    type Item = Vec<f32>;

    fn output(&self) -> Output {
        Output::Hidden(self.layer)
    }

    fn read(&self, _: &List, _: usize, hidden: &mut [f32]) -> Option<Vec<f32>> {
        finite(hidden)
    }
}

/// Copies a vector; returns `None` if it contains NaN or infinity.
pub(super) fn finite(vector: &[f32]) -> Option<Vec<f32>> {
    vector.iter().all(|value| value.is_finite()).then(|| vector.to_vec())
}
