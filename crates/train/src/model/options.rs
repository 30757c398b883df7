//! The options of a model in training.

use wsd_nn::kernels::dense::Precision;

use crate::adapters::Trained;

/// The options of a [`TrainableModel`](crate::TrainableModel).
pub struct ModelOptions<'a> {
    /// The number of threads, each with a gradient of its own.
    pub threads: usize,
    /// The length of the longest sequence, in tokens.
    pub max_len: usize,
    /// Keep only the inputs of layers for the backward pass, and compute the rest again.
    pub recompute: bool,
    /// The precision of products with the matrices of layers and heads.
    pub precision: Precision,
    /// Tells how the tensor of this name changes; gradients of those that do not are skipped.
    pub trained: &'a dyn Fn(&str) -> Trained,
}

impl Default for ModelOptions<'_> {
    fn default() -> Self {
        let (recompute, precision) = (false, Precision::default());
        Self { threads: 1, max_len: 1024, recompute, precision, trained: &|_| Trained::Frozen }
    }
}
