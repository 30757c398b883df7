//! Gemma 3, text only (arXiv 2503.19786): Gemma 2 with norms on queries and keys in place of the
//! soft caps, five sliding layers to each full one, and a separate rotary embedding on the sliding
//! layers.

use super::{Blueprint, QkNorm, blueprint, gemma2, keys::Keys, rope::RopePlan};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    // A text model that is one part of several omits the keys that have the default of its class.
    let completed = keys.completed(
        &[],
        &[
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("vocab_size", 262_208.0),
            ("max_position_embeddings", 131_072.0),
        ],
    );
    let keys = &Keys::new(&completed);
    let family = gemma2::family(keys)?;
    let full = RopePlan::parse(keys, family.head_dim, "full_attention", 1e6)?;
    let sliding = match keys.section("rope_parameters")? {
        Some(nested) if nested.has("sliding_attention") => {
            RopePlan::parse(keys, family.head_dim, "sliding_attention", 1e4)?
        }
        _ => full.plain(keys.positive_or("rope_local_base_freq", 1e4)?),
    };
    let mut blueprint = Blueprint {
        ropes: vec![full, sliding],
        qk_norm: QkNorm::PerHead,
        attention_softcap: gemma2::softcap(keys, "attn_logit_softcapping", None)?,
        final_softcap: gemma2::softcap(keys, "final_logit_softcapping", None)?,
        ..family
    };
    let pattern_key =
        if keys.has("sliding_window_pattern") { "sliding_window_pattern" } else { "_sliding_window_pattern" };
    let pattern = keys.count_or(pattern_key, 4096, 6)?;
    blueprint.set_windows(keys, blueprint::window(keys, 4096)?, |layer| (layer + 1) % pattern != 0)?;
    blueprint.set_ropes(|_, window| Some(usize::from(window.is_some())));
    Ok(blueprint)
}
