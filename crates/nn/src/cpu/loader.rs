//! Tensors of a checkpoint as the layers of a model on the CPU.

use super::layer::{LayerWeights, layer_weights};
use super::linear::{Linear, Stored};
use super::options::CpuOptions;
use crate::arch::{Blueprint, LayerParts, StoredLinear, StoredNorm};
use crate::checkpoint::{Tensor, Weights};
use crate::error::Result;

/// The tensors that a model requires, read on the terms of its options.
pub(super) struct Loader {
    weights: Weights,
    options: CpuOptions,
}

impl Loader {
    /// Finds tensors by their names and shapes.
    ///
    /// # Errors
    /// [`crate::Error::Tensors`] naming all that are missing or misshapen.
    pub(super) fn try_new(weights: &Weights, wanted: &[(String, Vec<usize>)], options: CpuOptions) -> Result<Self> {
        Ok(Self { weights: weights.only(wanted)?, options })
    }

    /// The length of all tensors in their files.
    pub(super) fn bytes(&self) -> usize {
        self.weights.total_bytes()
    }

    /// A tensor that is required.
    ///
    /// # Errors
    /// [`crate::Error::Tensors`] for any other.
    pub(super) fn take(&self, name: &str) -> Result<Tensor> {
        self.weights.take(name)
    }

    /// Packs a matrix.
    pub(super) fn linear(&self, Stored { weight, bias }: Stored) -> Result<Linear> {
        let CpuOptions { simd, dtype, exact, .. } = self.options;
        let weight = match dtype.filter(|format| weight.fits(*format)) {
            Some(format) => weight.in_format(format)?,
            None => weight,
        };
        Linear::new(Stored { weight, bias }, simd, exact)
    }

    /// Packs the weights of a layer of these parts.
    pub(super) fn layer(
        &self,
        (blueprint, parts): (&Blueprint, LayerParts<StoredNorm, StoredLinear>),
        index: usize,
    ) -> Result<LayerWeights> {
        let take = |name: &str| self.take(&format!("model.layers.{index}.{name}"));
        layer_weights((blueprint, parts), take, |stored| self.linear(stored))
    }
}
