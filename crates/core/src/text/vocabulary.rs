//! The meaning of a model's token ids.

use crate::Token;

/// The pieces of text that a model's ids stand for.
///
/// ```
/// use wsd_core::Tokenizer as _;
/// use wsd_core::scripted::{BEGIN, Pieces};
/// let pieces = Pieces::letters("ab");
/// let vocabulary = pieces.vocabulary();
/// assert!(vocabulary.is_text(2) && vocabulary.is_special(BEGIN));
/// assert!(vocabulary.is_within(Pieces::letters("abc").vocabulary()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// The piece of each id, in the tokenizer's own alphabet; `None` for unused ids.
    pub pieces: Vec<Option<String>>,
    /// True for each id that is a control token and not text.
    pub special: Vec<bool>,
    /// The rule that turns pieces into text, as an opaque description. Two vocabularies are equal
    /// only if their rules are.
    pub decoder: String,
}

impl Vocabulary {
    /// Tells whether every text token of `self` has the same id and meaning in `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.decoder == other.decoder
            && self.pieces.iter().enumerate().all(|(id, piece)| {
                piece.is_none() || self.is_special(id as Token) || other.pieces.get(id) == Some(piece)
            })
    }

    /// Tells whether `token` stands for text: neither a control token nor an unused id.
    #[must_use]
    pub fn is_text(&self, token: Token) -> bool {
        !self.is_special(token) && self.pieces.get(token as usize).is_some_and(Option::is_some)
    }

    /// Tells whether `token` is a control token.
    #[must_use]
    pub fn is_special(&self, token: Token) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }
}
