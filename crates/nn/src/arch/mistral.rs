//! Mistral: Llama with a sliding window on every layer, unless the file says null.

use super::{Blueprint, blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn plan(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut plan = Blueprint::skeleton(keys)?;
    plan.set_windows(keys, blueprint::window(keys, 4096)?, |_| true)?;
    Ok(plan)
}
