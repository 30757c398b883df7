//! Gemma 2 (arXiv 2408.00118): four norms per layer whose stored weights lack an offset of 1, soft
//! caps, a window on every other layer, scaled embeddings.

use super::blueprint::{self, Norms};
use super::{Blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut blueprint = Blueprint {
        attention_softcap: softcap(keys, "attn_logit_softcapping", Some(50.0))?,
        final_softcap: softcap(keys, "final_logit_softcapping", Some(30.0))?,
        ..family(keys)?
    };
    blueprint.set_windows(keys, blueprint::window(keys, 4096)?, |layer| layer % 2 == 0)?;
    Ok(blueprint)
}

/// The blueprint that Gemma 2 and 3 share.
pub(super) fn family(keys: &Keys<'_>) -> Result<Blueprint> {
    let skeleton = Blueprint::skeleton(keys)?;
    if keys.flag_or("use_bidirectional_attention", false)? {
        return Err(keys.fault("use_bidirectional_attention", "false: only causal attention is supported"));
    }
    let bias = keys.flag_or("attention_bias", false)?;
    Ok(Blueprint {
        norms: Norms {
            offset: 1.0,
            post_attention: Some("post_attention_layernorm"),
            pre_mlp: Some("pre_feedforward_layernorm"),
            post_mlp: Some("post_feedforward_layernorm"),
            ..skeleton.norms
        },
        qkv_bias: bias,
        output_bias: bias,
        activation: blueprint::activation(keys, "hidden_activation", "gelu_pytorch_tanh")?,
        attention_scale: keys.positive_or("query_pre_attn_scalar", 256.0)?.powf(-0.5) as f32,
        embedding_scale: (skeleton.hidden as f64).sqrt() as f32,
        tied: keys.flag_or("tie_word_embeddings", true)?,
        ..skeleton
    })
}

/// Reads a soft cap. An absent key means `default`, null means no cap.
pub(super) fn softcap(keys: &Keys<'_>, key: &str, default: Option<f32>) -> Result<Option<f32>> {
    match keys.raw(key) {
        None => Ok(default),
        Some(value) if value.is_null() => Ok(None),
        Some(_) => Ok(Some(keys.positive(key)? as f32)),
    }
}
