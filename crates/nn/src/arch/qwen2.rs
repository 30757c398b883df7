//! Qwen 2 and 2.5: biases on queries, keys and values; with `use_sliding_window`, a window on the
//! upper layers.

use super::{Blueprint, blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut blueprint = Blueprint { qkv_bias: true, ..Blueprint::skeleton(keys)? };
    set_windows(&mut blueprint, keys)?;
    Ok(blueprint)
}

/// Gives the layers from `max_window_layers` on a window, if `use_sliding_window` is set.
pub(super) fn set_windows(blueprint: &mut Blueprint, keys: &Keys<'_>) -> Result<()> {
    let used = keys.flag_or("use_sliding_window", false)?;
    let window = if used { blueprint::window(keys, 4096)? } else { None };
    let full_layers = if used { keys.whole_or("max_window_layers", 28)? } else { 0 };
    blueprint.set_windows(keys, window, |layer| layer >= full_layers)
}
