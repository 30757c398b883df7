//! Llama 1 to 3, and the architectures that equal it.

use super::{Blueprint, keys::Keys};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let bias = keys.flag_or("attention_bias", false)?;
    Ok(Blueprint {
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: keys.flag_or("mlp_bias", false)?,
        ..Blueprint::skeleton(keys)?
    })
}
