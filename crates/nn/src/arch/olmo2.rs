//! OLMo 2 (arXiv 2501.00656): norms on the outputs of attention and feed-forward part instead of
//! their inputs, and on the whole query and key projections.

use super::{Blueprint, Norms, QkNorm, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let skeleton = Blueprint::skeleton(keys)?;
    let bias = keys.flag_or("attention_bias", false)?;
    Ok(Blueprint {
        norms: Norms {
            eps: keys.positive_or("rms_norm_eps", 1e-5)? as f32,
            pre_attention: None,
            post_attention: Some("post_attention_layernorm"),
            pre_mlp: None,
            post_mlp: Some("post_feedforward_layernorm"),
            ..skeleton.norms
        },
        qk_norm: QkNorm::Full,
        qkv_bias: bias,
        output_bias: bias,
        ..skeleton
    })
}
