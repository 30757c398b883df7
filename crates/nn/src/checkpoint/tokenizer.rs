//! Reading a tokenizer from a stranger's file.

use tokenizers::Tokenizer;

use crate::{Error, Result};

/// A `tokenizer.json`.
pub(super) fn parse(file: &str, json: &[u8]) -> Result<Tokenizer> {
    guarded(file, || {
        Tokenizer::from_bytes(json).map_err(|error| Error::Tokenizer { file: file.into(), reason: error.to_string() })
    })
}

/// Runs `read`, which builds a tokenizer: crafted files make the `tokenizers` crate panic, which becomes an error here.
/// Truncation and padding, which some files have left on, are turned off.
pub(super) fn guarded(file: &str, read: impl FnOnce() -> Result<Tokenizer>) -> Result<Tokenizer> {
    let fault = |reason: String| Error::Tokenizer { file: file.into(), reason };
    // A tokenizer that was being built when the panic came is dropped with it: nothing half-done can be seen.
    let mut tokenizer =
        wsd_core::guard(read).map_err(|panic| fault(format!("the tokenizer library gave up on it: {panic}")))??;
    tokenizer.with_truncation(None).map_err(|error| fault(error.to_string()))?.with_padding(None);
    Ok(tokenizer)
}
