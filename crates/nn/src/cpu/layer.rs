//! The weights of one layer.

use super::linear::{Linear, Stored};
use crate::arch::{Blueprint, LayerParts, StoredLinear, StoredNorm};
use crate::checkpoint::Tensor;
use crate::error::Result;

/// A layer with its matrices ready to multiply and its norms as floats, the architecture's offset
/// added.
pub(super) type LayerWeights = LayerParts<Vec<f32>, Linear>;

/// Makes the weights of a layer. `take` returns a tensor of this layer by name, for all names in
/// [`crate::arch::tensors`]; `make` prepares a matrix.
pub(super) fn layer_weights(
    blueprint: &Blueprint,
    take: impl Fn(&str) -> Tensor,
    make: impl Fn(Stored) -> Result<Linear>,
) -> Result<LayerWeights> {
    let norm = |norm: StoredNorm| Ok(norm_weight(&take(&format!("{}.weight", norm.module)), blueprint));
    let linear = |linear: StoredLinear| {
        let StoredLinear { module, rows, bias, .. } = linear;
        make(Stored {
            weight: take(&format!("{module}.weight")).narrow_rows(rows.start, rows.len()),
            bias: bias.then(|| take(&format!("{module}.bias")).to_f32()[rows].to_vec()),
        })
    };
    blueprint.layer().try_map(norm, linear)
}

/// Returns a norm's weight with the offset of the architecture added.
pub(super) fn norm_weight(tensor: &Tensor, blueprint: &Blueprint) -> Vec<f32> {
    tensor.to_f32().iter().map(|weight| weight + blueprint.norms.offset).collect()
}
