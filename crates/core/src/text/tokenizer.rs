//! Tokenizers: the interface, and the implementation over Hugging Face's library.

use std::sync::OnceLock;

use super::growth::{Growth, check_tokenizer};
use super::ids::max_span;
use super::seams::{self, Seams};
use super::vocabulary::Vocabulary;
use crate::{Error, Result, Token};

/// A conversion of text to tokens and back.
pub trait Tokenizer: Send + Sync + std::fmt::Debug {
    /// Encodes `text`. No token is added; special tokens spelled out in the text are recognized.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    fn encode(&self, text: &str) -> Result<Vec<Token>>;

    /// Decodes `tokens`, leaving out special ones.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    fn decode(&self, tokens: &[Token]) -> Result<String>;

    /// Returns the length in bytes of a prefix of `text` whose tokens are a prefix of the tokens of
    /// `text` and of every continuation of it. The longer it is, the sooner a token drafted by
    /// another model can be scored. The default assumes nothing about how the model joins
    /// characters and ends two words before the end.
    fn settled(&self, text: &str) -> usize {
        seams::end_of_settled_words(text)
    }

    /// The vocabulary.
    fn vocabulary(&self) -> &Vocabulary;
}

/// A tokenizer read from a `tokenizer.json`, as published on the Hugging Face hub.
#[derive(Debug)]
pub struct HfTokenizer {
    name: String,
    inner: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    growth: Growth,
    seams: OnceLock<Seams>,
}

impl HfTokenizer {
    /// Wraps a tokenizer of the library; `name`, a file or a model, is for error messages.
    #[must_use]
    pub fn new(name: impl Into<String>, mut inner: tokenizers::Tokenizer) -> Self {
        // Files may set truncation and padding for training; here truncation would lose text.
        inner.with_padding(None);
        let _ = inner.with_truncation(None);
        let vocabulary = vocabulary(&inner);
        let growth = growth(&inner);
        Self { name: name.into(), inner, vocabulary, growth, seams: OnceLock::new() }
    }

    /// Parses the bytes of a `tokenizer.json`; `name`, a file or a model, is for error messages.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn parse(name: &str, json: &[u8]) -> Result<Self> {
        check_tokenizer(name, json)?;
        let inner = call(name, || tokenizers::Tokenizer::from_bytes(json))?;
        Ok(Self::new(name, inner))
    }

    /// Returns the id of a piece, special tokens included.
    #[must_use]
    pub fn token(&self, piece: &str) -> Option<Token> {
        self.inner.token_to_id(piece)
    }

    /// Returns the token that the tokenizer's own post-processing puts before a text, if it does.
    #[must_use]
    pub fn leading_token(&self) -> Option<Token> {
        let with = call(&self.name, || self.inner.encode("a", true)).ok()?;
        let without = call(&self.name, || self.inner.encode("a", false)).ok()?;
        match with.get_ids() {
            [first, rest @ ..] if rest.starts_with(without.get_ids()) => Some(*first),
            _ => None,
        }
    }
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<Token>> {
        self.growth.check_encoding(&self.name, text.len())?;
        call(&self.name, || self.inner.encode_fast(text, false)).map(|encoding| encoding.get_ids().to_vec())
    }

    fn decode(&self, tokens: &[Token]) -> Result<String> {
        let piece = |token: &Token| self.vocabulary.pieces.get(*token as usize)?.as_ref();
        let bytes = tokens.iter().filter_map(piece).map(String::len).fold(0, usize::saturating_add);
        self.growth.check_decoding(&self.name, bytes)?;
        call(&self.name, || self.inner.decode(tokens, true))
    }

    fn settled(&self, text: &str) -> usize {
        self.seams.get_or_init(|| Seams::new(&self.inner, &self.vocabulary)).settled(text)
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

/// Calls the tokenizers library and turns its panics, which some crafted files cause, into errors.
fn call<T>(name: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let fault = |message: String| Error::Tokenizer { name: name.to_owned(), message };
    match crate::guard(call) {
        Ok(result) => result.map_err(|error| fault(error.to_string())),
        Err(panic) => Err(fault(format!("the library panicked, so the file is damaged or hostile: {panic}"))),
    }
}

/// Reads the bounds of the steps from their JSON, the only form in which the library shows them.
fn growth(tokenizer: &tokenizers::Tokenizer) -> Growth {
    let [normalizer, pre_tokenizer, decoder] = [
        serde_json::to_value(tokenizer.get_normalizer()),
        serde_json::to_value(tokenizer.get_pre_tokenizer()),
        serde_json::to_value(tokenizer.get_decoder()),
    ]
    .map(Result::unwrap_or_default);
    Growth::of(&normalizer, &pre_tokenizer, &decoder)
}

fn vocabulary(tokenizer: &tokenizers::Tokenizer) -> Vocabulary {
    let vocab = tokenizer.get_vocab(true);
    // Files with ids far above their number of entries are refused. From a tokenizer of another
    // origin such ids, which no model produces, are left out.
    let limit = max_span(vocab.len());
    let len = vocab.values().map(|&id| id as usize + 1).filter(|&len| len <= limit).max().unwrap_or(0);
    let mut pieces = vec![None; len];
    for (piece, id) in vocab {
        if let Some(slot) = pieces.get_mut(id as usize) {
            *slot = Some(piece);
        }
    }
    let mut special = vec![false; len];
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        if let Some(slot) = special.get_mut(id as usize) {
            *slot = token.special;
        }
    }
    let decoder = serde_json::to_string(&tokenizer.get_decoder()).unwrap_or_default();
    Vocabulary { pieces, special, decoder }
}
