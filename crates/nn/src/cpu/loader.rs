//! Tensors of a checkpoint as the layers of a model on the CPU.

use std::collections::HashMap;

use super::CpuOptions;
use super::layer::{LayerWeights, layer_weights};
use super::linear::{Linear, Stored};
use crate::arch::Blueprint;
use crate::checkpoint::Tensor;
use crate::error::Result;

/// The tensors that a model requires, read on the terms of its options.
pub(super) struct Loader<'a> {
    tensors: HashMap<&'a str, &'a Tensor>,
    options: CpuOptions,
}

impl<'a> Loader<'a> {
    pub(super) fn new(required: &'a [Tensor], options: CpuOptions) -> Self {
        Self { tensors: required.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(), options }
    }

    /// The length of all tensors in their files.
    pub(super) fn bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.bytes().len()).sum()
    }

    /// A tensor that is required.
    pub(super) fn take(&self, name: &str) -> Tensor {
        let tensor = self.tensors.get(name).copied().cloned();
        tensor.expect("invariant: a loader holds all tensors that are taken")
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

    /// Packs the weights of a layer.
    pub(super) fn layer(&self, blueprint: &Blueprint, index: usize) -> Result<LayerWeights> {
        let take = |name: &str| self.take(&format!("model.layers.{index}.{name}"));
        layer_weights(blueprint, take, |stored| self.linear(stored))
    }
}
