//! The matrix of an output head, forward and backward.

use wsd_nn::kernels::dense::{Matrix, Output, Precision};
use wsd_nn::kernels::{Simd, softcap};

/// A matrix `(outputs, inputs)` with a factor and a soft limit on its outputs.
pub(super) struct Table<'a> {
    pub(super) matrix: &'a [f32],
    pub(super) inputs: usize,
    pub(super) scale: f32,
    pub(super) cap: Option<f32>,
    pub(super) precision: Precision,
}

impl Table<'_> {
    /// The number of rows.
    pub(super) fn outputs(&self) -> usize {
        self.matrix.len() / self.inputs.max(1)
    }

    /// Sets `logits`, `(rows, outputs)`, to those of `states`, `(rows, inputs)`.
    pub(super) fn forward(&self, simd: Simd, states: &[f32], logits: &mut [f32]) {
        self.multiply(states, logits);
        self.limit(simd, logits);
    }

    /// Sets `logits` as [`Table::forward`] does, without the soft limit.
    pub(super) fn multiply(&self, states: &[f32], logits: &mut [f32]) {
        let matrix = Matrix::dense(self.matrix, self.inputs).transposed();
        let to = Output::set(logits, self.outputs());
        self.precision.multiply(self.scale, Matrix::dense(states, self.inputs), matrix, to);
    }

    /// Applies the soft limit.
    pub(super) fn limit(&self, simd: Simd, logits: &mut [f32]) {
        if let Some(cap) = self.cap {
            softcap(simd, logits, cap);
        }
    }

    /// Sets `states` to the gradient with respect to them, given that with respect to the logits before
    /// their soft limit.
    pub(super) fn backward(&self, logits: &[f32], states: &mut [f32]) {
        let to = Output::set(states, self.inputs);
        let matrix = Matrix::dense(self.matrix, self.inputs);
        self.precision.multiply(self.scale, Matrix::dense(logits, self.outputs()), matrix, to);
    }
}

/// From gradients with respect to logits under a soft limit to those before it: times
/// `1 - (logit / cap)^2`.
pub(super) fn uncap(gradients: &mut [f32], cap: f32, logits: impl Iterator<Item = f32>) {
    gradients.iter_mut().zip(logits).for_each(|(gradient, logit)| *gradient *= 1.0 - (logit / cap).powi(2));
}
