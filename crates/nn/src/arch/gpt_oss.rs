//! gpt-oss (arXiv 2508.10925): experts with biases and a clamped activation, attention sinks, and a
//! sliding window on every other layer.

use super::experts::experts;
use super::{Activation, Blueprint, Experts, Norms, blueprint, keys::Keys};
use crate::error::Result;

/// Constants of the activation, with the only values that are supported.
const CONSTANTS: [(&str, f64); 2] = [("swiglu_limit", 7.0), ("swiglu_alpha", 1.702)];

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    for (key, value) in CONSTANTS {
        if keys.positive_or(key, value)? != value {
            return Err(keys.fault(key, &value.to_string()));
        }
    }
    let completed = keys.completed(&[], &[("rope_theta", 150_000.0), ("head_dim", 64.0)]);
    let keys = &Keys::new(&completed);
    let experts = experts(keys, &[("num_experts", "num_local_experts")], [128, 4])?;
    let skeleton = Blueprint::skeleton(keys)?;
    let bias = keys.flag_or("attention_bias", true)?;
    let mut blueprint = Blueprint {
        norms: Norms { eps: keys.positive_or("rms_norm_eps", 1e-5)? as f32, ..skeleton.norms },
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: true,
        sinks: true,
        experts: Some(Experts { normalized: true, bias: true, ..experts }),
        activation: Activation::ClampedSilu,
        ..skeleton
    };
    blueprint.set_windows(keys, blueprint::window(keys, 128)?, |layer| layer % 2 == 0)?;
    Ok(blueprint)
}
