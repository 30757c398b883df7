//! Writing a tokenizer as the metadata that [`super::vocabulary`] reads.

use std::collections::HashMap;

use serde_json::Value;

use super::byte_level::Cut;
use super::writer::Entry;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

type Entries = Vec<(String, Entry)>;

/// Makes all entries of the tokenizer, for a model with `rows` rows in the embedding.
pub(super) fn vocabulary_entries(checkpoint: &Checkpoint, rows: usize) -> Result<Entries> {
    let fault = |reason: String| Error::Tokenizer { file: checkpoint.name.clone(), reason };
    let tokenizer = serde_json::to_value(&checkpoint.tokenizer).map_err(|error| fault(error.to_string()))?;
    let model = &tokenizer["model"];
    if model["type"] != "BPE" {
        return Err(fault(format!("a GGUF file stores BPE tokenizers, not {}", model["type"])));
    }
    let mut tokens = Tokens::of(&tokenizer, rows);
    let mut entries = if model["byte_fallback"] == true || tokenizer["pre_tokenizer"].is_null() {
        tokens.mark_pieces(model["unk_token"].as_str());
        sentence_piece(&tokenizer, &tokens)
    } else {
        byte_level(&tokenizer).ok_or_else(|| {
            fault(format!("a GGUF file has no name for its pre-tokenizer {}", tokenizer["pre_tokenizer"]))
        })?
    };
    entries.push(key("tokens", Entry::Array(tokens.texts.into_iter().map(Entry::Text).collect())));
    entries.push(key("token_type", Entry::Array(tokens.kinds.into_iter().map(Entry::Signed).collect())));
    entries.append(&mut special(checkpoint).map_err(|error| fault(error.to_string()))?);
    if let Some(template) = &checkpoint.chat_template {
        entries.push(("tokenizer.chat_template".into(), Entry::Text(template.clone())));
    }
    Ok(entries)
}

fn key(name: &str, value: Entry) -> (String, Entry) {
    (format!("tokenizer.ggml.{name}"), value)
}

fn sentence_piece(tokenizer: &Value, tokens: &Tokens) -> Entries {
    let cut = &tokenizer["pre_tokenizer"];
    let is_cut_with_prefix = cut["type"] == "Metaspace" && cut["prepend_scheme"] != "never";
    let prefix = is_cut_with_prefix || tokenizer["normalizer"].to_string().contains("Prepend");
    vec![
        key("model", Entry::Text("llama".into())),
        key("pre", Entry::Text("default".into())),
        key("scores", Entry::Array(tokens.scores(&merges(&tokenizer["model"])))),
        key("add_space_prefix", Entry::Bool(prefix)),
    ]
}

/// Makes the entries of byte-level BPE; returns `None` if the file format has no name for its
/// pre-tokenizer.
fn byte_level(tokenizer: &Value) -> Option<Entries> {
    let cut = Cut::in_tokenizer(tokenizer)?;
    let merges = merges(&tokenizer["model"]).into_iter().map(|pair| Entry::Text(pair.join(" ")));
    Some(vec![
        key("model", Entry::Text("gpt2".into())),
        key("pre", Entry::Text(cut.name().into())),
        key("merges", Entry::Array(merges.collect())),
    ])
}

/// Makes the entries of the special tokens and of the tokens added to a text.
fn special(checkpoint: &Checkpoint) -> tokenizers::Result<Entries> {
    let (tokenizer, special) = (&checkpoint.tokenizer, &checkpoint.special);
    let id = |token: &Option<String>| token.as_ref().and_then(|token| tokenizer.token_to_id(token));
    let named = checkpoint.config.get("bos_token_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let bos = id(&special.bos).or(named);
    let eos = id(&special.eos).or(checkpoint.end_tokens.first().copied());
    let eot = checkpoint.end_tokens.iter().copied().find(|&end| Some(end) != eos);
    let first = tokenizer.encode("a", true)?.get_ids().first().copied();
    let adds_bos = bos.is_some() && checkpoint.add_bos.unwrap_or(first == bos);
    let mut entries = vec![key("add_bos_token", Entry::Bool(adds_bos)), key("add_eos_token", Entry::Bool(false))];
    for (role, id) in
        [("bos", bos), ("eos", eos), ("eot", eot), ("padding", id(&special.pad)), ("unknown", id(&special.unk))]
    {
        entries.extend(id.map(|id| key(&format!("{role}_token_id"), Entry::Unsigned(id))));
    }
    Ok(entries)
}

/// Reads the merges of a BPE model, which `tokenizer.json` stores as pairs or as two words.
fn merges(model: &Value) -> Vec<[String; 2]> {
    let pair = |merge: &Value| match merge {
        Value::Array(pair) => Some([pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned()]),
        merge => merge.as_str()?.split_once(' ').map(|(left, right)| [left.to_owned(), right.to_owned()]),
    };
    model["merges"].as_array().into_iter().flatten().filter_map(pair).collect()
}

/// Tokens in the order of their ids, with their types.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
}

impl Tokens {
    fn of(tokenizer: &Value, rows: usize) -> Self {
        let added = tokenizer["added_tokens"].as_array().into_iter().flatten().filter_map(|token| {
            let kind = if token["special"] == true { CONTROL } else { USER_DEFINED };
            Some((token["content"].as_str()?, token["id"].as_u64()?, kind))
        });
        let known = tokenizer["model"]["vocab"].as_object().into_iter().flatten();
        let known = known.filter_map(|(text, id)| Some((text.as_str(), id.as_u64()?, NORMAL)));
        let all: Vec<_> = known.chain(added).collect();
        let count = all.iter().map(|(_, id, _)| *id as usize + 1).max().unwrap_or(0).max(rows);
        let mut tokens =
            Self { texts: (0..count).map(|id| format!("[PAD{id}]")).collect(), kinds: vec![UNUSED; count] };
        for (text, id, kind) in all {
            tokens.texts[id as usize] = text.to_owned();
            tokens.kinds[id as usize] = kind;
        }
        tokens
    }

    /// Marks the types of tokens that only SentencePiece has.
    fn mark_pieces(&mut self, unknown: Option<&str>) {
        for (text, kind) in self.texts.iter().zip(&mut self.kinds) {
            if Some(text.as_str()) == unknown {
                *kind = UNKNOWN;
            } else if text.len() == 6 && text.starts_with("<0x") && text.ends_with('>') {
                *kind = BYTE;
            }
        }
    }

    /// Computes scores that order pieces by their merges; pieces without a merge follow the last
    /// merge.
    fn scores(&self, merges: &[[String; 2]]) -> Vec<Entry> {
        let mut ranks = HashMap::new();
        for (rank, [left, right]) in merges.iter().enumerate() {
            ranks.entry(format!("{left}{right}")).or_insert(rank);
        }
        let mut last = merges.len();
        let mut score = |(text, &kind): (&String, &i32)| match (kind, ranks.get(text)) {
            (NORMAL, Some(&rank)) => -(rank as f32),
            (NORMAL, None) => {
                last += 1;
                -(last as f32)
            }
            _ => 0.0,
        };
        self.texts.iter().zip(&self.kinds).map(|token| Entry::Float(score(token))).collect()
    }
}
