//! OLMo 3: OLMo 2 with a sliding window on three of four layers. A scaling of the rotary embedding is
//! for the other layers only.

use super::{Blueprint, blueprint, keys::Keys, olmo2, rope::RopePlan};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let completed = keys.completed(&[], &[("rope_theta", 5e5)]);
    let keys = &Keys::new(&completed);
    let olmo2 = olmo2::parse(keys)?;
    let full = olmo2.ropes[0].clone();
    let sliding = match keys.section("rope_parameters")? {
        Some(nested) if nested.has("sliding_attention") => {
            RopePlan::parse(keys, olmo2.head_dim, "sliding_attention", full.theta)?
        }
        _ => full.plain(full.theta),
    };
    let mut blueprint = Blueprint { ropes: vec![full, sliding], ..olmo2 };
    blueprint.set_windows(keys, blueprint::window(keys, 4096)?, |layer| (layer + 1) % 4 != 0)?;
    blueprint.set_ropes(|_, window| Some(usize::from(window.is_some())));
    Ok(blueprint)
}
