//! Requests: a prompt, and the terms on which it is continued.

use crate::{Error, Prompt, Result, Sampling, Setting, Values};

/// The most tokens that a setting may ask for.
pub(crate) const MAX_TOKENS_LIMIT: u64 = 1 << 20;

/// The setting for the length of an answer.
pub static MAX_TOKENS: Setting =
    Setting::integer("max_tokens", "At most this many tokens in an answer", 1..=MAX_TOKENS_LIMIT)
        .with_default_integer(512)
        .with_placeholder("TOKENS")
        .with_short('n');

/// The setting for strings that end an answer.
pub static STOP: Setting =
    Setting::texts("stop", "End the answer before this text, besides where the chat form ends; may be repeated");

/// The settings of [`Terms`] that are not the sampler's.
pub static TERMS: &[&Setting] = &[&MAX_TOKENS, &STOP];

/// The limits and the sampling of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The most tokens in the answer, at least 1.
    pub max_tokens: usize,
    /// The choice of each token.
    pub sampling: Sampling,
    /// Strings that end the answer, besides those of the prompt's form.
    pub stop: Vec<String>,
    /// The number of most likely tokens to name at each position of the answer.
    pub top_logprobs: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self::from_values(&Values::default())
    }
}

impl Terms {
    /// The terms that [`TERMS`] and [`crate::SAMPLING`] have in `values`.
    #[must_use]
    pub fn from_values(values: &Values) -> Self {
        Self {
            max_tokens: values.get(&MAX_TOKENS),
            sampling: Sampling::from_values(values),
            stop: values.get(&STOP),
            top_logprobs: 0,
        }
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first value outside them.
    pub fn check(&self) -> Result<()> {
        if self.max_tokens == 0 {
            return Err(Error::Setting { name: MAX_TOKENS.name, limit: "at least 1".into(), value: "0".into() });
        }
        self.sampling.check().map(drop)
    }
}

/// One request: a prompt to continue, and the terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The text to continue.
    pub prompt: Prompt,
    /// The limits and the sampling of the answer.
    pub terms: Terms,
}
