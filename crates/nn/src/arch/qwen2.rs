//! Qwen 2 and 2.5: biases on queries, keys and values; a window on upper layers where `use_sliding_window` is set.

use super::{Blueprint, blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn plan(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut plan = Blueprint { qkv_bias: true, ..Blueprint::skeleton(keys)? };
    set_windows(&mut plan, keys)?;
    Ok(plan)
}

pub(super) fn set_windows(plan: &mut Blueprint, keys: &Keys<'_>) -> Result<()> {
    let used = keys.flag_or("use_sliding_window", false)?;
    let window = if used { blueprint::window(keys, 4096)? } else { None };
    let full_layers = if used { keys.whole_or("max_window_layers", 28)? } else { 0 };
    plan.set_windows(keys, window, |layer| layer >= full_layers)
}
