//! GGUF files in the normal form of checkpoints: Hugging Face config keys and tensor names, and a
//! tokenizer built from the vocabulary in the file.

mod architecture;
mod byte_level;
mod config;
mod container;
mod export;
mod metadata;
mod sampling;
mod sentence_piece;
mod split;
mod tokens;
mod vocabulary;
mod vocabulary_entries;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;

use super::Checkpoint;
use super::bytes::Bytes;
use super::weights::Weights;
use crate::arch::{self, Blueprint};
use crate::error::{Error, Result};
use architecture::Architecture;
use metadata::Metadata;
use split::Split;

pub use split::gguf_parts;

/// Returns true if the bytes begin like a GGUF file.
pub(super) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(container::MAGIC)
}

/// Opens a GGUF file.
pub(super) fn open(path: &Path, bytes: &Bytes) -> Result<Checkpoint> {
    let file = path.display().to_string();
    let container = container::parse(&file, bytes)?;
    let metadata = Metadata::new(&file, container.metadata);
    let mut parts = Vec::new();
    if let Some(split) = Split::of(&metadata, path)? {
        if let Some(first) = split.other_first() {
            return open(first, &Bytes::map(first)?);
        }
        parts = split.others()?;
    }
    if metadata.string("general.type")? == Some("adapter") {
        return Err(Error::Unsupported {
            file,
            what: "kind (`general.type`)".into(),
            found: "adapter".into(),
            supported: "a model; an adapter is a folder in PEFT's layout, applied with --adapter FOLDER".into(),
        });
    }
    let architecture = Architecture::of(&metadata)?;
    let tensors = container.tensors.into_iter().chain(parts).flat_map(|tensor| {
        if let Some(name) = Architecture::expert_name(&tensor.name) {
            let experts = tensor.divided().into_iter().enumerate();
            return experts.map(|(expert, part)| part.renamed(name(expert))).collect();
        }
        let name = architecture.tensor_name(&tensor.name);
        vec![tensor.renamed(name)]
    });
    let unread = container.unread.into_iter().map(|(name, reason)| (architecture.tensor_name(&name), reason));
    let weights = Weights::new(&file, tensors).with_unread(unread.collect());
    let config = config::config(&metadata, architecture, &weights)?;
    let vocabulary = vocabulary::read(&metadata, architecture)?;
    let name = split::model_name(path);
    Checkpoint {
        name,
        config,
        weights,
        tokenizer: vocabulary.tokenizer,
        chat_template: metadata.string("tokenizer.chat_template")?.map(str::to_owned),
        special: vocabulary.special,
        end_tokens: vocabulary.end_tokens,
        add_bos: vocabulary.add_bos,
        generation_config: sampling::generation_config(&metadata)?,
        warnings: metadata.ignored_token_ids()?,
    }
    .checked(&file)
    .and_then(|checkpoint| refuse_unknown(&file, &checkpoint).map(|()| checkpoint))
}

/// Refuses tensors that the model does not read, whose meaning would be lost: a file of another
/// architecture, or a damaged name.
fn refuse_unknown(file: &str, checkpoint: &Checkpoint) -> Result<()> {
    // An architecture that cannot be run is refused where the model is loaded.
    let Ok(blueprint) = arch::blueprint(&checkpoint.config) else { return Ok(()) };
    let read = read_tensors(checkpoint, blueprint);
    let is_read = |name: &&str| read.contains(*name) || architecture::is_outside_layers(name);
    let unknown: Vec<_> = checkpoint.weights.names().filter(|name| !is_read(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let problems = unknown.iter().map(|name| format!("`{name}` is no tensor of this architecture")).collect();
    Err(Error::Tensors { file: file.into(), problems })
}

/// Returns the names of the tensors that the model reads.
fn read_tensors(checkpoint: &Checkpoint, blueprint: Blueprint) -> BTreeSet<String> {
    let shape = |name: &str| checkpoint.weights.get(name).map(|tensor| tensor.shape.as_slice());
    arch::tensors(&blueprint.with_heads(shape)).into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests;
