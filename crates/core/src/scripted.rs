//! A tiny deterministic engine, to test everything above engines without weights.
//!
//! [`Scripted`] computes each row of logits by a given function of the tokens before it, over a
//! vocabulary of [`Pieces`].
//!
//! ```
//! use std::sync::Arc;
//! use futures::StreamExt as _;
//! use wsd_core::scripted::{Pieces, Scripted};
//! use wsd_core::{Event, Job, Models, Prompt, Recipe, Seat, Terms, Values, run};
//!
//! # futures::executor::block_on(async {
//! let pieces = Arc::new(Pieces::letters("abc "));
//! let models = Models::default()
//!     .with(Seat::DRAFT, Arc::new(Scripted::random("draft", pieces.clone(), 1)))
//!     .with(Seat::BASE, Arc::new(Scripted::random("base", pieces, 2)));
//! let wsd = Recipe::find("wsd")?.build(&models, &Values::default())?;
//! let job = Job { prompt: Prompt::Raw("ab".into()), terms: Terms { max_tokens: 20, ..Terms::default() } };
//! let events: Vec<_> = run(wsd, job).collect().await;
//! assert!(matches!(events.last(), Some(Ok(Event::Done(_)))));
//! # Ok::<(), wsd_core::Error>(()) }).unwrap();
//! ```

mod pieces;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;

use crate::{
    Activity, BosTokens, Caps, Card, Cost, Engine, Head, Heads, Profile, Result, Row, Session, Template, TextCodec,
    Token, Tokenizer as _, splitmix64,
};

pub use pieces::{BEGIN, END, Pieces};
use session::{Counters, Outputs, ScriptedSession};

/// An engine whose next row is a function of the tokens before it.
pub struct Scripted {
    card: Card,
    codec: TextCodec,
    rows: Arc<Outputs>,
    heads: BTreeMap<Head, Arc<Outputs>>,
    counters: Arc<Counters>,
    profile: Profile,
    weights: Option<u64>,
}

impl Scripted {
    /// Makes a model that computes logits by `rows`. Its hidden states are its logits, and its
    /// draft head expects what other logits, near its own, tell. It has every
    /// ability, and the head of the vocabulary; see [`Scripted::with_caps`] and
    /// [`Scripted::with_head`].
    #[must_use]
    pub fn new(name: &str, pieces: Arc<Pieces>, rows: impl Fn(&[Token]) -> Row + Send + Sync + 'static) -> Self {
        let vocab = pieces.vocabulary().pieces.len();
        let heads = Heads::NONE.with(Head::VOCABULARY);
        let caps = Caps { score: true, logits: true, choices: true, hidden: true, heads, trees: true, drafts: true };
        let card = Card { name: name.into(), max_len: 4096, vocab, caps, cost: Cost::default(), end_tokens: vec![END] };
        let bos = BosTokens { chat: Some(BEGIN), raw: Some(BEGIN) };
        let codec = TextCodec::new(name, pieces, Some(Template::Plain), bos);
        let rows: Arc<Outputs> = Arc::new(rows);
        let heads = BTreeMap::from([(Head::VOCABULARY, rows.clone())]);
        Self { card, codec, rows, heads, counters: Arc::default(), profile: Profile::default(), weights: None }
    }

    /// An engine with random logits that depend on the last two tokens and a seed. It never ends a
    /// text.
    #[must_use]
    pub fn random(name: &str, pieces: Arc<Pieces>, seed: u64) -> Self {
        let vocab = pieces.vocabulary().pieces.len();
        Self::new(name, pieces, move |tokens| {
            let last = tokens.iter().rev().take(2).fold(seed, |hash, &token| splitmix64(hash ^ u64::from(token)));
            let logit = |id: usize| (splitmix64(last ^ splitmix64(id as u64)) >> 40) as f32 / (1 << 24) as f32 * 12.0;
            (0..vocab).map(|id| if id < 2 { f32::NEG_INFINITY } else { logit(id) }).collect()
        })
    }

    /// The same model with a further head: `outputs` gives its output for a list.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use wsd_core::scripted::{Pieces, Scripted};
    /// use wsd_core::{Engine as _, Head};
    ///
    /// # futures::executor::block_on(async {
    /// let judge = Scripted::random("judge", Arc::new(Pieces::letters("abc")), 1);
    /// let judge = judge.with_head(Head::REWARD, |tokens| vec![tokens.len() as f32 / 10.0]);
    /// let mut session = judge.open(&[2, 3, 4]).await?;
    /// assert_eq!(session.reward().await?, [0.3]);
    /// assert_eq!(session.rewards(1).await?, [[0.1], [0.2], [0.3]]);
    /// # Ok::<(), wsd_core::Error>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn with_head(mut self, head: Head, outputs: impl Fn(&[Token]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        self.card.caps.heads = self.card.caps.heads.with(head);
        self.heads.insert(head, Arc::new(outputs));
        self
    }

    /// The same model with other abilities.
    #[must_use]
    pub fn with_caps(mut self, caps: Caps) -> Self {
        self.card.caps = caps;
        self
    }

    /// The same engine with another cost model.
    #[must_use]
    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.card.cost = cost;
        self
    }

    /// The same engine with a given profile, such as that of a simulated speed.
    #[must_use]
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// The same engine with a given number of weights.
    #[must_use]
    pub fn with_weights(mut self, weights: u64) -> Self {
        self.weights = Some(weights);
        self
    }

    /// The same engine with a context of `max_len` tokens.
    #[must_use]
    pub fn with_context(mut self, max_len: usize) -> Self {
        self.card.max_len = max_len;
        self
    }

    /// The same engine without a beginning-of-text token.
    #[must_use]
    pub fn without_bos(mut self) -> Self {
        let tokenizer = self.codec.tokenizer().clone();
        self.codec = TextCodec::new(&self.card.name, tokenizer, Some(Template::Plain), BosTokens::default());
        self
    }

    /// Returns the number of open sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.counters.sessions.load(Ordering::SeqCst)
    }

    /// Returns the number of tokens generated so far, over all sessions.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.counters.steps.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Engine for Scripted {
    fn card(&self) -> &Card {
        &self.card
    }

    fn codec(&self) -> &TextCodec {
        &self.codec
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn weights(&self) -> Option<u64> {
        self.weights
    }

    fn activity(&self) -> Activity {
        Activity { slots: self.sessions(), working: 0, steps: self.steps(), reused_tokens: 0 }
    }

    fn applies_masks(&self) -> bool {
        true
    }

    async fn open(&self, tokens: &[Token]) -> Result<Box<dyn Session>> {
        self.card.check(tokens)?;
        self.counters.sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(ScriptedSession {
            tokens: tokens.to_vec(),
            card: self.card.clone(),
            codec: self.codec.clone(),
            rows: self.rows.clone(),
            heads: self.heads.clone(),
            counters: self.counters.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, Sampling, Tree};

    #[test]
    fn a_tree_has_the_choices_of_its_paths() {
        futures::executor::block_on(async {
            let engine = Scripted::random("tiny", Arc::new(Pieces::letters("abcdef")), 3);
            let greedy = Generation { max_tokens: 3, sampling: Sampling::default(), top_logprobs: 1, guide: None };
            let written = engine.open(&[2, 3]).await.unwrap().write(&greedy).await.unwrap().ids();
            let mut session = engine.open(&[2, 3]).await.unwrap();
            let mut tree = Tree::chain(&written[..2]);
            tree.push(1, written[1] ^ 1).unwrap();
            let choices = session.tree_choices(&tree, &greedy).await.unwrap();
            assert_eq!(tree.accepted(&choices), 2);
            for vertex in 0..=tree.len() as u32 {
                let mut chain = engine.open(&[vec![2, 3], tree.spelled(vertex)].concat()).await.unwrap();
                let last = chain.tokens().len();
                assert_eq!(chain.choices(last, &greedy).await.unwrap(), choices[vertex as usize..][..1]);
            }
        });
    }

    #[test]
    fn an_engine_without_a_reward_head_names_itself() {
        let engine = Scripted::random("tiny", Arc::new(Pieces::letters("ab")), 3);
        let error = futures::executor::block_on(async { engine.open(&[2]).await.unwrap().reward().await.unwrap_err() });
        assert_eq!(error.to_string(), "engine `tiny` cannot return rewards");
    }
}
