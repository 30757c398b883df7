//! GPT-2 (Radford et al. 2019): LayerNorms, biases everywhere, no gate, and learned positions.

use super::{Blueprint, blueprint, keys::Keys};
use crate::error::Result;

/// Keys with other names than elsewhere.
const NAMES: &[(&str, &str)] = &[
    ("hidden_size", "n_embd"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
    ("max_position_embeddings", "n_positions"),
    ("intermediate_size", "n_inner"),
    ("hidden_act", "activation_function"),
];

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    if !keys.flag_or("scale_attn_weights", true)? {
        return Err(keys.fault("scale_attn_weights", "true: other scales of attention are not supported"));
    }
    if keys.flag_or("scale_attn_by_inverse_layer_idx", false)? {
        return Err(keys.fault("scale_attn_by_inverse_layer_idx", "false: scales of layers are not supported"));
    }
    let mut completed = keys.completed(NAMES, &[]);
    if let Some(hidden) = Keys::new(&completed).get("hidden_size").and_then(serde_json::Value::as_u64) {
        completed.entry("intermediate_size").or_insert_with(|| hidden.saturating_mul(4).into());
    }
    let keys = &Keys::new(&completed);
    let skeleton = Blueprint::skeleton(keys)?;
    let mut blueprint = Blueprint {
        norms: blueprint::layer_norms(keys, "layer_norm_epsilon", skeleton.norms)?,
        positions: true,
        ropes: Vec::new(),
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        fused_qkv: true,
        gated: false,
        activation: blueprint::activation(keys, "hidden_act", "gelu_new")?,
        tied: keys.flag_or("tie_word_embeddings", true)?,
        ..skeleton
    };
    blueprint.set_ropes(|_, _| None);
    Ok(blueprint)
}
