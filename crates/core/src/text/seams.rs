//! Seams: places where a text can be cut without changing its tokens on the left.
//!
//! Byte-pair merges and unigram pieces span only what some piece of the vocabulary spans. Between
//! two characters that are adjacent in no piece lies a *seam*: no token crosses it, so both sides
//! are encoded independently. Tokens may still depend on the text to their right through the
//! pre-tokenizer's look-ahead after white space, added tokens, and normalization; seams near those
//! are not used.

use std::collections::HashSet;

use tokenizers::models::ModelWrapper;
use unicode_normalization::{IsNormalized, is_nfc_quick};

use super::vocabulary::{Vocabulary, byte_of};

/// A character, or the part of one at the edge of a piece: one to four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Edge {
    bytes: [u8; 4],
    len: u8,
}

impl Edge {
    fn new(part: &[u8]) -> Self {
        let mut bytes = [0; 4];
        bytes[..part.len()].copy_from_slice(part);
        Self { bytes, len: part.len() as u8 }
    }
}

/// The seams of a tokenizer.
#[derive(Debug)]
pub(super) enum Seams {
    /// A model that joins only what its pieces join.
    Pairs {
        /// Pairs of characters that are adjacent in some piece.
        joined: HashSet<(Edge, Edge)>,
        /// Characters in the vocabulary, for a model that may join adjacent unknown ones into one
        /// token.
        known: Option<HashSet<char>>,
    },
    /// A model whose way of joining characters is unknown. Only word boundaries are used.
    Words,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes[..usize::from(self.len)]))
    }
}

impl Seams {
    /// Derives the seams from a tokenizer's model and normalizer.
    pub(super) fn new(tokenizer: &tokenizers::Tokenizer, vocabulary: &Vocabulary) -> Self {
        let normalizer = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default();
        let Some(has_byte_fallback) = byte_fallback(tokenizer).filter(|_| keeps_characters(&normalizer)) else {
            return Self::Words;
        };
        let byte_level = vocabulary.decoder.contains("ByteLevel");
        let added: HashSet<_> = tokenizer.get_added_vocabulary().get_vocab().keys().cloned().collect();
        let (mut joined, mut known) = (HashSet::new(), HashSet::new());
        for piece in vocabulary.pieces.iter().flatten() {
            let bytes = if byte_level && !added.contains(piece) {
                piece.chars().filter_map(byte_of).collect()
            } else {
                piece.replace('\u{2581}', " ").into_bytes()
            };
            insert_pairs(&bytes, &mut joined);
            let mut characters = piece.chars();
            if let (Some(c), None) = (characters.next(), characters.next()) {
                known.insert(if c == '\u{2581}' { ' ' } else { c });
            }
        }
        let known = (!byte_level && !has_byte_fallback).then_some(known);
        Self::Pairs { joined, known }
    }

    /// Implements [`super::Tokenizer::settled`].
    pub(super) fn settled(&self, text: &str) -> usize {
        match self {
            Self::Words => end_of_settled_words(text),
            Self::Pairs { .. } => {
                // Searches backwards for a seam between `left` and `right`. The character `after`
                // must be known too, because it could compose with `right`.
                let mut after = None;
                let mut right = None;
                for (at, left) in text.char_indices().rev() {
                    if let (Some(right), Some(after)) = (right, after)
                        && self.is_seam(left, right, after)
                    {
                        return at + left.len_utf8();
                    }
                    after = right;
                    right = Some(left);
                }
                0
            }
        }
    }

    fn is_seam(&self, left: char, right: char, after: char) -> bool {
        let Self::Pairs { joined, known } = self else { return false };
        let composes = |c: char| !c.is_ascii() && is_nfc_quick(std::iter::once(c)) != IsNormalized::Yes;
        // A literal U+2581 is a space in sentencepiece vocabularies and a character in others, so
        // no seam is assumed beside it.
        let blank = |c: char| c.is_whitespace() || c == '\u{2581}';
        if blank(left) || right == '\u{2581}' || composes(left) || composes(right) || composes(after) {
            return false;
        }
        if known.as_ref().is_some_and(|known| !known.contains(&left) || !known.contains(&right)) {
            return false;
        }
        let (mut l, mut r) = ([0; 4], [0; 4]);
        let (l, r) = (left.encode_utf8(&mut l).as_bytes(), right.encode_utf8(&mut r).as_bytes());
        // A piece may hold only the last bytes of `left` and the first bytes of `right`.
        !(0..l.len()).any(|i| (1..=r.len()).any(|j| joined.contains(&(Edge::new(&l[i..]), Edge::new(&r[..j])))))
    }
}

/// Inserts all pairs of adjacent characters of a piece. The first and the last may be incomplete.
fn insert_pairs(piece: &[u8], joined: &mut HashSet<(Edge, Edge)>) {
    let is_start = |i: usize| piece[i] & 0xC0 != 0x80;
    let starts: Vec<usize> = (1..piece.len()).filter(|&i| is_start(i)).collect();
    for (n, &at) in starts.iter().enumerate() {
        let from = if n == 0 { 0 } else { starts[n - 1] };
        let to = starts.get(n + 1).copied().unwrap_or(piece.len());
        if at - from <= 4 && to - at <= 4 {
            joined.insert((Edge::new(&piece[from..at]), Edge::new(&piece[at..to])));
        }
    }
}

/// Tells whether a normalizer keeps all characters, except for spaces and canonical composition.
fn keeps_characters(normalizer: &serde_json::Value) -> bool {
    match normalizer.get("type").and_then(|kind| kind.as_str()) {
        None => normalizer.is_null(),
        Some("NFC" | "Prepend") => true,
        Some("Replace") => normalizer["pattern"]["String"] == " " && normalizer["content"] == "\u{2581}",
        Some("Sequence") => {
            normalizer["normalizers"].as_array().is_some_and(|parts| parts.iter().all(keeps_characters))
        }
        Some(_) => false,
    }
}

/// Returns the end, in bytes, of the last word that is followed by two more words.
pub(super) fn end_of_settled_words(text: &str) -> usize {
    let mut ends = text.char_indices().zip(text.chars().skip(1)).filter_map(|((at, left), right)| {
        (!left.is_whitespace() && right.is_whitespace()).then_some(at + left.len_utf8())
    });
    let mut last = [0; 2];
    for end in &mut ends {
        last = [last[1], end];
    }
    last[0]
}

/// Tells whether a model turns characters without a piece into bytes (true) or into one unknown
/// token for a run of them (false). `None` for a model that may join pieces into something outside
/// its vocabulary.
fn byte_fallback(tokenizer: &tokenizers::Tokenizer) -> Option<bool> {
    match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) => Some(bpe.byte_fallback),
        ModelWrapper::Unigram(unigram) => Some(unigram.byte_fallback()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_include_incomplete_characters_at_the_edges() {
        let mut joined = HashSet::new();
        insert_pairs(b" a\xE4\xB8", &mut joined);
        assert!(joined.contains(&(Edge::new(b" "), Edge::new(b"a"))));
        assert!(joined.contains(&(Edge::new(b"a"), Edge::new(b"\xE4\xB8"))));
        assert_eq!(joined.len(), 2);
    }

    #[test]
    fn the_last_two_words_are_not_settled() {
        assert_eq!(end_of_settled_words("one two three four"), "one two".len());
        assert_eq!(end_of_settled_words("one two"), 0);
        assert_eq!(end_of_settled_words(""), 0);
    }
}
