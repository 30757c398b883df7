//! Grammars that constrain an answer: at each position a mask over the next token.
//!
//! A mask is a function of the answer's tokens, as a row of logits is. A matcher keeps whatever
//! state matches a prefix of the tokens it is asked about, so rollback, speculation and the
//! hand-over need no protocol. Masks change what is sampled and never what is scored.

use std::fmt::Debug;
use std::sync::Arc;

use crate::logits::argmax;
use crate::{Result, TextCodec, Token};

/// Bits of a mask in one word.
const WORD: usize = u32::BITS as usize;

/// A set of tokens.
///
/// ```
/// use wsd_core::Mask;
///
/// let mut mask = Mask::new(40);
/// mask.allow(33);
/// let mut row = vec![0.0; 40];
/// mask.apply(&mut row);
/// assert_eq!(row.iter().position(|&logit| logit == 0.0), Some(33));
/// assert!(mask.allows(33) && !mask.allows(32) && !mask.allows(400));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(Vec<u32>);

impl Mask {
    /// The empty set over a vocabulary of `size` tokens.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(WORD)])
    }

    /// The set whose bit `i % 32` of word `i / 32` tells whether it has token `i`.
    #[must_use]
    pub fn from_words(words: Vec<u32>) -> Self {
        Self(words)
    }

    /// Adds a token; one outside the vocabulary is ignored.
    pub fn allow(&mut self, token: Token) {
        if let Some(word) = self.0.get_mut(token as usize / WORD) {
            *word |= 1 << (token as usize % WORD);
        }
    }

    /// Removes a token.
    pub fn forbid(&mut self, token: Token) {
        if let Some(word) = self.0.get_mut(token as usize / WORD) {
            *word &= !(1 << (token as usize % WORD));
        }
    }

    /// Tells whether the set has a token.
    #[must_use]
    pub fn allows(&self, token: Token) -> bool {
        self.0.get(token as usize / WORD).is_some_and(|word| word >> (token as usize % WORD) & 1 == 1)
    }

    /// Returns the lowest token.
    #[must_use]
    pub fn first(&self) -> Option<Token> {
        let (index, word) = self.0.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some((index * WORD) as Token + word.trailing_zeros())
    }

    /// Sets the logits of all other tokens to minus infinity.
    pub fn apply(&self, logits: &mut [f32]) {
        let words = self.0.iter().copied().chain(std::iter::repeat(0));
        for (logits, word) in logits.chunks_mut(WORD).zip(words) {
            match word {
                0 => logits.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                _ => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                    }
                }
            }
        }
    }

    /// Applies the mask and returns the argmax of what is left. Where the model gives every token of
    /// the set a probability of zero, returns the lowest one.
    pub(crate) fn argmax(&self, logits: &mut [f32]) -> Option<usize> {
        self.apply(logits);
        argmax(logits).or_else(|| self.first().map(|token| token as usize).filter(|&token| token < logits.len()))
    }
}

/// The tokens that may follow an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Any of these, an end token among them where the answer may end.
    Tokens(Arc<Mask>),
    /// None: the answer is complete, or it is outside of the language, as a wrong proposal is.
    End,
}

impl Next {
    /// Tells whether `token` is one of these.
    #[must_use]
    pub fn allows(&self, token: Token) -> bool {
        matches!(self, Self::Tokens(mask) if mask.allows(token))
    }
}

/// A language that answers must belong to, independent of vocabularies.
pub trait Grammar: Debug + Send + Sync {
    /// Returns a matcher of what follows `lead`, a beginning of an answer, in the vocabulary of
    /// `codec`. `end_tokens` end a text.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a grammar that cannot be met or exceeds a limit; [`crate::Error::Guide`] for
    /// a `lead` outside the language.
    fn matcher(&self, codec: &TextCodec, end_tokens: &[Token], lead: &[u8]) -> Result<Arc<dyn Matcher>>;
}

impl PartialEq for dyn Grammar {
    /// Grammars are equal if they are one object.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self, other)
    }
}

/// Masks of one answer in one vocabulary.
pub trait Matcher: Debug + Send + Sync {
    /// Returns the tokens that may follow `answer`, a list of tokens behind the lead.
    ///
    /// # Errors
    /// [`crate::Error::Guide`] if matching exceeds a limit.
    fn next(&self, answer: &[Token]) -> Result<Next>;

    /// Tells whether `token` may follow `answer`, which may cost less than a whole mask.
    ///
    /// # Errors
    /// Those of [`Matcher::next`].
    fn allows(&self, answer: &[Token], token: Token) -> Result<bool> {
        Ok(self.next(answer)?.allows(token))
    }
}

/// A matcher together with the position in a session's list from which on it reads tokens.
#[derive(Clone, Debug)]
pub struct Guide {
    matcher: Arc<dyn Matcher>,
    from: usize,
}

impl Guide {
    /// A guide for tokens from position `from` on.
    #[must_use]
    pub fn new(matcher: Arc<dyn Matcher>, from: usize) -> Self {
        Self { matcher, from }
    }

    /// The same guide for a list in which the answer begins elsewhere.
    #[must_use]
    pub(crate) fn moved(&self, from: usize, to: usize) -> Self {
        Self { matcher: self.matcher.clone(), from: (self.from + to).saturating_sub(from) }
    }

    /// Returns the tokens that may follow `list`.
    ///
    /// # Errors
    /// Those of [`Matcher::next`].
    pub fn next(&self, list: &[Token]) -> Result<Next> {
        self.matcher.next(self.answer(list))
    }

    /// Tells whether `token` may follow `list`.
    ///
    /// # Errors
    /// Those of [`Matcher::allows`].
    pub fn allows(&self, list: &[Token], token: Token) -> Result<bool> {
        self.matcher.allows(self.answer(list), token)
    }

    /// The part of a list that the matcher reads.
    fn answer<'a>(&self, list: &'a [Token]) -> &'a [Token] {
        list.get(self.from..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_covers_rows_longer_and_shorter_than_itself() {
        let mut mask = Mask::new(64);
        [0, 31, 32, 63, 64].into_iter().for_each(|token| mask.allow(token));
        mask.forbid(31);
        for len in [1, 33, 64, 100] {
            let mut row = vec![1.0; len];
            mask.apply(&mut row);
            let kept: Vec<_> = (0..len).filter(|&i| row[i] == 1.0).collect();
            assert_eq!(kept, [0, 32, 63].into_iter().filter(|&i| i < len).collect::<Vec<_>>(), "{len}");
        }
        assert_eq!((mask.first(), Mask::new(64).first()), (Some(0), None));
        assert_eq!(Mask::new(8).argmax(&mut [0.0; 8]), None);
    }
}
