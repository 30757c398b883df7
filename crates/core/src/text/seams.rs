//! Where a text can be cut so that its tokens on the left no longer depend on what follows.
//!
//! Byte-pair merges and unigram pieces only ever span what some piece of the vocabulary spans. Between two characters that
//! stand side by side in no piece lies a *seam*: no token crosses it, so both sides are encoded independently. What is left
//! to the right context are the pre-tokenizer's look-aheads after white space, added tokens, and normalisation; seams near
//! those are not used.

use std::collections::HashSet;

use unicode_normalization::{IsNormalized, is_nfc_quick};

use super::tokenizer::{Vocabulary, joins_pieces};

/// Up to four bytes: a character, or the part of one at the edge of a piece.
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
    /// Characters that stand side by side in some piece, and those the vocabulary knows where unknown ones may be joined.
    Pairs { joined: HashSet<(Edge, Edge)>, known: Option<HashSet<char>> },
    /// Nothing is known of how the model joins characters: only whole words apart are trusted.
    Words,
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes[..usize::from(self.len)]))
    }
}

impl Seams {
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, vocabulary: &Vocabulary) -> Self {
        let normalizer = serde_json::to_value(tokenizer.get_normalizer()).unwrap_or_default();
        let Some(joins) = joins_pieces(tokenizer).filter(|_| leaves_characters_alone(&normalizer)) else {
            return Self::Words;
        };
        let byte_level = vocabulary.decoder.contains("ByteLevel");
        let added: HashSet<_> = tokenizer.get_added_vocabulary().get_vocab().keys().cloned().collect();
        let (mut joined, mut known) = (HashSet::new(), HashSet::new());
        for piece in vocabulary.pieces.iter().flatten() {
            let bytes = match byte_level && !added.contains(piece) {
                true => piece.chars().filter_map(byte_of).collect(),
                false => piece.replace('\u{2581}', " ").into_bytes(),
            };
            pairs(&bytes, &mut joined);
            let mut characters = piece.chars();
            if let (Some(c), None) = (characters.next(), characters.next()) {
                known.insert(if c == '\u{2581}' { ' ' } else { c });
            }
        }
        let known = (!byte_level && !joins.byte_fallback).then_some(known);
        Self::Pairs { joined, known }
    }

    /// See [`super::Tokenizer::settled`].
    pub(super) fn settled(&self, text: &str) -> usize {
        match self {
            Self::Words => last_words(text),
            Self::Pairs { .. } => {
                // From the end backwards: `left | right after`, where all three characters are there.
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
        // A literal U+2581 is a space to sentencepiece vocabularies and a character to others: no seam beside it.
        let blank = |c: char| c.is_whitespace() || c == '\u{2581}';
        if blank(left) || right == '\u{2581}' || composes(left) || composes(right) || composes(after) {
            return false;
        }
        if known.as_ref().is_some_and(|known| !known.contains(&left) || !known.contains(&right)) {
            return false;
        }
        let (mut l, mut r) = ([0; 4], [0; 4]);
        let (l, r) = (left.encode_utf8(&mut l).as_bytes(), right.encode_utf8(&mut r).as_bytes());
        // A piece may hold only the last bytes of the one and the first bytes of the other.
        !(0..l.len()).any(|i| (1..=r.len()).any(|j| joined.contains(&(Edge::new(&l[i..]), Edge::new(&r[..j])))))
    }
}

/// Note which characters, or parts of them at the edges, stand side by side in a piece.
fn pairs(piece: &[u8], joined: &mut HashSet<(Edge, Edge)>) {
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

/// The byte that a character of the byte-level alphabet stands for (GPT-2's table: printable bytes stand for themselves, the
/// others for the characters from U+0100 on, in order).
fn byte_of(c: char) -> Option<u8> {
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let code = u32::from(c);
    match code {
        0..=255 if printable(code) => Some(code as u8),
        256.. => (0..=255u32).filter(|&b| !printable(b)).nth(code as usize - 256).map(|b| b as u8),
        _ => None,
    }
}

/// Whether a normaliser keeps characters as they are, save for spaces and canonical composition.
fn leaves_characters_alone(normalizer: &serde_json::Value) -> bool {
    match normalizer.get("type").and_then(|kind| kind.as_str()) {
        None => normalizer.is_null(),
        Some("NFC" | "Prepend") => true,
        Some("Replace") => normalizer["pattern"]["String"] == " " && normalizer["content"] == "\u{2581}",
        Some("Sequence") => {
            normalizer["normalizers"].as_array().is_some_and(|parts| parts.iter().all(leaves_characters_alone))
        }
        Some(_) => false,
    }
}

/// The end of the last word that has two more words after it.
pub(super) fn last_words(text: &str) -> usize {
    let mut ends = text.char_indices().zip(text.chars().skip(1)).filter_map(|((at, left), right)| {
        (!left.is_whitespace() && right.is_whitespace()).then_some(at + left.len_utf8())
    });
    let mut last = [0; 2];
    for end in &mut ends {
        last = [last[1], end];
    }
    last[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_complete() {
        let bytes: HashSet<u8> = (0..0x150).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(byte_of('\u{120}'), Some(b' '), "the sign that stands for a space");
    }

    #[test]
    fn pairs_reach_to_the_edges_of_a_piece() {
        let mut joined = HashSet::new();
        pairs(b" a\xE4\xB8", &mut joined);
        assert!(joined.contains(&(Edge::new(b" "), Edge::new(b"a"))));
        assert!(joined.contains(&(Edge::new(b"a"), Edge::new(b"\xE4\xB8"))));
        assert_eq!(joined.len(), 2);
    }

    #[test]
    fn words_keep_two_back() {
        assert_eq!(last_words("one two three four"), "one two".len());
        assert_eq!(last_words("one two"), 0);
        assert_eq!(last_words(""), 0);
    }
}
