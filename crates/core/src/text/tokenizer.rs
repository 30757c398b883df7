//! Tokenizers: what every model's must do, and Hugging Face's.

use std::sync::OnceLock;

use tokenizers::models::ModelWrapper;

use super::seams::Seams;
use crate::{Error, Result, Token};

/// What the ids of a model mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// The piece each id stands for, in the tokenizer's own alphabet; `None` for ids that are not used.
    pub pieces: Vec<Option<String>>,
    /// Which ids are special: control tokens that are not text.
    pub special: Vec<bool>,
    /// How pieces become text; two vocabularies are alike only if this is equal too.
    pub decoder: String,
}

impl Vocabulary {
    /// Whether every text token of `self` has the same id and meaning in `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.decoder == other.decoder
            && self.pieces.iter().enumerate().all(|(id, piece)| {
                piece.is_none() || self.is_special(id as Token) || other.pieces.get(id) == Some(piece)
            })
    }

    /// Whether `token` stands for text: not a control token, nor an id that only pads the output row.
    #[must_use]
    pub fn is_text(&self, token: Token) -> bool {
        !self.is_special(token) && self.pieces.get(token as usize).is_some_and(Option::is_some)
    }

    /// Whether `token` is a control token.
    #[must_use]
    pub fn is_special(&self, token: Token) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }
}

/// Text to tokens and back.
pub trait Tokenizer: Send + Sync + std::fmt::Debug {
    /// The tokens of `text`. None is added; special tokens spelled out in the text are recognised.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    fn encode(&self, text: &str) -> Result<Vec<Token>>;

    /// The text of `tokens`, special ones left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    fn decode(&self, tokens: &[Token]) -> Result<String>;

    /// A number of bytes `n` such that the tokens of `text[..n]` begin the tokens of `text` whatever follows it. The longer,
    /// the sooner a token drafted by another model can be scored. By default two words from the end, where nothing is known of how
    /// the model joins characters.
    fn settled(&self, text: &str) -> usize {
        super::seams::last_words(text)
    }

    /// What the ids mean.
    fn vocabulary(&self) -> &Vocabulary;
}

/// A `tokenizer.json`.
#[derive(Debug)]
pub struct HfTokenizer {
    name: String,
    inner: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    seams: OnceLock<Seams>,
}

impl HfTokenizer {
    /// Wrap a tokenizer; `name` is for messages.
    #[must_use]
    pub fn new(name: impl Into<String>, mut inner: tokenizers::Tokenizer) -> Self {
        // Cutting and filling are a training tokenizer's business; here they would lose text.
        inner.with_padding(None);
        let _ = inner.with_truncation(None);
        let vocabulary = vocabulary(&inner);
        Self { name: name.into(), inner, vocabulary, seams: OnceLock::new() }
    }

    /// Parse the bytes of a `tokenizer.json`; `name` is for messages.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn parse(name: &str, json: &[u8]) -> Result<Self> {
        let inner = call(name, || tokenizers::Tokenizer::from_bytes(json))?;
        Ok(Self::new(name, inner))
    }

    /// The id of a piece, special tokens included.
    #[must_use]
    pub fn token(&self, piece: &str) -> Option<Token> {
        self.inner.token_to_id(piece)
    }

    /// The one token that the tokenizer itself puts before a text, where it does.
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
        call(&self.name, || self.inner.encode_fast(text, false)).map(|encoding| encoding.get_ids().to_vec())
    }

    fn decode(&self, tokens: &[Token]) -> Result<String> {
        call(&self.name, || self.inner.decode(tokens, true))
    }

    fn settled(&self, text: &str) -> usize {
        self.seams.get_or_init(|| Seams::of(&self.inner, &self.vocabulary)).settled(text)
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

/// Run a call into the tokenizers library, which answers some crafted files with a panic.
fn call<T>(name: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let fault = |message: String| Error::Tokenizer { name: name.to_owned(), message };
    match crate::guard(call) {
        Ok(result) => result.map_err(|error| fault(error.to_string())),
        Err(panic) => Err(fault(format!("the library gave up on it, so the file is damaged or hostile: {panic}"))),
    }
}

fn vocabulary(tokenizer: &tokenizers::Tokenizer) -> Vocabulary {
    let vocab = tokenizer.get_vocab(true);
    // An id far above the number of entries would make the table huge: such entries can never be produced by a model.
    let limit = vocab.len().saturating_mul(4) + 1024;
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

/// Whether a model joins neighbouring pieces only into pieces of its vocabulary, unknown characters apart.
pub(super) fn joins_pieces(tokenizer: &tokenizers::Tokenizer) -> Option<Joins> {
    match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) => Some(Joins { byte_fallback: bpe.byte_fallback }),
        ModelWrapper::Unigram(unigram) => Some(Joins { byte_fallback: unigram.byte_fallback() }),
        _ => None,
    }
}

/// How a model treats characters it has no piece for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joins {
    /// They become bytes, each a piece; otherwise neighbouring ones may become one unknown token.
    pub(super) byte_fallback: bool,
}
