//! Options for loading a model.

use std::path::PathBuf;

use wsd_core::TemplateVariables;

use crate::checkpoint::TemplateChoice;
use crate::device::Device;
use crate::format::Format;
use crate::kernels::KvFormat;

/// Options for loading a checkpoint.
///
/// ```
/// use wsd_nn::{Device, LoadOptions};
///
/// let options = LoadOptions { device: Device::Cpu, max_len: Some(2048), ..LoadOptions::new("draft") };
/// assert_eq!(options.prefix_cache_tokens, LoadOptions::PREFIX_CACHE_TOKENS);
/// ```
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The model's name for messages and listings.
    pub name: String,
    /// The number of threads; by default one per core.
    pub threads: Option<usize>,
    /// The device to compute on.
    pub device: Device,
    /// The format to compute with matrices in. By default a CPU keeps that of the file, and a
    /// candle device chooses F32, F16 or BF16.
    pub dtype: Option<Format>,
    /// The number format of cached keys and values. By default a CPU caches half precision,
    /// and a GPU the type of activations.
    pub kv_dtype: Option<KvFormat>,
    /// The template for conversations.
    pub template: TemplateChoice,
    /// Variables for a chat template, where a prompt does not set them.
    pub template_variables: TemplateVariables,
    /// Folders of LoRA adapters in PEFT's form, all added to the model; see [`crate::Adapter::open`].
    pub adapters: Vec<PathBuf>,
    /// The folder of a draft head for the model; see [`crate::DraftHead::open`].
    pub draft_head: Option<PathBuf>,
    /// The context length in tokens, if shorter than the model's.
    pub max_len: Option<usize>,
    /// The number of sessions that may be open at once; further ones wait.
    pub max_sessions: usize,
    /// Capacity of the prefix cache: tokens of ended sessions whose KV caches are kept for later
    /// sessions with a common prefix. With 0, open sessions share nothing either.
    pub prefix_cache_tokens: usize,
}

impl LoadOptions {
    /// The default of [`LoadOptions::prefix_cache_tokens`].
    pub const PREFIX_CACHE_TOKENS: usize = 4096;

    /// Returns the defaults for a model of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            threads: None,
            device: Device::default(),
            dtype: None,
            kv_dtype: None,
            adapters: Vec::new(),
            draft_head: None,
            template: TemplateChoice::Own,
            template_variables: TemplateVariables::default(),
            max_len: None,
            max_sessions: 64,
            prefix_cache_tokens: Self::PREFIX_CACHE_TOKENS,
        }
    }
}
