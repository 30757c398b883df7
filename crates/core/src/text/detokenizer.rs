//! Streaming conversion of tokens to text.

use std::sync::Arc;

use super::Tokenizer;
use crate::{Result, Token};

/// Tokens of the context that are decoded together with the first new one: enough for any decoder
/// to treat that token as a continuation.
const CONTEXT: usize = 32;
/// Tokens after which an incomplete character is returned as U+FFFD.
const MAX_CHARACTER_TOKENS: usize = 8;

/// A streaming decoder: the texts it returns, joined, equal the text of all tokens decoded at once.
///
/// The text of a token depends on its neighbors (leading spaces, characters spread over several
/// tokens), so each step decodes a window that reaches back to text already returned, and returns
/// the rest.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{Pieces, Scripted};
/// use wsd_core::Engine as _;
/// let model = Scripted::random("demo", Arc::new(Pieces::letters("ab ")), 1);
/// let mut detokenizer = model.codec().detokenizer(&[]);
/// let tokens = model.codec().tokenizer().encode("ab a")?;
/// let mut text = String::new();
/// for token in tokens {
///     text += &detokenizer.push(token)?;
/// }
/// assert_eq!(text, "ab a");
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Arc<dyn Tokenizer>,
    tokens: Vec<Token>,
    /// Index of the window's first token.
    window: usize,
    /// Index of the first token whose text has not been returned.
    done: usize,
}

impl Detokenizer {
    pub(super) fn new(tokenizer: Arc<dyn Tokenizer>, context: &[Token]) -> Self {
        let tokens = context[context.len().saturating_sub(CONTEXT)..].to_vec();
        let done = tokens.len();
        Self { tokenizer, tokens, window: 0, done }
    }

    /// Returns the text that `token` adds; empty while a character is incomplete.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn push(&mut self, token: Token) -> Result<String> {
        self.tokens.push(token);
        let new = self.pending()?;
        if new.is_empty() || (new.ends_with('\u{FFFD}') && self.tokens.len() - self.done < MAX_CHARACTER_TOKENS) {
            return Ok(String::new());
        }
        self.window = self.done;
        self.done = self.tokens.len();
        Ok(new)
    }

    /// Returns the text left at the end: an incomplete character, as U+FFFD, or nothing.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn flush(&mut self) -> Result<String> {
        let new = self.pending()?;
        self.done = self.tokens.len();
        self.window = self.done;
        Ok(new)
    }

    /// Returns the text that has not been returned yet.
    fn pending(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.tokens[self.window..self.done])?;
        let mut now = self.tokenizer.decode(&self.tokens[self.window..])?;
        if now.starts_with(&before) {
            return Ok(now.split_off(before.len()));
        }
        // The text of the earlier tokens changed because more follow. Only decoders that join bytes
        // into characters do so, and they keep the number of characters.
        Ok(now.chars().skip(before.chars().count()).collect())
    }
}
