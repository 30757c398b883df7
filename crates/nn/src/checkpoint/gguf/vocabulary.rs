//! The tokenizer of a GGUF file, built as the published `tokenizer.json` is.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    models::bpe::{BPE, Vocab},
};

use super::{architecture::Architecture, byte_level::Cut, metadata::Metadata, sentence_piece};
use crate::{
    Error, Result,
    checkpoint::{special::SpecialTokens, tokenizer::guarded},
};

/// Tokens and what each is; both have the same length.
pub(super) struct Entries<'a> {
    pub(super) tokens: Vec<&'a str>,
    pub(super) kinds: Vec<Kind>,
    pub(super) unknown: Option<u32>,
}

/// `tokenizer.ggml.token_type`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

const KINDS: [Kind; 6] = [Kind::Normal, Kind::Unknown, Kind::Control, Kind::UserDefined, Kind::Unused, Kind::Byte];

impl Entries<'_> {
    /// Ids by token; of two tokens that are the same, the first is the one that text becomes.
    pub(super) fn ids(&self) -> Vocab {
        self.tokens.iter().enumerate().rev().map(|(id, token)| ((*token).to_owned(), id as u32)).collect()
    }
}

/// What a file says of its tokens.
pub(super) struct Vocabulary {
    pub(super) tokenizer: Tokenizer,
    pub(super) special: SpecialTokens,
    pub(super) end_tokens: Vec<u32>,
    pub(super) add_bos: Option<bool>,
}

/// The parts of a tokenizer, of which all but the model are given as in `tokenizer.json`.
struct Stages {
    model: BPE,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    /// Whether a text begins with BOS where the file does not say.
    add_bos: bool,
    /// Whether the tokens of the model's own take the white space after them along.
    strip: bool,
}

pub(super) fn read(metadata: &Metadata<'_>, architecture: &Architecture) -> Result<Vocabulary> {
    let entries = entries(metadata)?;
    let id = |name: &str| token_id(metadata, &entries, name);
    let (bos, eos, pad) = (id("bos")?, id("eos")?, id("padding")?);
    let end_tokens = [eos, id("eot")?, id("eom")?].into_iter().flatten().collect();
    let reader = || -> Result<Tokenizer> {
        let stages = stages(metadata, &entries, architecture)?;
        let flag = |key: &str| metadata.bool(&format!("tokenizer.ggml.{key}"));
        let first = bos.filter(|_| matches!(flag("add_bos_token"), Ok(add) if add.unwrap_or(stages.add_bos)));
        let last = eos.filter(|_| matches!(flag("add_eos_token"), Ok(Some(true))));
        let added = added(&entries, [bos, eos, pad], stages.strip);
        assemble(metadata, &entries, stages, [first, last], &added)
    };
    let tokenizer = guarded(metadata.file, reader)?;
    let token = |id: Option<u32>| id.map(|id| entries.tokens[id as usize].to_owned());
    let special = SpecialTokens { bos: token(bos), eos: token(eos), pad: token(pad), unk: token(entries.unknown) };
    Ok(Vocabulary { tokenizer, special, end_tokens, add_bos: metadata.bool("tokenizer.ggml.add_bos_token")? })
}

fn entries<'a>(metadata: &Metadata<'a>) -> Result<Entries<'a>> {
    let key = "tokenizer.ggml.tokens";
    let tokens = metadata.needed(key, metadata.strings(key)?)?;
    if tokens.is_empty() || u32::try_from(tokens.len()).is_err() {
        return Err(metadata.fault(key, format!("must have 1 to {} tokens, given: {}", u32::MAX, tokens.len())));
    }
    let key = "tokenizer.ggml.token_type";
    let kind = |number: u64| {
        let kind = usize::try_from(number).ok().and_then(|number| KINDS.get(number.checked_sub(1)?).copied());
        kind.ok_or_else(|| metadata.fault(key, format!("a type is 1 to 6, given: {number}")))
    };
    let kinds = match metadata.unsigneds(key)? {
        Some(numbers) => numbers.into_iter().map(kind).collect::<Result<Vec<_>>>()?,
        None => vec![Kind::Normal; tokens.len()],
    };
    if kinds.len() != tokens.len() {
        return Err(metadata.fault(key, format!("has {} values for {} tokens", kinds.len(), tokens.len())));
    }
    let mut entries = Entries { tokens, kinds, unknown: None };
    let unknown = entries.kinds.iter().position(|kind| *kind == Kind::Unknown).map(|id| id as u32);
    entries.unknown = token_id(metadata, &entries, "unknown")?.or(unknown);
    Ok(entries)
}

fn token_id(metadata: &Metadata<'_>, entries: &Entries<'_>, name: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let count = entries.tokens.len();
    match metadata.unsigned(&key)? {
        Some(id) if id >= count as u64 => Err(metadata.fault(&key, format!("must be less than {count}, given: {id}"))),
        id => Ok(id.map(|id| id as u32)),
    }
}

fn stages(metadata: &Metadata<'_>, entries: &Entries<'_>, architecture: &Architecture) -> Result<Stages> {
    let key = "tokenizer.ggml.model";
    match metadata.needed(key, metadata.string(key)?)? {
        "gpt2" => {
            let cut = Cut::of(metadata)?;
            Ok(Stages {
                model: cut.model(metadata, entries)?,
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
                model: sentence_piece::model(metadata, entries)?,
                normalizer: sentence_piece::normalizer(prefix),
                pre_tokenizer: Value::Null,
                decoder: sentence_piece::decoder(prefix),
                add_bos: true,
                // As published with Phi-3; the file does not say.
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

/// Tokens that are found in the text as they are, before anything else is done to it.
fn added(entries: &Entries<'_>, named: [Option<u32>; 3], strip: bool) -> Vec<AddedToken> {
    let tokens = entries.tokens.iter().zip(&entries.kinds).enumerate().filter_map(|(id, (token, kind))| {
        let special = matches!(kind, Kind::Control | Kind::Unknown) || named.contains(&Some(id as u32));
        let strip = strip && !matches!(*token, "<unk>" | "<s>" | "<|endoftext|>");
        let token = AddedToken::from(*token, special).normalized(false).rstrip(strip);
        (special || *kind == Kind::UserDefined).then_some(token)
    });
    tokens.collect()
}

fn assemble(
    metadata: &Metadata<'_>,
    entries: &Entries<'_>,
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
        .with_post_processor(stage::<PostProcessorWrapper>(metadata, post_processor(entries, ends))?)
        .with_decoder(stage::<DecoderWrapper>(metadata, stages.decoder)?);
    tokenizer.add_tokens(added.iter().cloned()).map_err(fault)?;
    Ok(tokenizer)
}

fn stage<T: DeserializeOwned>(metadata: &Metadata<'_>, value: Value) -> Result<Option<T>> {
    serde_json::from_value(value)
        .map_err(|error| Error::Tokenizer { file: metadata.file.into(), reason: error.to_string() })
}

/// BOS before and EOS after a text, where they are wanted.
fn post_processor(entries: &Entries<'_>, [first, last]: [Option<u32>; 2]) -> Value {
    if first.or(last).is_none() {
        return Value::Null;
    }
    let token = |id: u32| entries.tokens[id as usize];
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
