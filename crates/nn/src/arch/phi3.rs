//! Phi-3 and Phi-4: Llama with stacked projections and LongRoPE.

use super::{Blueprint, Norms, blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let skeleton = Blueprint::skeleton(keys)?;
    let eps = keys.positive_or("rms_norm_eps", 1e-5)? as f32;
    let mut blueprint =
        Blueprint { fused_qkv: true, fused_gates: true, norms: Norms { eps, ..skeleton.norms }, ..skeleton };
    let window = if keys.has("sliding_window") { blueprint::window(keys, 1)? } else { None };
    blueprint.set_windows(keys, window, |_| true)?;
    Ok(blueprint)
}
