//! A linear layer of the model.

use crate::checkpoint::Tensor;
use crate::kernels::{self, Simd};

/// A mapped matrix and its bias.
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Vec<f32>>,
}

impl Linear {
    /// Outputs `start..start + count` as a layer of their own.
    pub(super) fn part(&self, start: usize, count: usize) -> Self {
        Self {
            weight: self.weight.narrow_rows(start, count),
            bias: self.bias.as_ref().map(|bias| bias[start..start + count].to_vec()),
        }
    }

    /// `(tokens, inputs)` to `(tokens, outputs)`, in place of what `out` held.
    pub(super) fn apply(&self, simd: Simd, x: &[f32], out: &mut Vec<f32>) {
        // Every element is written, so what a longer step left behind need not be cleared.
        out.resize(x.len() / self.weight.columns() * self.weight.rows(), 0.0);
        kernels::linear(simd, x, &self.weight, self.bias.as_deref(), out);
    }
}
