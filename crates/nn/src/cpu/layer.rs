//! The weights of one layer.

use super::linear::{Linear, Stored};
use crate::arch::{self, Blueprint, LayerParts, StoredLinear, StoredNorm};
use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::kernels::{self, Workers};

/// Floats per piece of work in an elementwise pass.
pub(super) const FLOATS_PER_PIECE: usize = 1 << 12;

/// A layer with its matrices ready to multiply.
pub(super) struct LayerWeights {
    pub(super) parts: LayerParts<Norm, Linear>,
    /// The sink of each query head; empty without sinks.
    pub(super) sinks: Vec<f32>,
}

/// A norm, with the architecture's offset added to its weight.
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    eps: f32,
    /// The mean is subtracted first.
    is_centered: bool,
}

impl Norm {
    /// Reads the norm of a module. `take` returns a tensor by name.
    ///
    /// # Errors
    /// Those of `take`.
    pub(super) fn read(
        blueprint: &Blueprint,
        module: &str,
        bias: bool,
        take: &impl Fn(&str) -> Result<Tensor>,
    ) -> Result<Self> {
        let norms = &blueprint.norms;
        let weight = take(&format!("{module}.weight"))?.to_f32();
        let bias = bias.then(|| take(&format!("{module}.bias"))).transpose()?;
        Ok(Self {
            weight: weight.iter().map(|weight| weight + norms.offset).collect(),
            bias: bias.map(|bias| bias.to_f32()),
            eps: norms.eps,
            is_centered: norms.centered,
        })
    }

    /// Normalizes rows in place.
    pub(super) fn apply(&self, workers: &Workers<'_>, x: &mut [f32]) {
        let (simd, width) = (workers.simd(), self.weight.len());
        let rows = FLOATS_PER_PIECE.div_ceil(width);
        workers.chunks(x, rows * width, 1, |_, x| {
            if self.is_centered {
                kernels::center(x, width);
            }
            kernels::rms_norm(simd, x, &self.weight, self.eps);
            if let Some(bias) = &self.bias {
                x.chunks_exact_mut(width).for_each(|row| kernels::add(simd, row, bias));
            }
        });
    }
}

/// Makes the weights of a layer of these parts. `take` returns a tensor of this layer by name, for all
/// names in [`crate::arch::tensors`]; `make` prepares a matrix.
///
/// # Errors
/// Those of `take` and `make`.
pub(super) fn layer_weights(
    (blueprint, parts): (&Blueprint, LayerParts<StoredNorm, StoredLinear>),
    take: impl Fn(&str) -> Result<Tensor>,
    make: impl Fn(Stored) -> Result<Linear>,
) -> Result<LayerWeights> {
    let norm = |StoredNorm { module, bias, .. }: StoredNorm| Norm::read(blueprint, module, bias, &take);
    let linear = |linear: StoredLinear| {
        let StoredLinear { module, rows, bias, .. } = linear;
        let bias = bias.then(|| take(&format!("{module}.bias"))).transpose()?;
        make(Stored {
            weight: take(&format!("{module}.weight"))?.narrow_rows(rows.start, rows.len()),
            bias: bias.map(|bias| bias.to_f32()[rows].to_vec()),
        })
    };
    let sinks = if blueprint.sinks { take(arch::SINKS)?.to_f32() } else { Vec::new() };
    Ok(LayerWeights { parts: parts.try_map(norm, linear)?, sinks })
}
