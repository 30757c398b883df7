//! A tokenizer over given pieces.

use crate::{Error, Result, Token, Tokenizer, Vocabulary};

/// The end-of-text token of every scripted vocabulary.
pub const END: Token = 0;
/// The beginning-of-text token of every scripted vocabulary.
pub const BEGIN: Token = 1;

/// A tokenizer over given pieces, which encodes a text by the longest piece at each position.
#[derive(Debug)]
pub struct Pieces {
    vocabulary: Vocabulary,
    longest: usize,
}

impl Pieces {
    /// A vocabulary of [`END`], [`BEGIN`], and one token per piece.
    #[must_use]
    pub fn new(pieces: impl IntoIterator<Item = String>) -> Self {
        let special = ["</s>".to_owned(), "<s>".to_owned()];
        let pieces: Vec<_> = special.into_iter().chain(pieces).map(Some).collect();
        let longest = pieces.iter().skip(2).flatten().map(String::len).max().unwrap_or(0);
        let special = (0..pieces.len()).map(|id| id < 2).collect();
        Self { vocabulary: Vocabulary { pieces, special, decoder: "pieces".into() }, longest }
    }

    /// A vocabulary of one token per character.
    #[must_use]
    pub fn letters(letters: &str) -> Self {
        Self::new(letters.chars().map(String::from))
    }
}

impl Tokenizer for Pieces {
    fn encode(&self, text: &str) -> Result<Vec<Token>> {
        let (mut tokens, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let fits = |piece: &&(usize, &String)| rest.starts_with(piece.1.as_str());
            let pieces = self.vocabulary.pieces.iter().enumerate().skip(2);
            let pieces: Vec<_> = pieces.filter_map(|(id, piece)| piece.as_ref().map(|piece| (id, piece))).collect();
            let (id, piece) = pieces.iter().filter(fits).max_by_key(|(_, piece)| piece.len()).ok_or_else(|| {
                Error::Tokenizer { name: "pieces".into(), message: format!("no piece begins {rest:?}") }
            })?;
            tokens.push(*id as Token);
            rest = &rest[piece.len()..];
        }
        Ok(tokens)
    }

    fn decode(&self, tokens: &[Token]) -> Result<String> {
        let text = tokens.iter().filter(|&&token| !self.vocabulary.is_special(token));
        Ok(text.filter_map(|&token| self.vocabulary.pieces.get(token as usize)?.as_deref()).collect())
    }

    fn settled(&self, text: &str) -> usize {
        let mut end = 0;
        for token in self.encode(text).unwrap_or_default() {
            if end + self.longest > text.len() {
                break;
            }
            end += self.vocabulary.pieces[token as usize].as_ref().map_or(0, String::len);
        }
        end
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}
