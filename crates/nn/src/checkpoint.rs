//! Checkpoints: a Hugging Face folder of safetensors, on disk or embedded in the program, or a GGUF
//! file.
//!
//! All containers yield one form: a config with Hugging Face keys, tensors with Hugging Face names,
//! and a tokenizer. Weights are mapped, never copied. Nothing in the files is trusted.

mod added_tokens;
mod bytes;
mod config;
mod factors;
mod folder;
mod gguf;
mod json;
mod mxfp4;
mod names;
mod refusals;
mod safetensors;
mod sampling;
mod special;
mod standard;
mod tensor;
mod text;
mod tokenizer;
mod weights;

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

pub use gguf::gguf_parts;
pub use names::Spelling;
pub use special::SpecialTokens;
pub use tensor::Tensor;
pub use text::TemplateChoice;
pub use weights::Weights;

pub(crate) use config::text_tensor_name;

use crate::arch::{Head, layer_module};
use crate::error::{Error, Result};
use crate::format::Format;
use bytes::Bytes;

/// A model as its files describe it.
///
/// # Examples
/// ```
/// # use std::path::Path;
/// use wsd_nn::{Checkpoint, arch};
///
/// let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
/// let checkpoint = Checkpoint::open(&path)?;
/// let blueprint = arch::blueprint(&checkpoint.config)?;
/// let embedding = checkpoint.weights.get("model.embed_tokens.weight").expect("a tensor");
/// assert_eq!(embedding.shape, [blueprint.vocab, blueprint.hidden]);
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The name of the folder or file, without its path.
    pub name: String,
    /// The config with Hugging Face keys; of several models, the keys of the text model. GGUF files
    /// add three keys:
    ///
    /// - `wsd_rope_interleaved` (true): RoPE rotates adjacent pairs of q and k, not halves.
    /// - `wsd_norm_offset_folded` (true): norm weights include the offset 1 of Gemma.
    /// - `wsd_rope_factors` (numbers): divisors of the RoPE frequencies, one per pair.
    pub config: Map<String, Value>,
    /// All tensors.
    pub weights: Weights,
    /// The tokenizer, without truncation and padding.
    pub tokenizer: Tokenizer,
    /// The Jinja source of the default chat template.
    pub chat_template: Option<String>,
    /// The special tokens, as text.
    pub special: SpecialTokens,
    /// The tokens that end an answer, ascending: those named in config, generation config and
    /// tokenizer, and well-known ones.
    pub end_tokens: Vec<u32>,
    /// The content of `generation_config.json`, or its keys for the `general.sampling` keys of a
    /// GGUF file.
    pub generation_config: Map<String, Value>,
    /// The decision to begin a text with BOS, if a file states it outside of the tokenizer itself.
    pub add_bos: Option<bool>,
    /// Faults of the files that were passed over, as sentences that name the file and the key.
    pub warnings: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder with `config.json`, `tokenizer.json` and safetensors, or a GGUF file.
    ///
    /// # Errors
    /// Files that are missing, refused, damaged or of an unsupported kind; the error names the file
    /// and its key, tensor or part.
    pub fn open(path: &Path) -> Result<Self> {
        if fs_err::metadata(path)?.is_dir() {
            return folder::open(path);
        }
        refusals::refuse_pickle(path)?;
        let bytes = Bytes::map(path)?;
        if gguf::is_gguf(&bytes) {
            return gguf::open(path, &bytes);
        }
        Err(refusals::unknown_content(path, &bytes))
    }

    /// Opens a checkpoint for its tokenizer: a folder, whose weights may be absent, or a GGUF file.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub fn open_text(path: &Path) -> Result<Self> {
        if fs_err::metadata(path)?.is_dir() { folder::open_text(path) } else { Self::open(path) }
    }

    /// Opens a folder embedded in the program, as pairs of a file name and the bytes from
    /// `include_bytes!`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub fn from_bytes(name: &str, files: &[(&str, &'static [u8])]) -> Result<Self> {
        folder::open_embedded(name, files)
    }

    /// Makes a checkpoint of a config, tensors and a tokenizer alone.
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
            warnings: Vec::new(),
        }
    }

    /// Makes a model without weights: a configuration with Hugging Face keys and the tokenizer in
    /// `folder`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`] for the files of the tokenizer.
    pub fn untrained(config: Map<String, Value>, folder: &Path) -> Result<Self> {
        folder::untrained(folder, config)
    }

    /// Converts the matrices to another format, in new memory. Vectors stay as they are, and so do
    /// matrices whose rows are not a multiple of the format's block.
    ///
    /// # Errors
    /// [`Error::Quantize`] for a format that can be read but not written.
    ///
    /// # Examples
    /// ```
    /// # use std::path::Path;
    /// use wsd_nn::{Checkpoint, Format};
    ///
    /// let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    /// let checkpoint = Checkpoint::open(&path)?;
    /// let bytes = checkpoint.weights.total_bytes();
    /// let smaller = checkpoint.with_matrices_in(Format::Q8_0)?;
    /// assert!(smaller.weights.total_bytes() < bytes);
    /// # Ok::<_, wsd_nn::Error>(())
    /// ```
    pub fn with_matrices_in(mut self, format: Format) -> Result<Self> {
        self.weights = self.weights.with_matrices_in(format)?;
        Ok(self)
    }

    /// Copies the weights into memory of their own. Mapped weights follow every change of their
    /// file, and a file that becomes shorter ends the process at the next access.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.weights = self.weights.in_memory();
        self
    }

    /// Completes a checkpoint of any container: checks the number of layers and collects the end
    /// tokens. `file` names the source of the config in messages.
    fn checked(self, file: &str) -> Result<Self> {
        // A layer has several tensors. Without this check a hostile number of layers would make the reader list names
        // without end.
        let (layers, tensors) =
            (self.config.get("num_hidden_layers").and_then(Value::as_u64), self.weights.names().count());
        if let Some(layers) = layers.filter(|&layers| layers > tensors as u64) {
            let reason = format!("must be at most {tensors}, the number of tensors, got {layers}");
            return Err(Error::malformed(file, "key `num_hidden_layers`", reason));
        }
        let layer = |name: &str| layer_module(name).map_or(0, |(layer, _)| layer as u64);
        if let Some((name, layers)) =
            layers.and_then(|layers| Some((self.weights.names().find(|name| layer(name) >= layers)?, layers)))
        {
            let reason = format!("must be of a layer below `num_hidden_layers` = {layers}");
            return Err(Error::malformed(file, format!("tensor `{name}`"), reason));
        }
        Ok(self.with_own_head().with_end_tokens())
    }

    /// Gives precedence to a stored vocabulary head that differs from the embedding, whatever
    /// `tie_word_embeddings` states.
    fn with_own_head(mut self) -> Self {
        let tied = "tie_word_embeddings";
        let [head, embedding] =
            [&Head::VOCABULARY.weight(), "model.embed_tokens.weight"].map(|name| self.weights.get(name));
        let differs = |(head, embedding): (&Tensor, &Tensor)| {
            (head.format, &head.shape) != (embedding.format, &embedding.shape) || head.bytes() != embedding.bytes()
        };
        let untied = self.config.get(tied) == Some(&Value::Bool(false));
        if !untied && head.zip(embedding).is_some_and(differs) {
            self.config.insert(tied.into(), false.into());
        }
        self
    }

    fn with_end_tokens(mut self) -> Self {
        let configs = [&self.config, &self.generation_config];
        self.end_tokens = special::end_tokens(&self.tokenizer, &self.special, configs, self.end_tokens);
        self
    }
}

/// Reads a small file of JSON, as Python writes it.
///
/// # Errors
/// A file that is missing or damaged; the error names the file.
///
/// # Examples
/// ```
/// # use std::path::Path;
/// let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama/config.json");
/// let config: serde_json::Map<String, serde_json::Value> = wsd_nn::read_json(&path)?;
/// assert_eq!(config["hidden_size"], 32);
/// # Ok::<_, wsd_nn::Error>(())
/// ```
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = wsd_core::Input::DESCRIPTION.read(path)?;
    json::parse(&bytes).map_err(|error| Error::malformed(&path.display().to_string(), "JSON", error.to_string()))
}

/// Reads all tensors of a safetensors file.
///
/// # Errors
/// A file that is missing or damaged; the error names the file and the tensor.
pub(crate) fn read_safetensors(path: &Path) -> Result<Vec<Tensor>> {
    let file = path.display().to_string();
    safetensors::read(&file, &Bytes::map(path)?)?.all(&file)
}

#[cfg(test)]
mod tests;
