//! The description of an engine: name, limits, abilities and cost.

use crate::{Error, Head, Heads, Result, Token};

/// The abilities of an engine besides generating. Each names the questions of [`crate::Session`]
/// that need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Log-probabilities of given tokens ([`crate::Session::score`]).
    pub score: bool,
    /// Whole rows of log-probabilities ([`crate::Session::logits`]).
    pub logits: bool,
    /// The tokens that the engine would choose at given positions ([`crate::Session::choices`]).
    pub choices: bool,
    /// Hidden states ([`crate::Session::hidden`]).
    pub hidden: bool,
    /// Outputs of these heads ([`crate::Session::outputs`]).
    pub heads: Heads,
    /// Trees of continuations ([`crate::Session::tree_choices`], and
    /// [`crate::Session::tree_logits`] with `logits`).
    pub trees: bool,
    /// Trees that a draft head proposes ([`crate::Session::propose`]).
    pub drafts: bool,
}

impl Caps {
    /// Generation alone.
    pub const GENERATE: Self = Self {
        score: false,
        logits: false,
        choices: false,
        hidden: false,
        heads: Heads::NONE,
        trees: false,
        drafts: false,
    };

    /// Every ability but the heads, with its description.
    fn list(self) -> [(bool, &'static str); 6] {
        [
            (self.score, "log-probabilities of given tokens"),
            (self.logits, "whole rows of logits"),
            (self.choices, "its choices at given positions"),
            (self.hidden, "hidden states"),
            (self.trees, "trees of continuations"),
            (self.drafts, "proposals of a draft head (--head FOLDER)"),
        ]
    }

    /// Describes the first of these abilities that is not among `given`.
    ///
    /// ```
    /// use wsd_core::{Caps, Head, Heads};
    ///
    /// let remote = Caps { score: true, ..Caps::GENERATE };
    /// assert_eq!(Caps { score: true, ..Caps::GENERATE }.lacking(remote), None);
    /// let judging = Caps { heads: Heads::NONE.with(Head::REWARD), ..Caps::GENERATE };
    /// assert_eq!(judging.lacking(remote), Some("rewards"));
    /// ```
    #[must_use]
    pub fn lacking(self, given: Self) -> Option<&'static str> {
        let mut pairs = self.list().into_iter().zip(given.list());
        let flag = pairs.find_map(|((needed, about), (given, _))| (needed && !given).then_some(about));
        flag.or_else(|| self.heads.iter().find(|head| !given.heads.contains(*head)).map(Head::outputs))
    }
}

/// The cost model of an engine. It changes the cost of an answer and none of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// True if the engine computes on another machine.
    pub is_remote: bool,
    /// True if the engine computes on a GPU, in a stream of work of its own.
    pub has_stream: bool,
    /// True if each [`crate::Session::score`] computes the list from its beginning, so that few
    /// calls for many tokens cost less than many calls for few tokens.
    pub rescores_from_start: bool,
}

impl Cost {
    /// Tells whether the engine and another one can work at the same time.
    #[must_use]
    pub fn is_parallel(self) -> bool {
        self.is_remote || self.has_stream
    }
}

/// The description of an engine.
#[derive(Clone, Debug)]
pub struct Card {
    /// The model's name in messages.
    pub name: String,
    /// Context length in tokens, prompt and answer together.
    pub max_len: usize,
    /// Entries in a row of logits.
    pub vocab: usize,
    /// The abilities besides generating.
    pub caps: Caps,
    /// The cost model.
    pub cost: Cost,
    /// Tokens that end a text.
    pub end_tokens: Vec<Token>,
}

impl Card {
    /// Checks that every token is in the vocabulary.
    ///
    /// # Errors
    /// [`Error::TokenRange`] names the first one outside.
    pub fn check(&self, tokens: &[Token]) -> Result<()> {
        match tokens.iter().find(|&&token| token as usize >= self.vocab) {
            Some(&token) => Err(Error::TokenRange { engine: self.name.clone(), token, limit: self.vocab }),
            None => Ok(()),
        }
    }
}
