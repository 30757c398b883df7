//! Checkpoints: a Hugging Face folder of safetensors, the same embedded in the program, or a GGUF file.
//!
//! Whatever the container, what comes out has one form: a config with Hugging Face keys, tensors with Hugging Face names,
//! a tokenizer. Weights are mapped, never copied. Nothing in these files is trusted.

mod bytes;
mod config;
mod folder;
mod gguf;
mod safetensors;
mod special;
mod text;
mod tokenizer;
mod weights;

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

pub use special::SpecialTokens;
pub use text::TemplateChoice;
pub use weights::{Tensor, Weights};

use crate::error::{Error, Result};
use crate::format::Format;
use bytes::Bytes;

/// Everything a checkpoint says about a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The folder's or file's name, without the path.
    pub name: String,
    /// The config with Hugging Face keys, those of the text model where there are several. GGUF files add keys of their own:
    ///
    /// - `wsd_rope_interleaved` (true): RoPE turns adjacent pairs of q and k, not the halves of a head.
    /// - `wsd_norm_offset_folded` (true): norm weights have Gemma's 1 in them already.
    /// - `wsd_rope_factors` (numbers): divisors of the RoPE frequencies, half a head of them.
    pub config: Map<String, Value>,
    /// All tensors.
    pub weights: Weights,
    /// The tokenizer, without truncation and padding.
    pub tokenizer: Tokenizer,
    /// The Jinja source of the default chat template.
    pub chat_template: Option<String>,
    /// The tokens with a role, as text.
    pub special: SpecialTokens,
    /// Tokens that end an answer, ascending: all that config, generation config and tokenizer name, and well-known ones.
    pub end_tokens: Vec<u32>,
    /// `generation_config.json`, or empty.
    pub generation_config: Map<String, Value>,
    /// Whether a text begins with BOS, where the files say so outside of the tokenizer itself.
    pub add_bos: Option<bool>,
}

impl Checkpoint {
    /// Opens a folder with `config.json`, `tokenizer.json` and safetensors, or a GGUF file.
    ///
    /// # Errors
    /// Files that are missing, refused, damaged or of a kind that is not implemented; the error names the file and the
    /// key, tensor or part of it.
    pub fn open(path: &Path) -> Result<Self> {
        if fs_err::metadata(path)?.is_dir() {
            return folder::open(path);
        }
        folder::refuse_pickle(path)?;
        let bytes = Bytes::map(path)?;
        if gguf::is_gguf(&bytes) {
            return gguf::open(path, &bytes);
        }
        Err(Error::Unsupported {
            file: path.display().to_string(),
            what: "checkpoint file".into(),
            found: path.extension().unwrap_or_default().to_string_lossy().into_owned(),
            supported: "a GGUF file, or the folder that has config.json, tokenizer.json and *.safetensors".into(),
        })
    }

    /// Opens the text side alone: a folder without its weights, which need not be there, or a GGUF file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_text(path: &Path) -> Result<Self> {
        if fs_err::metadata(path)?.is_dir() { folder::open_text(path) } else { Self::open(path) }
    }

    /// Opens a folder embedded in the program, as pairs of a file name and the bytes from `include_bytes!`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(name: &str, files: &[(&str, &'static [u8])]) -> Result<Self> {
        folder::open_embedded(name, files)
    }

    /// A checkpoint of a config, tensors and a tokenizer, and nothing else.
    pub(crate) fn bare(name: &str, config: Map<String, Value>, tensors: Vec<Tensor>, tokenizer: Tokenizer) -> Self {
        Self {
            name: name.into(),
            config,
            weights: Weights::new("memory", tensors),
            tokenizer,
            chat_template: None,
            special: SpecialTokens::default(),
            end_tokens: Vec::new(),
            generation_config: Map::new(),
            add_bos: None,
        }
    }

    /// A model that is yet to be trained: a configuration with Hugging Face keys, and the tokenizer in `folder`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], of the tokenizer's files.
    pub fn untrained(config: Map<String, Value>, folder: &Path) -> Result<Self> {
        folder::untrained(folder, config)
    }

    /// The same checkpoint with its matrices written in another format, in memory of their own. Vectors stay, and so do
    /// matrices whose rows are no whole number of the format's blocks.
    ///
    /// # Errors
    /// [`Error::Quantize`] for a format that can be read but not written.
    pub fn with_matrices_in(mut self, format: Format) -> Result<Self> {
        self.weights = self.weights.with_matrices_in(format)?;
        Ok(self)
    }

    /// What holds for all containers: sizes that the tensors bear out, and every token that ends a text. `file` is where the
    /// config came from, for messages.
    fn checked(self, file: &str) -> Result<Self> {
        // A layer has several tensors. A config that says otherwise would have its reader list names without end.
        let (layers, tensors) =
            (self.config.get("num_hidden_layers").and_then(Value::as_u64), self.weights.names().count());
        if let Some(layers) = layers.filter(|&layers| layers > tensors as u64) {
            let reason = format!("must be at most the {tensors} tensors there are, given: {layers}");
            return Err(Error::malformed(file, "key `num_hidden_layers`", reason));
        }
        Ok(self.with_end_tokens())
    }

    fn with_end_tokens(mut self) -> Self {
        let configs = [&self.config, &self.generation_config];
        self.end_tokens = special::end_tokens(&self.tokenizer, &self.special, configs, self.end_tokens);
        self
    }
}

#[cfg(test)]
mod tests;
