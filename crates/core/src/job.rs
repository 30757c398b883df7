//! Requests: a prompt, and the limits and sampling of the answer.

use std::sync::Arc;

use crate::tokens::MAX_TOKENS_LIMIT;
use crate::{Engine, Error, Grammar, Guide, Prompt, Result, Sampling, Setting, Values};

/// The setting for the length of an answer.
pub static MAX_TOKENS: Setting =
    Setting::integer("max_tokens", "At most this many tokens in an answer", 1..=MAX_TOKENS_LIMIT)
        .with_default_integer(512)
        .with_placeholder("TOKENS")
        .with_short('n');

/// The setting for strings that end an answer.
pub static STOP: Setting = Setting::texts(
    "stop",
    "Stop string: the answer ends just before the first occurrence of this text; may be repeated",
);

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
    /// The language that the answer must belong to, if it is constrained. The stop strings of the
    /// prompt's form do not apply then.
    pub grammar: Option<Arc<dyn Grammar>>,
}

impl Default for Terms {
    fn default() -> Self {
        Self::from_values(&Values::default())
    }
}

impl Terms {
    /// The terms set by [`TERMS`] and [`crate::SAMPLING`] in `values`.
    #[must_use]
    pub fn from_values(values: &Values) -> Self {
        Self {
            max_tokens: values.get(&MAX_TOKENS),
            sampling: Sampling::from_values(values),
            stop: values.get(&STOP),
            top_logprobs: 0,
            grammar: None,
        }
    }

    /// The guide for what `engine` writes from position `from` of its list on, behind the beginning
    /// `lead` of the answer; `None` without a grammar.
    ///
    /// # Errors
    /// Those of [`Grammar::matcher`]; [`Error::Unguided`] for an engine that applies no masks.
    pub fn guide(&self, engine: &dyn Engine, lead: &[u8], from: usize) -> Result<Option<Guide>> {
        let Some(grammar) = &self.grammar else { return Ok(None) };
        if !engine.applies_masks() {
            return Err(Error::Unguided { engine: engine.card().name.clone() });
        }
        let matcher = grammar.matcher(engine.codec(), &engine.card().end_tokens, lead)?;
        Ok(Some(Guide::new(matcher, from)))
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first value outside them.
    pub fn check(&self) -> Result<()> {
        if self.max_tokens == 0 {
            return Err(Error::Setting { name: MAX_TOKENS.name, limit: "at least 1".into(), value: "0".into() });
        }
        self.sampling.check()
    }
}

/// One request: a prompt to continue, and the terms.
///
/// ```
/// use wsd_core::{ChatRole, Job, Message, Prompt, Terms};
///
/// let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, "How do I keep bees?")]);
/// let job = Job { prompt, terms: Terms { max_tokens: 64, stop: vec!["\n\n".into()], ..Terms::default() } };
/// assert!(job.terms.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The text to continue.
    pub prompt: Prompt,
    /// The limits and the sampling of the answer.
    pub terms: Terms,
}
