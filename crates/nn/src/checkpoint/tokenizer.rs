//! Reading a tokenizer from an untrusted file.

use tokenizers::Tokenizer;

use crate::error::{Error, Result};

/// Parses a `tokenizer.json`.
pub(super) fn parse(file: &str, json: &[u8]) -> Result<Tokenizer> {
    wsd_core::check_tokenizer(file, json)?;
    guarded(file, || {
        Tokenizer::from_bytes(json).map_err(|error| Error::Tokenizer { file: file.into(), reason: error.to_string() })
    })
}

/// Runs `read`, which builds a tokenizer, and turns a panic into an error: crafted files make the
/// `tokenizers` crate panic. Disables truncation and padding, which some files enable.
pub(super) fn guarded(file: &str, read: impl FnOnce() -> Result<Tokenizer>) -> Result<Tokenizer> {
    let fault = |reason: String| Error::Tokenizer { file: file.into(), reason };
    // A panic drops the tokenizer under construction, so no half-built state is observable.
    let mut tokenizer =
        wsd_core::guard(read).map_err(|panic| fault(format!("the tokenizer library failed on it: {panic}")))??;
    tokenizer.with_truncation(None).map_err(|error| fault(error.to_string()))?.with_padding(None);
    Ok(tokenizer)
}
