//! Training of tokenizers: byte-level BPE.

use std::path::Path;

use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer, TokenizerBuilder,
};
use wsd_core::files::write_folder;

use crate::error::{Error, Result};

/// The options of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabularyOptions {
    /// The number of entries, including special tokens and 256 bytes.
    pub size: usize,
    /// The special tokens; they get the first ids.
    pub special: Vec<String>,
    /// The special token that begins a text.
    pub bos: Option<String>,
    /// The special token that ends a text.
    pub eos: String,
    /// The special token that pads a batch.
    pub pad: Option<String>,
    /// The chat template, in Jinja.
    pub chat_template: Option<String>,
    /// The number of positions of models with this tokenizer.
    pub model_max_length: usize,
}

/// Trains a tokenizer on texts and writes `tokenizer.json` and `tokenizer_config.json` into a
/// folder.
///
/// # Errors
/// A `bos`, `eos` or `pad` that is no special token; a size below 256 plus the special tokens;
/// those of the file system.
pub fn train_tokenizer(options: &VocabularyOptions, texts: &[String], folder: &Path) -> Result<Tokenizer> {
    let least = 256 + options.special.len();
    if options.size < least {
        return Err(Error::setting("vocab_size", format!("at least {least}"), options.size));
    }
    let roles = [options.bos.as_ref(), Some(&options.eos), options.pad.as_ref()];
    if let Some(role) = roles.into_iter().flatten().find(|role| !options.special.contains(role)) {
        let limit = format!("one of the special tokens: {}", options.special.join(", "));
        return Err(Error::setting("bos, eos or pad", limit, role));
    }
    let tokenizer = trained(options, texts)
        .map_err(|error| Error::Tokenizer { file: "training".into(), reason: error.to_string() })?;
    let json = tokenizer
        .to_string(true)
        .map_err(|error| Error::Tokenizer { file: "training".into(), reason: error.to_string() })?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
        "add_bos_token": false, "add_eos_token": false, "model_max_length": options.model_max_length,
        "bos_token": options.bos, "eos_token": options.eos, "pad_token": options.pad,
        "chat_template": options.chat_template,
    });
    let config = config.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let config: serde_json::Map<_, _> = config.map(|(key, value)| (key.clone(), value.clone())).collect();
    write_folder(folder, |folder| -> Result<()> {
        fs_err::write(folder.join("tokenizer.json"), json)?;
        let config = serde_json::to_string_pretty(&config).unwrap_or_default() + "\n";
        Ok(fs_err::write(folder.join("tokenizer_config.json"), config)?)
    })?;
    Ok(tokenizer)
}

fn trained(options: &VocabularyOptions, texts: &[String]) -> tokenizers::Result<Tokenizer> {
    let bytes = || ByteLevel::new(false, true, true);
    let special = || options.special.iter().map(|token| AddedToken::from(token.as_str(), true));
    let mut tokenizer = TokenizerBuilder::<
        ModelWrapper,
        tokenizers::NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
    .with_model(BPE::default().into())
    .with_normalizer(None)
    .with_pre_tokenizer(Some(bytes().into()))
    .with_post_processor(None)
    .with_decoder(Some(bytes().into()))
    .build()?;
    let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
        .vocab_size(options.size)
        .show_progress(false)
        .special_tokens(special().collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build()
        .into();
    tokenizer.train(&mut trainer, texts.iter().map(String::as_str))?;
    Ok(tokenizer.into())
}
