//! Command R: a LayerNorm without bias whose output attention and feed-forward part share, rotation
//! of adjacent pairs, and a factor on logits. Command R7B slides a window over three of four layers,
//! and only these rotate.

use super::{Blueprint, Norms, blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    if keys.flag_or("use_qk_norm", false)? {
        return Err(keys.fault("use_qk_norm", "false: norms with a weight for each head are not supported"));
    }
    let skeleton = Blueprint::skeleton(keys)?;
    let norms = blueprint::layer_norms(keys, "layer_norm_eps", skeleton.norms)?;
    let bias = keys.flag_or("attention_bias", false)?;
    let mut ropes = skeleton.ropes.clone();
    ropes.iter_mut().for_each(|rope| rope.interleaved = true);
    Ok(Blueprint {
        norms: Norms { bias: false, pre_mlp: norms.pre_attention, ..norms },
        parallel: true,
        ropes,
        qkv_bias: bias,
        output_bias: bias,
        logit_scale: keys.positive_or("logit_scale", 0.0625)? as f32,
        tied: keys.flag_or("tie_word_embeddings", true)?,
        ..skeleton
    })
}

pub(super) fn parse_sliding(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut blueprint = parse(keys)?;
    let pattern = keys.count_or("sliding_window_pattern", 4096, 4)?;
    blueprint.set_windows(keys, blueprint::window(keys, 4096)?, |layer| (layer + 1) % pattern != 0)?;
    blueprint.set_ropes(|_, window| window.map(|_| 0));
    Ok(blueprint)
}
