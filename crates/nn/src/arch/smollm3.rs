//! SmolLM3: Llama whose every fourth layer rotates nothing (NoPE, arXiv 2501.18795).

use super::{Blueprint, blueprint, keys::Keys, llama};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let completed = keys.completed(&[], &[("rope_theta", 2e6)]);
    let keys = &Keys::new(&completed);
    let mut blueprint = Blueprint { tied: keys.flag_or("tie_word_embeddings", true)?, ..llama::parse(keys)? };
    let interval = keys.count_or("no_rope_layer_interval", 4096, 4)?;
    // The list has a 1 for each layer that rotates.
    let rotating = match keys.get("no_rope_layers") {
        None => (0..blueprint.layers.len()).map(|layer| (layer + 1) % interval != 0).collect(),
        Some(list) => {
            let flags: Option<Vec<_>> = list.as_array().and_then(|list| list.iter().map(flag).collect());
            flags.filter(|flags| flags.len() == blueprint.layers.len()).ok_or_else(|| {
                keys.fault("no_rope_layers", &format!("a list of {} numbers, 0 or 1", blueprint.layers.len()))
            })?
        }
    };
    if keys.flag_or("use_sliding_window", false)? {
        let window = blueprint::window(keys, 4096)?;
        blueprint.set_windows(keys, window, |layer| rotating[layer])?;
    }
    blueprint.set_ropes(|layer, _| rotating[layer].then_some(0));
    Ok(blueprint)
}

fn flag(value: &serde_json::Value) -> Option<bool> {
    value.as_bool().or(value.as_u64().filter(|number| *number < 2).map(|number| number == 1))
}
