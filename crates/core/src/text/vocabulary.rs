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

    /// Returns the bytes of a text token in an alphabet of bytes: a byte-level piece, or a byte such as
    /// `<0x0A>` of a vocabulary with byte fallback. `None` for all other tokens, whose bytes are those
    /// of their text.
    ///
    /// ```
    /// use wsd_core::Vocabulary;
    /// let pieces = vec![Some("\u{120}a\u{f0}".to_owned())];
    /// let vocabulary = Vocabulary { pieces, special: vec![false], decoder: "ByteLevel".into() };
    /// assert_eq!(vocabulary.bytes(0), Some(b" a\xF0".to_vec()));
    /// ```
    #[must_use]
    pub fn bytes(&self, token: Token) -> Option<Vec<u8>> {
        let piece = self.pieces.get(token as usize)?.as_deref().filter(|_| self.is_text(token))?;
        if self.decoder.contains("ByteLevel") {
            return piece.chars().map(byte_of).collect();
        }
        let digits = piece.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        self.decoder.contains("ByteFallback").then(|| vec![byte])
    }

    /// Tells whether `token` is a control token.
    #[must_use]
    pub fn is_special(&self, token: Token) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }
}

/// Returns the byte that a character of GPT-2's byte-level alphabet represents. Printable bytes are
/// represented by the character with the same code, the others, in ascending order, by the
/// characters from U+0100 on.
pub(super) fn byte_of(c: char) -> Option<u8> {
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let code = u32::from(c);
    match code {
        0..=255 if printable(code) => Some(code as u8),
        256.. => (0..=255u32).filter(|&b| !printable(b)).nth(code as usize - 256).map(|b| b as u8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_byte_alphabet_is_complete() {
        let bytes: HashSet<u8> = (0..0x150).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(byte_of('\u{120}'), Some(b' '), "the character for a space");
    }

    #[test]
    fn parts_of_characters_are_their_bytes() {
        let vocabulary = |decoder: &str, pieces: &[&str]| Vocabulary {
            pieces: pieces.iter().map(|piece| Some((*piece).to_owned())).collect(),
            special: vec![false; pieces.len()],
            decoder: decoder.into(),
        };
        // The first three bytes of U+1F389 and its last one, as Qwen's vocabulary spells them.
        let byte_level = vocabulary("ByteLevel", &["\u{f0}\u{141}\u{130}", "\u{12b}", "two words"]);
        assert_eq!(byte_level.bytes(0), Some(vec![240, 159, 142]));
        assert_eq!(byte_level.bytes(1), Some(vec![137]));
        assert_eq!(byte_level.bytes(2), None, "an added token is not in the alphabet");
        assert_eq!(byte_level.bytes(3), None, "an id outside the vocabulary");
        let fallback = vocabulary("Sequence of ByteFallback", &["<0xF0>", "<0xZZ>", "a"]);
        assert_eq!([0, 1, 2].map(|token| fallback.bytes(token)), [Some(vec![240]), None, None]);
    }
}
