//! The weights of a model on the CPU.

use super::layer::{LayerWeights, Norm};
use super::linear::Linear;
use crate::arch::{Blueprint, Head};
use crate::cache::CacheShape;
use crate::checkpoint::Tensor;
use crate::kernels::{KvFormat, Simd, Workers};

/// The product of bytes of weights and tokens from which a step is worth waking other threads.
const AWAKE_BYTES: usize = 1 << 26;

/// The weights and their blueprint, which no step changes.
pub(super) struct Model {
    pub(super) blueprint: Blueprint,
    pub(super) simd: Simd,
    /// The number format of cached keys and values.
    pub(super) kv: KvFormat,
    /// The size of all tensors.
    pub(super) bytes: usize,
    pub(super) embedding: Embedding,
    /// The embedding of positions, if the model has one.
    pub(super) positions: Option<Tensor>,
    pub(super) layers: Vec<LayerWeights>,
    /// The norm before the output heads; none in the layer of a draft head.
    pub(super) final_norm: Option<Norm>,
    pub(super) heads: Vec<(Head, OutputHead)>,
}

/// The embedding of tokens.
pub(super) struct Embedding {
    /// `(vocab, hidden)`, or `(vocab, rank)` with a factor.
    pub(super) rows: Tensor,
    /// From the rank to the width of the model.
    pub(super) factor: Option<Linear>,
}

/// An output head.
pub(super) struct OutputHead {
    /// From the width of the model to the rank of the head.
    pub(super) factor: Option<Linear>,
    /// From there to the outputs.
    pub(super) linear: Linear,
}

impl Model {
    /// The shape of the KV cache of a sequence.
    pub(super) fn cache_shape(&self) -> CacheShape {
        let Blueprint { kv_heads, head_dim, .. } = self.blueprint;
        CacheShape { layers: self.blueprint.layers.len(), heads: kv_heads, head_dim, format: self.kv }
    }

    /// Calls `lead` with all threads if this number of tokens is worth it, and returns its result.
    pub(super) fn with_workers<R>(&self, tokens: usize, lead: impl FnOnce(&Workers<'_>) -> R) -> R {
        let is_worth_it = self.bytes.saturating_mul(tokens) >= AWAKE_BYTES;
        if is_worth_it { Workers::awake(self.simd, lead) } else { lead(&Workers::alone(self.simd)) }
    }
}
