//! The bytes that tokens stand for.

use super::Tokenizer;
use crate::{Result, Token};

/// The character that SentencePiece writes for a space.
const SPACE: char = '\u{2581}';

/// Returns the bytes that `token` adds to a text that other tokens precede; none for a control token
/// or an unused id.
///
/// ```
/// use wsd_core::scripted::{END, Pieces};
/// use wsd_core::{Tokenizer as _, token_bytes};
///
/// let pieces = Pieces::letters("a\u{e9}");
/// assert_eq!(token_bytes(&pieces, 3)?, "\u{e9}".as_bytes());
/// assert_eq!(token_bytes(&pieces, END)?, b"");
/// # Ok::<(), wsd_core::Error>(())
/// ```
///
/// # Errors
/// [`crate::Error::Tokenizer`].
pub fn token_bytes(tokenizer: &dyn Tokenizer, token: Token) -> Result<Vec<u8>> {
    let vocabulary = tokenizer.vocabulary();
    let piece = vocabulary.pieces.get(token as usize).and_then(Option::as_deref);
    let Some(piece) = piece.filter(|_| vocabulary.is_text(token)) else { return Ok(Vec::new()) };
    if let Some(bytes) = vocabulary.bytes(token) {
        return Ok(bytes);
    }
    if vocabulary.decoder.contains("ByteLevel") {
        // An added token, which stands for itself.
        return Ok(piece.as_bytes().to_vec());
    }
    if vocabulary.decoder.contains(SPACE) {
        return Ok(piece.replace(SPACE, " ").into_bytes());
    }
    // Decoders may treat the first token of a text apart.
    let (one, two) = (tokenizer.decode(&[token])?, tokenizer.decode(&[token, token])?);
    Ok(two.get(one.len()..).unwrap_or(&one).as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Vocabulary};

    /// A tokenizer of which only the vocabulary matters.
    #[derive(Debug)]
    struct Named(Vocabulary);

    impl Tokenizer for Named {
        fn encode(&self, _: &str) -> Result<Vec<Token>> {
            Err(Error::Chat("not used".into()))
        }

        fn decode(&self, _: &[Token]) -> Result<String> {
            Err(Error::Chat("not used".into()))
        }

        fn vocabulary(&self) -> &Vocabulary {
            &self.0
        }
    }

    #[test]
    fn spaces_bytes_and_added_tokens_are_spelled_out() {
        let bytes = |decoder: &str, piece: &str| {
            let pieces = vec![Some(piece.to_owned())];
            let vocabulary = Vocabulary { pieces, special: vec![false], decoder: decoder.into() };
            token_bytes(&Named(vocabulary), 0).unwrap()
        };
        assert_eq!(bytes("ByteLevel", "\u{120}a"), b" a");
        assert_eq!(bytes("ByteLevel", "two words"), b"two words");
        assert_eq!(bytes("Replace \u{2581} ByteFallback", "\u{2581}\u{2581}a"), b"  a");
        assert_eq!(bytes("Replace \u{2581} ByteFallback", "<0xE2>"), [0xE2]);
    }
}
