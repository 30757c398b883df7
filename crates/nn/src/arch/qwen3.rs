//! Qwen 3: a norm on every query and key head, no biases unless the file asks for them.

use super::{Blueprint, QkNorm, keys::Keys, qwen2};
use crate::error::Result;

pub(super) fn parse(keys: &Keys<'_>) -> Result<Blueprint> {
    let bias = keys.flag_or("attention_bias", false)?;
    let mut blueprint =
        Blueprint { qk_norm: QkNorm::PerHead, qkv_bias: bias, output_bias: bias, ..Blueprint::skeleton(keys)? };
    qwen2::set_windows(&mut blueprint, keys)?;
    Ok(blueprint)
}
