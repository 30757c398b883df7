//! Mixtures of experts: Mixtral (arXiv 2401.04088), Qwen 3 MoE and OLMoE (arXiv 2409.02060).

use super::{Blueprint, Experts, QkNorm, blueprint, keys::Keys, llama, qwen3};
use crate::error::Result;

const MOST_EXPERTS: usize = 4096;

pub(super) fn mixtral(keys: &Keys<'_>) -> Result<Blueprint> {
    let experts = experts(keys, &[("num_experts", "num_local_experts")], [8, 2])?;
    let mut blueprint =
        Blueprint { experts: Some(Experts { normalized: true, ..experts }), ..Blueprint::skeleton(keys)? };
    let window = if keys.has("sliding_window") { blueprint::window(keys, 1)? } else { None };
    blueprint.set_windows(keys, window, |_| true)?;
    Ok(blueprint)
}

pub(super) fn qwen3_moe(keys: &Keys<'_>) -> Result<Blueprint> {
    if keys.count_or("decoder_sparse_step", MOST_EXPERTS, 1)? != 1 {
        return Err(keys.fault("decoder_sparse_step", "1: every layer must have experts"));
    }
    if keys.get("mlp_only_layers").and_then(|layers| layers.as_array()).is_some_and(|layers| !layers.is_empty()) {
        return Err(keys.fault("mlp_only_layers", "empty: every layer must have experts"));
    }
    let experts = experts(keys, &[("num_experts", "num_local_experts")], [128, 8])?;
    let qwen3 = qwen3::parse(keys)?;
    Ok(Blueprint {
        ffn: keys.count_or("moe_intermediate_size", blueprint::MOST_WIDTH, qwen3.ffn)?,
        experts: Some(experts),
        ..qwen3
    })
}

pub(super) fn olmoe(keys: &Keys<'_>) -> Result<Blueprint> {
    if keys.has("clip_qkv") {
        return Err(keys.fault("clip_qkv", "null: clipped projections are not supported"));
    }
    let experts = experts(keys, &[("num_experts", "num_local_experts")], [64, 8])?;
    let llama = llama::parse(keys)?;
    let norms = super::Norms { eps: keys.positive_or("rms_norm_eps", 1e-5)? as f32, ..llama.norms };
    Ok(Blueprint { norms, qk_norm: QkNorm::Full, experts: Some(experts), ..llama })
}

/// Reads the number of experts and of those a token passes, with defaults.
pub(super) fn experts(keys: &Keys<'_>, names: &[(&str, &str)], defaults: [usize; 2]) -> Result<Experts> {
    let [count, used] = defaults.map(|number| number as f64);
    let completed = keys.completed(names, &[("num_experts", count), ("num_experts_per_tok", used)]);
    let keys = &Keys::new(&completed);
    let count = keys.count("num_experts", MOST_EXPERTS)?;
    let used = keys.count("num_experts_per_tok", count)?;
    Ok(Experts { count, used, normalized: keys.flag_or("norm_topk_prob", false)?, bias: false })
}
