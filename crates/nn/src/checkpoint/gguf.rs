//! GGUF files in the normal form of checkpoints: Hugging Face config keys and tensor names, and a
//! tokenizer built from the vocabulary in the file.

mod architecture;
mod byte_level;
mod config;
mod container;
mod export;
mod metadata;
mod sentence_piece;
mod tokens;
mod vocabulary;
mod vocabulary_entries;
mod writer;

use std::path::Path;

use super::Checkpoint;
use super::bytes::Bytes;
use super::weights::Weights;
use crate::error::{Error, Result};
use architecture::Architecture;
use metadata::Metadata;

/// Returns true if the bytes begin like a GGUF file.
pub(super) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(container::MAGIC)
}

/// Opens a GGUF file.
pub(super) fn open(path: &Path, bytes: &Bytes) -> Result<Checkpoint> {
    let file = path.display().to_string();
    let container = container::parse(&file, bytes)?;
    let metadata = Metadata::new(&file, container.metadata);
    if metadata.unsigned("split.count")?.is_some_and(|count| count > 1) {
        return Err(Error::Refused {
            file,
            reason: "it is one of several parts",
            hint: "join the parts with `llama-gguf-split --merge`",
        });
    }
    let architecture = Architecture::of(&metadata)?;
    let tensors = container.tensors.into_iter().map(|tensor| {
        let name = architecture.tensor_name(&tensor.name);
        tensor.renamed(name)
    });
    let weights = Weights::new(&file, tensors);
    let config = config::config(&metadata, architecture, &weights)?;
    let vocabulary = vocabulary::read(&metadata, architecture)?;
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Checkpoint {
        name,
        config,
        weights,
        tokenizer: vocabulary.tokenizer,
        chat_template: metadata.string("tokenizer.chat_template")?.map(str::to_owned),
        special: vocabulary.special,
        end_tokens: vocabulary.end_tokens,
        add_bos: vocabulary.add_bos,
        generation_config: serde_json::Map::new(),
    }
    .checked(&file)
}

#[cfg(test)]
mod tests;
