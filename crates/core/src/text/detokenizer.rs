//! Tokens to text as they come.

use std::sync::Arc;

use super::Tokenizer;
use crate::{Result, Token};

/// Tokens of the context that are decoded along: enough for any decoder to know what stands before the first new one.
const CONTEXT: usize = 32;
/// Tokens after which a character that will not complete is let out as U+FFFD.
const PATIENCE: usize = 8;

/// Turns tokens into text one by one, so that the pieces joined equal the whole decoded at once.
///
/// A tokenizer's decoder sees more than one token (leading spaces, characters spread over bytes), so each step decodes a
/// window that reaches back to text already let out and takes what is new.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Arc<dyn Tokenizer>,
    tokens: Vec<Token>,
    /// The window begins here...
    window: usize,
    /// ...and its text up to here has been let out.
    done: usize,
}

impl Detokenizer {
    pub(super) fn new(tokenizer: Arc<dyn Tokenizer>, context: &[Token]) -> Self {
        let tokens = context[context.len().saturating_sub(CONTEXT)..].to_vec();
        let done = tokens.len();
        Self { tokenizer, tokens, window: 0, done }
    }

    /// The text that `token` adds; empty while a character is incomplete.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn push(&mut self, token: Token) -> Result<String> {
        self.tokens.push(token);
        let new = self.pending()?;
        if new.is_empty() || (new.ends_with('\u{FFFD}') && self.tokens.len() - self.done < PATIENCE) {
            return Ok(String::new());
        }
        self.window = self.done;
        self.done = self.tokens.len();
        Ok(new)
    }

    /// What is left when no token follows: an incomplete character, as U+FFFD.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn flush(&mut self) -> Result<String> {
        let new = self.pending()?;
        self.done = self.tokens.len();
        self.window = self.done;
        Ok(new)
    }

    /// The text of the tokens that has not been let out.
    fn pending(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.tokens[self.window..self.done])?;
        let mut now = self.tokenizer.decode(&self.tokens[self.window..])?;
        match now.starts_with(&before) {
            true => Ok(now.split_off(before.len())),
            // The earlier tokens read differently now that more follow them: only a decoder that joins bytes does so.
            false => Ok(now.chars().skip(before.chars().count()).collect()),
        }
    }
}
