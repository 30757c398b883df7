//! The operations of a decoder. Each lets gradients pass: candle-nn's fused `rms_norm`, `rope` and
//! `softmax_last_dim` drop them without an error.

use candle_core::{D, Result, Tensor};

use super::batch::Rotation;
use super::wide::WIDE;
use crate::arch::{Activation, StoredLinear};

/// A matrix `(outputs, inputs)` and its bias.
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    /// Maps `(tokens, inputs)` to `(tokens, outputs)` floats. The product is computed in the
    /// matrix's own type.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let product = x.to_dtype(self.weight.dtype())?.matmul(&self.weight.t()?)?.to_dtype(WIDE)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(&bias.to_dtype(WIDE)?),
            None => Ok(product),
        }
    }
}

/// Linear layers of one input. If the file fuses them into one matrix, its outputs are split into
/// `widths`.
pub(super) struct Projections {
    pub(super) matrices: Vec<Linear>,
    pub(super) widths: Vec<usize>,
}

impl Projections {
    /// Makes the linear layers of one input. `linear` makes one by its place in the file.
    ///
    /// # Errors
    /// Those of `linear`.
    pub(super) fn try_new(
        parts: &[&StoredLinear],
        linear: &mut impl FnMut(&StoredLinear) -> crate::Result<Linear>,
    ) -> crate::Result<Self> {
        let widths = parts.iter().map(|part| part.rows.len()).collect();
        let mut modules = parts.to_vec();
        modules.dedup_by_key(|part| &part.module);
        Ok(Self { matrices: modules.into_iter().map(linear).collect::<crate::Result<_>>()?, widths })
    }

    /// Maps `(tokens, inputs)` to one `(tokens, width)` for each width.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        // Converted once for all of them.
        let x = match self.matrices.first() {
            Some(first) => x.to_dtype(first.weight.dtype())?,
            None => x.clone(),
        };
        let [stacked] = self.matrices.as_slice() else {
            return self.matrices.iter().map(|matrix| matrix.apply(&x)).collect();
        };
        let (all, mut start) = (stacked.apply(&x)?, 0);
        let part = |width: &usize| {
            let part = all.narrow(1, start, *width)?.contiguous();
            start += width;
            part
        };
        self.widths.iter().map(part).collect()
    }
}

/// RMS norm (Zhang and Sennrich 2019, arXiv 1910.07467) or LayerNorm over the last dimension.
pub(super) struct Norm {
    pub(super) weight: Tensor,
    /// Added to the weight.
    pub(super) offset: f64,
    /// Added to the mean square.
    pub(super) eps: f64,
    /// The mean is subtracted first, as in LayerNorm.
    pub(super) is_centered: bool,
    pub(super) bias: Option<Tensor>,
}

impl Norm {
    /// Computes `x / sqrt(mean(x^2) + eps) * (weight + offset) + bias`.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let x = if self.is_centered { &x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x };
        let root = x.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, self.eps)?.sqrt()?;
        let weight = self.weight.to_dtype(WIDE)?;
        let weight = if self.offset == 0.0 { weight } else { weight.affine(1.0, self.offset)? };
        let normed = x.broadcast_div(&root)?.broadcast_mul(&weight)?;
        match &self.bias {
            Some(bias) => normed.broadcast_add(&bias.to_dtype(WIDE)?),
            None => Ok(normed),
        }
    }
}

/// Computes `activation(first) * second`, or `activation(first)` of a part without a gate.
pub(super) fn gate(projections: &[Tensor], activation: Activation) -> Result<Tensor> {
    let gate = &projections[0];
    let (bound, steepness) = (f64::from(Activation::BOUND), f64::from(Activation::STEEPNESS));
    let gated = match activation {
        Activation::Silu => gate.silu(),
        Activation::GeluTanh => gate.gelu(),
        Activation::Gelu => gate.gelu_erf(),
        // `x * sigmoid(s * x) = silu(s * x) / s`.
        Activation::ClampedSilu => (gate.minimum(bound)? * steepness)?.silu()? / steepness,
    }?;
    match projections.get(1) {
        None => Ok(gated),
        Some(up) if activation == Activation::ClampedSilu => gated * (up.clamp(-bound, bound)? + 1.0)?,
        Some(up) => gated * up,
    }
}

/// Computes `cap * tanh(x / cap)`; returns `x` without a cap.
pub(super) fn softcap(x: Tensor, cap: Option<f32>) -> Result<Tensor> {
    match cap.map(f64::from) {
        Some(cap) => (x / cap)?.tanh()? * cap,
        None => Ok(x),
    }
}

/// Computes softmax over the last dimension.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    // The maximum cancels out of the value and of the gradient.
    let x = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    x.broadcast_div(&x.sum_keepdim(D::Minus1)?)
}

/// Rotates the first dimensions of heads, `(tokens, heads, head_dim)`.
pub(super) fn rotate(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    let Rotation { cos, sin, interleaved } = rotation;
    let (tokens, heads, head_dim) = x.dims3()?;
    let pairs = cos.dim(D::Minus1)?;
    let turning = x.narrow(2, 0, 2 * pairs)?;
    let (a, b) = if *interleaved {
        let neighbours = turning.reshape((tokens, heads, pairs, 2))?;
        (neighbours.narrow(3, 0, 1)?.squeeze(3)?, neighbours.narrow(3, 1, 1)?.squeeze(3)?)
    } else {
        (turning.narrow(2, 0, pairs)?, turning.narrow(2, pairs, pairs)?)
    };
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    let turned = if *interleaved {
        Tensor::stack(&[first, second], 3)?.reshape((tokens, heads, 2 * pairs))?
    } else {
        Tensor::cat(&[first, second], 2)?
    };
    if 2 * pairs == head_dim {
        return Ok(turned);
    }
    Tensor::cat(&[turned, x.narrow(2, 2 * pairs, head_dim - 2 * pairs)?], 2)
}
