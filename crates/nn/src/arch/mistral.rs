//! Mistral: Llama with a sliding window on every layer, unless the file says null.

use super::{Blueprint, blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let mut blueprint = Blueprint::skeleton(keys)?;
    blueprint.set_windows(keys, blueprint::window(keys, 4096)?, |_| true)?;
    Ok(blueprint)
}
