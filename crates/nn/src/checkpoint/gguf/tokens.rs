//! The token table of a GGUF file.

use tokenizers::models::bpe::Vocab;

use super::metadata::Metadata;
use crate::error::Result;

/// The tokens of a vocabulary by id, with their types.
pub(super) struct TokenTable<'a> {
    /// The text of each token.
    pub(super) tokens: Vec<&'a str>,
    /// The type of each token, as many as `tokens`.
    pub(super) kinds: Vec<Kind>,
    /// The id that stands for text outside of the vocabulary.
    pub(super) unknown: Option<u32>,
}

/// A value of `tokenizer.ggml.token_type`; the file counts from 1.
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

impl<'a> TokenTable<'a> {
    /// Reads the table from `tokenizer.ggml.tokens` and the keys beside it.
    pub(super) fn read(metadata: &Metadata<'a>) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let tokens = metadata.needed(key, metadata.strings(key)?)?;
        if tokens.is_empty() || u32::try_from(tokens.len()).is_err() {
            return Err(metadata.fault(key, format!("must have 1 to {} tokens, got {}", u32::MAX, tokens.len())));
        }
        let key = "tokenizer.ggml.token_type";
        let kind = |number: u64| {
            let kind = usize::try_from(number).ok().and_then(|number| KINDS.get(number.checked_sub(1)?).copied());
            kind.ok_or_else(|| metadata.fault(key, format!("types must be 1 to 6, got {number}")))
        };
        let kinds = match metadata.unsigneds(key)? {
            Some(numbers) => numbers.into_iter().map(kind).collect::<Result<Vec<_>>>()?,
            None => vec![Kind::Normal; tokens.len()],
        };
        if kinds.len() != tokens.len() {
            return Err(metadata.fault(key, format!("has {} values for {} tokens", kinds.len(), tokens.len())));
        }
        let mut table = Self { tokens, kinds, unknown: None };
        let unknown = table.kinds.iter().position(|kind| *kind == Kind::Unknown).map(|id| id as u32);
        table.unknown = special(metadata, "unknown")?.or(unknown);
        Ok(table)
    }

    /// Returns the ids by token. For duplicate tokens the lowest id stays.
    pub(super) fn ids(&self) -> Vocab {
        self.tokens.iter().enumerate().rev().map(|(id, token)| ((*token).to_owned(), id as u32)).collect()
    }
}

/// Returns the id in `tokenizer.ggml.NAME_token_id`, or `None` if the file has no such key or its
/// value is outside of the vocabulary.
pub(super) fn special(metadata: &Metadata<'_>, name: &str) -> Result<Option<u32>> {
    metadata.token_id(&format!("tokenizer.ggml.{name}_token_id"))
}
