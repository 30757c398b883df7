//! Engines and sessions: a session is a token list that you may edit, then ask about.

use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::{Error, Result, Sampling, TextCodec, Token, Tree, likeliest};

/// Natural log-probabilities of the next token over the whole vocabulary.
pub type Row = Vec<f32>;

/// The abilities of an engine besides generating. Each names the questions of [`Session`] that need
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Log-probabilities of given tokens ([`Session::score`]).
    pub score: bool,
    /// Whole rows of log-probabilities ([`Session::logits`]).
    pub logits: bool,
    /// Tokens the model would choose along a list ([`Session::choices`]).
    pub choices: bool,
    /// Hidden states ([`Session::hidden`]).
    pub hidden: bool,
    /// Outputs of a reward head ([`Session::rewards`]).
    pub reward: bool,
    /// Trees of continuations ([`Session::tree_choices`], and [`Session::tree_logits`] with
    /// `logits`).
    pub trees: bool,
}

impl Caps {
    /// Generation alone.
    pub const GENERATE: Self =
        Self { score: false, logits: false, choices: false, hidden: false, reward: false, trees: false };

    /// Every ability with its description.
    fn list(self) -> [(bool, &'static str); 6] {
        [
            (self.score, "log-probabilities of given tokens"),
            (self.logits, "whole rows of logits"),
            (self.choices, "its choices at given positions"),
            (self.hidden, "hidden states"),
            (self.reward, "rewards"),
            (self.trees, "trees of continuations"),
        ]
    }

    /// Describes the first of these abilities that is not among `given`.
    ///
    /// ```
    /// use wsd_core::Caps;
    ///
    /// let remote = Caps { score: true, ..Caps::GENERATE };
    /// assert_eq!(Caps { score: true, ..Caps::GENERATE }.lacking(remote), None);
    /// assert_eq!(Caps { reward: true, ..Caps::GENERATE }.lacking(remote), Some("rewards"));
    /// ```
    #[must_use]
    pub fn lacking(self, given: Self) -> Option<&'static str> {
        let pairs = self.list().into_iter().zip(given.list());
        pairs.into_iter().find_map(|((needed, about), (given, _))| (needed && !given).then_some(about))
    }
}

/// A place in a model whose hidden states are returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layer {
    /// After the final norm: the input of the output heads.
    #[default]
    Final,
    /// The residual stream after this number of layers; 0 for the embeddings.
    After(usize),
}

/// Costs of asking an engine. They affect the duration of an answer and none of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The engine computes elsewhere, so that it and another engine can work at the same time.
    pub is_remote: bool,
    /// Each [`Session::score`] computes the whole list again: few calls for many tokens cost less
    /// than many for few.
    pub rescores_from_start: bool,
}

/// The properties of an engine.
#[derive(Clone, Debug)]
pub struct Card {
    /// The model's name for messages and listings.
    pub name: String,
    /// Context length in tokens, prompt and answer together.
    pub max_len: usize,
    /// Entries in the model's output row.
    pub vocab: usize,
    /// Abilities besides generating.
    pub caps: Caps,
    /// Costs of asking it.
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

/// One request to continue a session.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The largest number of tokens to write.
    pub max_tokens: usize,
    /// Parameters of the choice of each token.
    pub sampling: Sampling,
    /// The number of top-k tokens to report at each position.
    pub top_logprobs: usize,
}

/// A token that was sampled, or given and scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token, in the engine's vocabulary.
    pub token: Token,
    /// Natural log-probability under the plain softmax, whatever the sampling settings. `None`
    /// where an engine does not report it for a token it sampled; always present for a scored
    /// token.
    pub logprob: Option<f64>,
    /// The likeliest tokens at its position, likeliest first, as many as were asked for.
    pub top: Vec<(Token, f64)>,
}

/// The activity of an engine at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Sessions that hold a cache.
    pub slots: usize,
    /// Questions being answered.
    pub working: usize,
    /// Steps run so far.
    pub steps: usize,
    /// Tokens that sessions got from the caches of others so far.
    pub reused_tokens: usize,
}

/// The reason for the end of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// An end-of-text token was sampled. It is neither yielded nor kept.
    End,
    /// `max_tokens` were written, or the context is full.
    Length,
}

/// An item of a generation's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The next token, already at the end of the session's list.
    Token(Sampled),
    /// The last item of every stream.
    End(Stop),
}

/// The tokens of one generation, collected.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The tokens, which are now at the end of the session's list.
    pub tokens: Vec<Sampled>,
    /// The reason for the end.
    pub stop: Stop,
    /// Time it took, in seconds.
    pub seconds: f64,
}

impl Written {
    /// The token ids alone.
    #[must_use]
    pub fn ids(&self) -> Vec<Token> {
        self.tokens.iter().map(|sampled| sampled.token).collect()
    }
}

/// A model that can be asked.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Returns name, limits and abilities.
    fn card(&self) -> &Card;

    /// The model's tokenizer and chat template.
    fn codec(&self) -> &TextCodec;

    /// Returns its activity; all zeros for an engine that does not report it.
    fn activity(&self) -> Activity {
        Activity::default()
    }

    /// Open a session that holds `tokens`; nothing is computed before it is asked.
    ///
    /// # Errors
    /// [`crate::Error::TokenRange`] for ids outside the vocabulary; [`crate::Error::Engine`] when
    /// no slot can be had.
    async fn open(&self, tokens: &[Token]) -> Result<Box<dyn Session>>;
}

/// A token list that you may edit.
///
/// The engine keeps whatever cache matches the list's beginning, so `append` and `truncate` are
/// free and rollback needs no protocol: *edit, then ask* gives what *a fresh session, then ask*
/// gives. Dropping a session, or a future or stream it returned, frees what it held in the engine.
#[async_trait]
pub trait Session: Send {
    /// The engine's card.
    fn card(&self) -> &Card;

    /// The list.
    fn tokens(&self) -> &[Token];

    /// The list, to be changed at its end.
    fn tokens_mut(&mut self) -> &mut Vec<Token>;

    /// Add tokens to the end.
    fn append(&mut self, tokens: &[Token]) {
        self.tokens_mut().extend_from_slice(tokens);
    }

    /// Keep the first `len` tokens.
    fn truncate(&mut self, len: usize) {
        self.tokens_mut().truncate(len);
    }

    /// Prefills the KV cache with the list, if the engine has one.
    ///
    /// # Errors
    /// As [`Session::score`].
    async fn warm(&mut self) -> Result<()> {
        Ok(())
    }

    /// Samples onto the end of the list. The stream ends with [`Step::End`] and may be dropped at
    /// any token: the list then holds what was yielded.
    fn generate<'a>(&'a mut self, generation: &'a Generation) -> BoxStream<'a, Result<Step>>;

    /// `ln p(tokens[i] | tokens[..i])` for every `i >= from`, under the plain softmax. `from` is at
    /// least 1.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] where the model computes NaN; [`crate::Error::Engine`] when the
    /// engine fails.
    async fn score(&mut self, from: usize) -> Result<Vec<f64>>;

    /// Scores as [`Session::score`] does and adds the `top` likeliest tokens at each position.
    /// Above 0 needs [`Caps::logits`], unless the engine has another way.
    ///
    /// # Errors
    /// As [`Session::score`].
    async fn score_top(&mut self, from: usize, top: usize) -> Result<Vec<Sampled>> {
        let logprobs = self.score(from).await?;
        let rows = if top > 0 { self.logits(from).await? } else { Vec::new() };
        let tops = rows.iter().map(|row| likeliest(row, top).unwrap_or_default()).chain(std::iter::repeat(Vec::new()));
        let scored = self.tokens().iter().skip(from).zip(logprobs).zip(tops);
        Ok(scored.map(|((&token, logprob), top)| Sampled { token, logprob: Some(logprob), top }).collect())
    }

    /// Returns what [`Session::generate`] would write first at each position `from..=len`, given
    /// the list before that position: a token each, or [`Step::End`]. Needs [`Caps::choices`].
    ///
    /// # Errors
    /// As [`Session::score`]; [`Error::Lacks`] where the engine is not able to.
    async fn choices(&mut self, _from: usize, _generation: &Generation) -> Result<Vec<Step>> {
        Err(lacks(self.card(), Caps { choices: true, ..Caps::GENERATE }))
    }

    /// Returns rows predicting positions `from..=len` of the list, `len + 1 - from` of them. Needs
    /// [`Caps::logits`].
    ///
    /// # Errors
    /// As [`Session::choices`].
    async fn logits(&mut self, _from: usize) -> Result<Vec<Row>> {
        Err(lacks(self.card(), Caps { logits: true, ..Caps::GENERATE }))
    }

    /// Returns hidden states of a layer, one vector for each prefix of `from..=len` tokens. `from`
    /// is at least 1. Needs [`Caps::hidden`].
    ///
    /// # Errors
    /// As [`Session::choices`]; [`Error::Engine`] for a layer that the model does not have.
    async fn hidden(&mut self, _from: usize, _layer: Layer) -> Result<Vec<Vec<f32>>> {
        Err(lacks(self.card(), Caps { hidden: true, ..Caps::GENERATE }))
    }

    /// Returns outputs of the reward head, one number per label, for each prefix of `from..=len`
    /// tokens. `from` is at least 1. Needs [`Caps::reward`].
    ///
    /// # Errors
    /// As [`Session::choices`].
    async fn rewards(&mut self, _from: usize) -> Result<Vec<Vec<f32>>> {
        Err(lacks(self.card(), Caps { reward: true, ..Caps::GENERATE }))
    }

    /// Returns the output of the reward head for the whole list, one number per label. Needs
    /// [`Caps::reward`].
    ///
    /// # Errors
    /// As [`Session::choices`].
    async fn reward(&mut self) -> Result<Vec<f32>> {
        let rewards = self.rewards(self.tokens().len()).await?;
        Ok(rewards.into_iter().next_back().unwrap_or_default())
    }

    /// Returns rows predicting the token after each vertex of a tree that continues the list, the
    /// root first. To accept a path, append [`Tree::spelled`]: the engine keeps what it computed of
    /// it. Needs [`Caps::trees`] and [`Caps::logits`].
    ///
    /// # Errors
    /// As [`Session::choices`].
    async fn tree_logits(&mut self, _tree: &Tree) -> Result<Vec<Row>> {
        Err(lacks(self.card(), Caps { trees: true, logits: true, ..Caps::GENERATE }))
    }

    /// Returns what [`Session::generate`] would write first after each vertex of a tree that
    /// continues the list, the root first; see [`Tree::accepted`]. Needs [`Caps::trees`].
    ///
    /// # Errors
    /// As [`Session::choices`].
    async fn tree_choices(&mut self, _tree: &Tree, _generation: &Generation) -> Result<Vec<Step>> {
        Err(lacks(self.card(), Caps { trees: true, choices: true, ..Caps::GENERATE }))
    }
}

/// The error for a question that needs `needed`.
fn lacks(card: &Card, needed: Caps) -> Error {
    let need = needed.lacking(card.caps).unwrap_or("an answer to this question");
    Error::Lacks { engine: card.name.clone(), need }
}

impl dyn Session + '_ {
    /// Runs a generation to its end and collects its tokens.
    ///
    /// # Errors
    /// Those of [`Session::generate`].
    pub async fn write(&mut self, generation: &Generation) -> Result<Written> {
        let started = Instant::now();
        let (mut tokens, mut stop) = (Vec::new(), Stop::Length);
        let mut steps = self.generate(generation);
        while let Some(step) = steps.next().await {
            match step? {
                Step::Token(sampled) => tokens.push(sampled),
                Step::End(end) => stop = end,
            }
        }
        drop(steps);
        Ok(Written { tokens, stop, seconds: started.elapsed().as_secs_f64() })
    }
}
