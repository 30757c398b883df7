//! The weights of a model on the CPU.

use super::layer::{LayerWeights, Norm};
use super::linear::Linear;
use crate::arch::{self, Blueprint, Factors, Head};
use crate::cache::CacheShape;
use crate::checkpoint::Tensor;
use crate::error::Result;
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
    /// The rows that kept tokens have beside the product, `(tokens, hidden)`.
    pub(super) kept: Option<Tensor>,
}

/// An output head.
pub(super) struct OutputHead {
    /// From the width of the model to the rank of the head.
    pub(super) factor: Option<Linear>,
    /// From there to the outputs.
    pub(super) linear: Linear,
    /// From the width of the model to what is added to the outputs of kept tokens.
    pub(super) kept: Option<Linear>,
}

impl Embedding {
    /// Takes the tensors of an embedding, of which `linear` packs the factor.
    pub(super) fn read(
        factors: &Factors,
        take: impl Fn(&str) -> Result<Tensor>,
        linear: impl FnOnce(Tensor) -> Result<Linear>,
    ) -> Result<Self> {
        let has_kept = factors.embedding.is_some() && !factors.kept.is_empty();
        let factor = factors.embedding.map(|_| linear(take(arch::EMBEDDING_FACTOR)?)).transpose()?;
        let kept = has_kept.then(|| take(arch::EMBEDDING_KEPT)).transpose()?;
        Ok(Self { rows: take(arch::EMBEDDING)?, factor, kept })
    }
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
