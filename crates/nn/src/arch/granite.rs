//! Granite 3, and the dense models of Granite 4: Llama with factors on embeddings, attention scores,
//! residual sums and logits.

use super::{Blueprint, keys::Keys, llama};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let factor = |key: &str| keys.positive_or(key, 1.0);
    Ok(Blueprint {
        embedding_scale: factor("embedding_multiplier")? as f32,
        attention_scale: factor("attention_multiplier")? as f32,
        residual_scale: factor("residual_multiplier")? as f32,
        logit_scale: (1.0 / factor("logits_scaling")?) as f32,
        ..llama::parse(keys)?
    })
}

/// Reads Granite 4, of which only models without Mamba layers and experts are supported.
pub(super) fn parse_hybrid(keys: &Keys<'_>) -> Result<Blueprint> {
    let attends = |kind: &serde_json::Value| kind == "attention" || kind == "full_attention";
    let kinds = keys.get("layer_types").and_then(|kinds| kinds.as_array());
    if kinds.is_some_and(|kinds| !kinds.iter().all(attends)) {
        return Err(keys.fault("layer_types", "`attention` for every layer: Mamba layers are not supported"));
    }
    if keys.whole_or("num_local_experts", 0)? > 0 {
        return Err(keys.fault("num_local_experts", "0: experts of this architecture are not supported"));
    }
    let completed = keys.completed(&[], &[]);
    let shared = keys.get("shared_intermediate_size").cloned();
    let completed = completed.into_iter().chain(shared.map(|size| ("intermediate_size".to_owned(), size))).collect();
    let keys = &Keys::new(&completed);
    let mut blueprint = Blueprint { fused_gates: true, ..parse(keys)? };
    if keys.text_or("position_embedding_type", "rope")? != "rope" {
        blueprint.set_ropes(|_, _| None);
    }
    Ok(blueprint)
}
