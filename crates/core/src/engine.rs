//! Engines and sessions. A session is a token list that can be edited and then asked about.

use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::logits::argmax;
use crate::{
    Caps, Card, Error, Guide, Head, Heads, Layer, Next, Profile, Result, Sampled, Sampling, Scope, Setting, Step, Stop,
    TextCodec, Token, Tree, TreeShape, Values, pick_allowed, top_tokens,
};

/// Natural log-probabilities of the next token over the whole vocabulary.
pub type Row = Vec<f32>;

/// One request to continue a session.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// The choice of each token.
    pub sampling: Sampling,
    /// The number of most likely tokens to return at each position.
    pub top_logprobs: usize,
    /// The constraint on the tokens that are sampled, if there is one.
    pub guide: Option<Guide>,
}

impl Generation {
    /// The same generation, with [`Sampling::spelled_by`] a codec.
    #[must_use]
    pub fn spelled_by(&self, codec: &TextCodec) -> Self {
        Self { sampling: self.sampling.spelled_by(codec), ..self.clone() }
    }

    /// Chooses the step after `list` from the logits that predict it: a token, or the end of the
    /// text at one of `end_tokens` or where the guide's grammar is complete. Overwrites the row.
    /// Returns `None` if the row is not finite. An engine calls it with [`Generation::spelled_by`] its
    /// codec.
    ///
    /// # Errors
    /// The item is that of [`Guide::next`].
    #[must_use]
    pub fn choose(&self, logits: &mut [f32], list: &[Token], end_tokens: &[Token]) -> Option<Result<Step>> {
        let top = top_tokens(logits, self.top_logprobs)?;
        let mask = match self.constraint(logits, list) {
            Ok(None) => None,
            Ok(Some(Next::Tokens(mask))) => Some(mask),
            Ok(Some(Next::End)) => return Some(Ok(Step::End(Stop::End))),
            Err(error) => return Some(Err(error)),
        };
        let sampled = pick_allowed(logits, list, &self.sampling, mask.as_deref())?;
        let is_end = end_tokens.contains(&sampled.token);
        Some(Ok(if is_end { Step::End(Stop::End) } else { Step::Token(Sampled { top, ..sampled }) }))
    }

    /// The guide's limits of a choice; `None` if it changes nothing. A greedy choice needs no mask if
    /// the argmax is allowed, as it is for most tokens.
    fn constraint(&self, logits: &[f32], list: &[Token]) -> Result<Option<Next>> {
        let Some(guide) = &self.guide else { return Ok(None) };
        let best = self.sampling.is_argmax().then(|| argmax(logits)).flatten();
        match best {
            Some(best) if guide.allows(list, best as Token)? => Ok(None),
            _ => guide.next(list).map(Some),
        }
    }
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

/// Facts that the files of a model state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelFiles {
    /// Number of weights; 0 if unknown.
    pub parameters: u64,
    /// Size of the weights, in bytes; 0 if unknown.
    pub bytes: u64,
    /// Values of [`crate::SAMPLING`] that the files recommend, as `generation_config.json` does.
    pub sampling: Values,
}

/// A model that opens sessions.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Returns the name, limits and abilities.
    fn card(&self) -> &Card;

    /// Returns the model's tokenizer and prompt templates.
    fn codec(&self) -> &TextCodec;

    /// Names the device that computes, for people, such as `cpu` or `cuda:0 (NVIDIA H200)`, with the
    /// reason where another one was passed over; `None` for an engine that computes elsewhere.
    fn device(&self) -> Option<String> {
        None
    }

    /// Returns facts that the model's files state; none for an engine that has no files.
    fn files(&self) -> ModelFiles {
        ModelFiles::default()
    }

    /// Returns the number of layers whose states it gives; `None` for an engine that gives none.
    fn layers(&self) -> Option<usize> {
        None
    }

    /// Returns the present activity; all zero for an engine that does not report it.
    fn activity(&self) -> Activity {
        Activity::default()
    }

    /// Returns the profile that speculation reads and updates. Clones share their content, so an engine
    /// that keeps one keeps its measurements from request to request; by default each call returns an
    /// empty one. Of the engines of [`Models::scoped`](crate::Models::scoped) only step times are kept.
    fn profile(&self) -> Profile {
        Profile::default()
    }

    /// Returns the number of weights, if it is known.
    fn weights(&self) -> Option<u64> {
        None
    }

    /// Returns the settings of sampling that the engine does not follow; a job with another value of
    /// one than its default is refused before anything is computed. None by default.
    fn ignored_sampling(&self) -> &[&'static Setting] {
        &[]
    }

    /// Tells whether [`Generation::guide`] has effect: the engine samples under a mask. False by
    /// default.
    fn applies_masks(&self) -> bool {
        false
    }

    /// Opens a session that holds `tokens`. Nothing is computed before the first request.
    ///
    /// # Errors
    /// [`Error::TokenRange`] for ids outside the vocabulary; [`Error::Engine`] if the engine has
    /// stopped.
    async fn open(&self, tokens: &[Token]) -> Result<Box<dyn Session>>;

    /// Opens a session within a [`Scope`]; that of [`Engine::open`] is the default one. By default
    /// scopes make no difference, as in an engine that keeps no caches and has no queue.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    async fn open_in(&self, _scope: Scope, tokens: &[Token]) -> Result<Box<dyn Session>> {
        self.open(tokens).await
    }
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
/// let generation = Generation { max_tokens: 5, sampling: Sampling::default(), top_logprobs: 0, guide: None };
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

    /// The number of tokens whose KV cache was copied from other sessions so far; 0 for an engine
    /// that does not report it.
    fn reused_tokens(&self) -> usize {
        0
    }

    /// Prefills the KV cache, if the engine has one.
    ///
    /// # Errors
    /// Those of [`Session::score`].
    async fn warm(&mut self) -> Result<()> {
        Ok(())
    }

    /// Generates tokens at the end of the list. The stream ends with [`Step::End`], at once where the
    /// list is as long as the context or longer. If it is dropped earlier, the list holds the tokens
    /// yielded so far. Tokens are chosen on the terms of [`Generation::spelled_by`] the engine's codec.
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

    /// Returns, for each position `from..=len`, the first step that [`Session::generate`] would
    /// yield after the list before that position: a token, or [`Step::End`]. Needs
    /// [`Caps::choices`].
    ///
    /// # Errors
    /// Those of [`Session::score`]; [`Error::Lacks`] if the engine lacks the ability.
    async fn choices(&mut self, _from: usize, _generation: &Generation) -> Result<Vec<Step>> {
        Err(lacks(self.card(), Caps { choices: true, ..Caps::GENERATE }))
    }

    /// Returns the rows that predict positions `from..=len` of the list, `len + 1 - from` rows.
    /// Needs [`Caps::logits`].
    ///
    /// # Errors
    /// Those of [`Session::choices`].
    async fn logits(&mut self, _from: usize) -> Result<Vec<Row>> {
        Err(lacks(self.card(), Caps { logits: true, ..Caps::GENERATE }))
    }

    /// Returns hidden states of a layer, one vector for each prefix of `from..=len` tokens. `from`
    /// is at least 1. Needs [`Caps::hidden`].
    ///
    /// # Errors
    /// Those of [`Session::choices`]; [`Error::Engine`] for a layer that the model does not have.
    async fn hidden(&mut self, _from: usize, _layer: Layer) -> Result<Vec<Vec<f32>>> {
        Err(lacks(self.card(), Caps { hidden: true, ..Caps::GENERATE }))
    }

    /// Returns the scores of [`Session::score`] as an inner layer would give them: the residual stream
    /// after `layers` layers, through the final norm and the vocabulary head. Those after all layers
    /// are the model's own. Needs [`Caps::hidden`] and [`Caps::score`].
    ///
    /// # Errors
    /// Those of [`Session::hidden`].
    async fn score_after(&mut self, _from: usize, _layers: usize) -> Result<Vec<f64>> {
        Err(lacks(self.card(), Caps { hidden: true, score: true, ..Caps::GENERATE }))
    }

    /// Returns outputs of a head, one vector for each prefix of `from..=len` tokens. `from` is at
    /// least 1. Needs the head in [`Caps::heads`].
    ///
    /// # Errors
    /// Those of [`Session::choices`].
    async fn outputs(&mut self, head: Head, _from: usize) -> Result<Vec<Vec<f32>>> {
        Err(lacks(self.card(), Caps { heads: Heads::NONE.with(head), ..Caps::GENERATE }))
    }

    /// Returns [`Session::outputs`] of [`Head::REWARD`], one number per label.
    ///
    /// # Errors
    /// Those of [`Session::choices`].
    async fn rewards(&mut self, from: usize) -> Result<Vec<Vec<f32>>> {
        self.outputs(Head::REWARD, from).await
    }

    /// Returns the output of the reward head for the whole list, one number per label. Needs
    /// [`Head::REWARD`] in [`Caps::heads`].
    ///
    /// # Errors
    /// Those of [`Session::choices`].
    async fn reward(&mut self) -> Result<Vec<f32>> {
        let rewards = self.rewards(self.tokens().len()).await?;
        Ok(rewards.into_iter().next_back().unwrap_or_default())
    }

    /// Returns a tree of tokens that the engine's draft head expects after the list; an empty one
    /// where it expects nothing. Needs [`Caps::drafts`].
    ///
    /// # Errors
    /// Those of [`Session::choices`].
    async fn propose(&mut self, _shape: TreeShape) -> Result<Tree> {
        Err(lacks(self.card(), Caps { drafts: true, ..Caps::GENERATE }))
    }

    /// Returns the rows that predict the token after each vertex of a tree that continues the list,
    /// the root first. To accept a path, append [`Tree::spelled`]; the engine keeps the KV cache of
    /// its tokens. Needs [`Caps::trees`] and [`Caps::logits`].
    ///
    /// # Errors
    /// Those of [`Session::choices`].
    async fn tree_logits(&mut self, _tree: &Tree) -> Result<Vec<Row>> {
        Err(lacks(self.card(), Caps { trees: true, logits: true, ..Caps::GENERATE }))
    }

    /// Returns, for each vertex of a tree that continues the list, the root first, the first step
    /// that [`Session::generate`] would yield after it; see [`Tree::accepted`]. Needs
    /// [`Caps::trees`] and [`Caps::choices`].
    ///
    /// # Errors
    /// Those of [`Session::choices`].
    async fn tree_choices(&mut self, _tree: &Tree, _generation: &Generation) -> Result<Vec<Step>> {
        Err(lacks(self.card(), Caps { trees: true, choices: true, ..Caps::GENERATE }))
    }
}

/// Returns the error of a request that needs the abilities `needed`.
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
