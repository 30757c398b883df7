//! GPT-NeoX (arXiv 2204.06745), the architecture of Pythia: LayerNorms, parallel parts, biases
//! everywhere, no gate, and a rotation of a part of each head.

use super::{Blueprint, blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let names = [("partial_rotary_factor", "rotary_pct"), ("rope_theta", "rotary_emb_base")];
    let completed = keys.completed(&names, &[("partial_rotary_factor", 0.25)]);
    let keys = &Keys::new(&completed);
    let skeleton = Blueprint::skeleton(keys)?;
    let bias = keys.flag_or("attention_bias", true)?;
    Ok(Blueprint {
        norms: blueprint::layer_norms(keys, "layer_norm_eps", skeleton.norms)?,
        parallel: keys.flag_or("use_parallel_residual", true)?,
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: true,
        fused_qkv: true,
        gated: false,
        activation: blueprint::activation(keys, "hidden_act", "gelu")?,
        ..skeleton
    })
}
