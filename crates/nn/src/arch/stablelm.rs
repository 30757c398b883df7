//! StableLM: Llama with LayerNorms and a rotation of a part of each head.

use super::{Blueprint, Norms, blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    if keys.flag_or("qk_layernorm", false)? {
        return Err(keys.fault("qk_layernorm", "false: norms with a weight for each head are not supported"));
    }
    let completed = keys.completed(&[], &[("partial_rotary_factor", 0.25)]);
    let keys = &Keys::new(&completed);
    let skeleton = Blueprint::skeleton(keys)?;
    let norms = blueprint::layer_norms(keys, "layer_norm_eps", skeleton.norms)?;
    let parallel = keys.flag_or("use_parallel_residual", false)?;
    // In the parallel form one norm serves both parts.
    let pre_mlp = if parallel { norms.pre_attention } else { norms.pre_mlp };
    let norms = Norms { pre_mlp, ..norms };
    Ok(Blueprint { norms, parallel, qkv_bias: keys.flag_or("use_qkv_bias", false)?, ..skeleton })
}
