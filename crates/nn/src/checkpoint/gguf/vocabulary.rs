//! The tokenizer of a GGUF file, with the stages of the published `tokenizer.json`.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    models::bpe::BPE,
};

use super::architecture::Architecture;
use super::byte_level::Cut;
use super::metadata::Metadata;
use super::sentence_piece;
use super::tokens::{Kind, TokenTable, special};
use crate::checkpoint::special::SpecialTokens;
use crate::checkpoint::tokenizer::guarded;
use crate::error::{Error, Result};

/// The tokenizer of a file and the ids of its special tokens.
pub(super) struct Vocabulary {
    pub(super) tokenizer: Tokenizer,
    pub(super) special: SpecialTokens,
    pub(super) end_tokens: Vec<u32>,
    pub(super) add_bos: Option<bool>,
}

/// The parts of a tokenizer; all but the model are in the form of `tokenizer.json`.
struct Stages {
    model: BPE,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    /// Put BOS before a text if the file does not decide.
    add_bos: bool,
    /// Special tokens take in the white space that follows them.
    strip: bool,
}

/// Builds the tokenizer that the metadata describes.
pub(super) fn read(metadata: &Metadata<'_>, architecture: &Architecture) -> Result<Vocabulary> {
    let table = TokenTable::read(metadata)?;
    let id = |name: &str| special(metadata, name);
    let (bos, eos, pad) = (id("bos")?, id("eos")?, id("padding")?);
    let end_tokens = [eos, id("eot")?, id("eom")?].into_iter().flatten().collect();
    let reader = || -> Result<Tokenizer> {
        let stages = stages(metadata, &table, architecture)?;
        let flag = |key: &str| metadata.bool(&format!("tokenizer.ggml.{key}"));
        let first = bos.filter(|_| matches!(flag("add_bos_token"), Ok(add) if add.unwrap_or(stages.add_bos)));
        let last = eos.filter(|_| matches!(flag("add_eos_token"), Ok(Some(true))));
        let added = added(&table, [bos, eos, pad], stages.strip);
        assemble(metadata, &table, stages, [first, last], &added)
    };
    let tokenizer = guarded(metadata.file, reader)?;
    let token = |id: Option<u32>| id.map(|id| table.tokens[id as usize].to_owned());
    let special_tokens = SpecialTokens { bos: token(bos), eos: token(eos), pad: token(pad), unk: token(table.unknown) };
    let add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?;
    Ok(Vocabulary { tokenizer, special: special_tokens, end_tokens, add_bos })
}

fn stages(metadata: &Metadata<'_>, table: &TokenTable<'_>, architecture: &Architecture) -> Result<Stages> {
    let key = "tokenizer.ggml.model";
    match metadata.needed(key, metadata.string(key)?)? {
        "gpt2" => {
            let cut = Cut::of(metadata, architecture, table.tokens.len())?;
            Ok(Stages {
                model: cut.model(metadata, table)?,
                normalizer: cut.normalizer(),
                pre_tokenizer: cut.pre_tokenizer(),
                decoder: Cut::decoder(),
                add_bos: cut.add_bos,
                strip: false,
            })
        }
        "llama" => {
            let prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            Ok(Stages {
                model: sentence_piece::model(metadata, table)?,
                normalizer: sentence_piece::normalizer(prefix),
                pre_tokenizer: Value::Null,
                decoder: sentence_piece::decoder(prefix),
                add_bos: true,
                // As published with Phi-3; GGUF has no key for it.
                strip: architecture.name == "phi3",
            })
        }
        other => Err(Error::Unsupported {
            file: metadata.file.into(),
            what: "tokenizer model (`tokenizer.ggml.model`)".into(),
            found: other.into(),
            supported: "gpt2 (byte-level BPE), llama (SentencePiece BPE)".into(),
        }),
    }
}

/// Tokens matched in the raw text, before normalization and merges.
fn added(table: &TokenTable<'_>, named: [Option<u32>; 3], strip: bool) -> Vec<AddedToken> {
    let tokens = table.tokens.iter().zip(&table.kinds).enumerate().filter_map(|(id, (token, kind))| {
        let special = matches!(kind, Kind::Control | Kind::Unknown) || named.contains(&Some(id as u32));
        let strip = strip && !matches!(*token, "<unk>" | "<s>" | "<|endoftext|>");
        let token = AddedToken::from(*token, special).normalized(false).rstrip(strip);
        (special || *kind == Kind::UserDefined).then_some(token)
    });
    tokens.collect()
}

fn assemble(
    metadata: &Metadata<'_>,
    table: &TokenTable<'_>,
    stages: Stages,
    ends: [Option<u32>; 2],
    added: &[AddedToken],
) -> Result<Tokenizer> {
    let fault = |error: tokenizers::Error| Error::Tokenizer { file: metadata.file.into(), reason: error.to_string() };
    let mut tokenizer = Tokenizer::new(stages.model);
    tokenizer
        .with_normalizer(stage::<NormalizerWrapper>(metadata, stages.normalizer)?)
        .map_err(fault)?
        .with_pre_tokenizer(stage::<PreTokenizerWrapper>(metadata, stages.pre_tokenizer)?)
        .with_post_processor(stage::<PostProcessorWrapper>(metadata, post_processor(table, ends))?)
        .with_decoder(stage::<DecoderWrapper>(metadata, stages.decoder)?);
    tokenizer.add_tokens(added.iter().cloned()).map_err(fault)?;
    Ok(tokenizer)
}

fn stage<T: DeserializeOwned>(metadata: &Metadata<'_>, value: Value) -> Result<Option<T>> {
    serde_json::from_value(value)
        .map_err(|error| Error::Tokenizer { file: metadata.file.into(), reason: error.to_string() })
}

/// A post-processor that puts `first` before and `last` after a text.
fn post_processor(table: &TokenTable<'_>, [first, last]: [Option<u32>; 2]) -> Value {
    if first.or(last).is_none() {
        return Value::Null;
    }
    let token = |id: u32| table.tokens[id as usize];
    let special = |id: u32, type_id: u8| json!({"SpecialToken": {"id": token(id), "type_id": type_id}});
    let text = |name: &str, type_id: u8| {
        let text = json!({"Sequence": {"id": name, "type_id": type_id}});
        let ends = |id: Option<u32>| id.map(|id| special(id, type_id));
        ends(first).into_iter().chain([text]).chain(ends(last)).collect::<Vec<_>>()
    };
    let named = |id: u32| (token(id).to_owned(), json!({"id": token(id), "ids": [id], "tokens": [token(id)]}));
    let tokens: serde_json::Map<_, _> = [first, last].into_iter().flatten().map(named).collect();
    let pair = [text("A", 0), text("B", 1)].concat();
    json!({"type": "TemplateProcessing", "single": text("A", 0), "pair": pair, "special_tokens": tokens})
}
