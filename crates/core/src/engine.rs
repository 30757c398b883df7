//! Engines and sessions. A session is a token list that can be edited and then asked about.

use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::{Error, Result, Sampled, Sampling, Step, Stop, TextCodec, Token, Tree, top_tokens};

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
    /// The tokens that the engine would choose at given positions ([`Session::choices`]).
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

/// The cost model of an engine. It changes the cost of an answer and none of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// True if the engine computes on another machine, so that it and another engine can work at
    /// the same time.
    pub is_remote: bool,
    /// True if each [`Session::score`] computes the list from its beginning, so that few calls for
    /// many tokens cost less than many calls for few tokens.
    pub rescores_from_start: bool,
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

/// One request to continue a session.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// The choice of each token.
    pub sampling: Sampling,
    /// The number of most likely tokens to return at each position.
    pub top_logprobs: usize,
}

/// The activity of an engine at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Sessions that hold a KV cache.
    pub slots: usize,
    /// Requests being computed.
    pub working: usize,
    /// Steps (forward passes) run so far.
    pub steps: usize,
    /// Tokens whose KV cache was copied from another session so far.
    pub reused_tokens: usize,
}

/// The tokens of one generation, collected.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The tokens, which are now at the end of the session's list.
    pub tokens: Vec<Sampled>,
    /// The reason why the generation ended.
    pub stop: Stop,
    /// Duration in seconds.
    pub seconds: f64,
}

impl Written {
    /// Returns the token ids.
    #[must_use]
    pub fn ids(&self) -> Vec<Token> {
        self.tokens.iter().map(|sampled| sampled.token).collect()
    }
}

/// A model that opens sessions.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Returns the name, limits and abilities.
    fn card(&self) -> &Card;

    /// Returns the model's tokenizer and prompt templates.
    fn codec(&self) -> &TextCodec;

    /// Returns the present activity; all zero for an engine that does not report it.
    fn activity(&self) -> Activity {
        Activity::default()
    }

    /// Opens a session that holds `tokens`. Nothing is computed before the first request.
    ///
    /// # Errors
    /// [`Error::TokenRange`] for ids outside the vocabulary; [`Error::Engine`] if the engine has
    /// stopped.
    async fn open(&self, tokens: &[Token]) -> Result<Box<dyn Session>>;
}

/// A token list that can be edited and then asked about.
///
/// The engine keeps whatever KV cache matches a prefix of the list, so `append` and `truncate` cost
/// nothing and rollback needs no protocol: *edit, then ask* gives what *a fresh session, then ask*
/// gives. Dropping a session, or a future or stream it returned, frees what it held in the engine.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{BEGIN, Pieces, Scripted};
/// use wsd_core::{Engine as _, Generation, Sampling};
///
/// # futures::executor::block_on(async {
/// let engine = Scripted::random("demo", Arc::new(Pieces::letters("abcd ")), 1);
/// let mut session = engine.open(&[BEGIN]).await?;
/// let generation = Generation { max_tokens: 5, sampling: Sampling::default(), top_logprobs: 0 };
/// let written = session.write(&generation).await?;
/// assert_eq!(session.tokens()[1..], written.ids());
///
/// // Scoring the tokens gives the log-probabilities with which they were generated.
/// let logprobs: Vec<_> = written.tokens.iter().filter_map(|sampled| sampled.logprob).collect();
/// assert_eq!(session.score(1).await?, logprobs);
///
/// // After a rollback the engine writes the same tokens again.
/// session.truncate(3);
/// let again = session.write(&Generation { max_tokens: 3, ..generation }).await?;
/// assert_eq!(again.ids(), written.ids()[2..]);
/// # Ok::<(), wsd_core::Error>(()) }).unwrap();
/// ```
#[async_trait]
pub trait Session: Send {
    /// Returns the engine's card.
    fn card(&self) -> &Card;

    /// Returns the list.
    fn tokens(&self) -> &[Token];

    /// Returns the list for editing.
    fn tokens_mut(&mut self) -> &mut Vec<Token>;

    /// Appends tokens.
    fn append(&mut self, tokens: &[Token]) {
        self.tokens_mut().extend_from_slice(tokens);
    }

    /// Keeps the first `len` tokens.
    fn truncate(&mut self, len: usize) {
        self.tokens_mut().truncate(len);
    }

    /// Prefills the KV cache, if the engine has one.
    ///
    /// # Errors
    /// Those of [`Session::score`].
    async fn warm(&mut self) -> Result<()> {
        Ok(())
    }

    /// Generates tokens at the end of the list. The stream ends with [`Step::End`]. If it is
    /// dropped earlier, the list holds the tokens yielded so far.
    fn generate<'a>(&'a mut self, generation: &'a Generation) -> BoxStream<'a, Result<Step>>;

    /// Returns `ln p(tokens[i] | tokens[..i])` for every `i >= from` under the plain softmax.
    /// `from` is at least 1. Needs [`Caps::score`].
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the model computes NaN or infinity; [`Error::Engine`] if the engine
    /// fails.
    async fn score(&mut self, from: usize) -> Result<Vec<f64>>;

    /// Returns the scores of [`Session::score`] together with the `top` most likely tokens at each
    /// position. By default a `top` above 0 needs [`Caps::logits`].
    ///
    /// # Errors
    /// Those of [`Session::score`].
    async fn score_top(&mut self, from: usize, top: usize) -> Result<Vec<Sampled>> {
        let logprobs = self.score(from).await?;
        let rows = if top > 0 { self.logits(from).await? } else { Vec::new() };
        let tops = rows.iter().map(|row| top_tokens(row, top).unwrap_or_default()).chain(std::iter::repeat(Vec::new()));
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
