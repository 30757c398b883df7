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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::{
    Activity, BosTokens, Caps, Card, Cost, Engine, Error, Generation, Head, Heads, Layer, Result, Row, Sampled,
    Session, Step, Stop, Template, TextCodec, Token, Tokenizer, Tree, Vocabulary, log_softmax, logprob, pick,
    splitmix64, top_tokens,
};

/// The end-of-text token of every scripted vocabulary.
pub const END: Token = 0;
/// The beginning-of-text token of every scripted vocabulary.
pub const BEGIN: Token = 1;

/// A tokenizer over given pieces, which encodes a text by the longest piece at each position.
#[derive(Debug)]
pub struct Pieces {
    vocabulary: Vocabulary,
    longest: usize,
}

impl Pieces {
    /// A vocabulary of [`END`], [`BEGIN`], and one token per piece.
    #[must_use]
    pub fn new(pieces: impl IntoIterator<Item = String>) -> Self {
        let special = ["</s>".to_owned(), "<s>".to_owned()];
        let pieces: Vec<_> = special.into_iter().chain(pieces).map(Some).collect();
        let longest = pieces.iter().skip(2).flatten().map(String::len).max().unwrap_or(0);
        let special = (0..pieces.len()).map(|id| id < 2).collect();
        Self { vocabulary: Vocabulary { pieces, special, decoder: "pieces".into() }, longest }
    }

    /// A vocabulary of one token per character.
    #[must_use]
    pub fn letters(letters: &str) -> Self {
        Self::new(letters.chars().map(String::from))
    }
}

impl Tokenizer for Pieces {
    fn encode(&self, text: &str) -> Result<Vec<Token>> {
        let (mut tokens, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let fits = |piece: &&(usize, &String)| rest.starts_with(piece.1.as_str());
            let pieces = self.vocabulary.pieces.iter().enumerate().skip(2);
            let pieces: Vec<_> = pieces.filter_map(|(id, piece)| piece.as_ref().map(|piece| (id, piece))).collect();
            let (id, piece) = pieces.iter().filter(fits).max_by_key(|(_, piece)| piece.len()).ok_or_else(|| {
                Error::Tokenizer { name: "pieces".into(), message: format!("no piece begins {rest:?}") }
            })?;
            tokens.push(*id as Token);
            rest = &rest[piece.len()..];
        }
        Ok(tokens)
    }

    fn decode(&self, tokens: &[Token]) -> Result<String> {
        let text = tokens.iter().filter(|&&token| !self.vocabulary.is_special(token));
        Ok(text.filter_map(|&token| self.vocabulary.pieces.get(token as usize)?.as_deref()).collect())
    }

    fn settled(&self, text: &str) -> usize {
        let mut end = 0;
        for token in self.encode(text).unwrap_or_default() {
            if end + self.longest > text.len() {
                break;
            }
            end += self.vocabulary.pieces[token as usize].as_ref().map_or(0, String::len);
        }
        end
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

type Outputs = dyn Fn(&[Token]) -> Vec<f32> + Send + Sync;

/// Counters of an engine, shared with its sessions.
#[derive(Debug, Default)]
struct Counters {
    sessions: AtomicUsize,
    steps: AtomicUsize,
}

/// An engine whose next row is a function of the tokens before it.
pub struct Scripted {
    card: Card,
    codec: TextCodec,
    rows: Arc<Outputs>,
    heads: BTreeMap<Head, Arc<Outputs>>,
    counters: Arc<Counters>,
}

impl Scripted {
    /// Makes a model that computes logits by `rows`. Its hidden states are its logits. It has every
    /// ability, and the head of the vocabulary; see [`Scripted::with_caps`] and
    /// [`Scripted::with_head`].
    #[must_use]
    pub fn new(name: &str, pieces: Arc<Pieces>, rows: impl Fn(&[Token]) -> Row + Send + Sync + 'static) -> Self {
        let vocab = pieces.vocabulary.pieces.len();
        let heads = Heads::NONE.with(Head::VOCABULARY);
        let caps = Caps { score: true, logits: true, choices: true, hidden: true, heads, trees: true };
        let card = Card { name: name.into(), max_len: 4096, vocab, caps, cost: Cost::default(), end_tokens: vec![END] };
        let bos = BosTokens { chat: Some(BEGIN), raw: Some(BEGIN) };
        let codec = TextCodec::new(name, pieces, Some(Template::Plain), bos);
        let rows: Arc<Outputs> = Arc::new(rows);
        let heads = BTreeMap::from([(Head::VOCABULARY, rows.clone())]);
        Self { card, codec, rows, heads, counters: Arc::default() }
    }

    /// An engine with random logits that depend on the last two tokens and a seed. It never ends a
    /// text.
    #[must_use]
    pub fn random(name: &str, pieces: Arc<Pieces>, seed: u64) -> Self {
        let vocab = pieces.vocabulary.pieces.len();
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

    fn activity(&self) -> Activity {
        Activity { slots: self.sessions(), working: 0, steps: self.steps(), reused_tokens: 0 }
    }

    async fn open(&self, tokens: &[Token]) -> Result<Box<dyn Session>> {
        self.card.check(tokens)?;
        self.counters.sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(ScriptedSession {
            tokens: tokens.to_vec(),
            card: self.card.clone(),
            rows: self.rows.clone(),
            heads: self.heads.clone(),
            counters: self.counters.clone(),
        }))
    }
}

struct ScriptedSession {
    tokens: Vec<Token>,
    card: Card,
    rows: Arc<Outputs>,
    heads: BTreeMap<Head, Arc<Outputs>>,
    counters: Arc<Counters>,
}

impl Drop for ScriptedSession {
    fn drop(&mut self) {
        self.counters.sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ScriptedSession {
    fn not_finite(&self, position: usize) -> Error {
        Error::NotFinite { engine: self.card.name.clone(), position }
    }

    /// The logits after `list`, as log-probabilities.
    fn row(&self, list: &[Token]) -> Result<Row> {
        let mut row = (self.rows)(list);
        log_softmax(&mut row).ok_or_else(|| self.not_finite(list.len()))?;
        Ok(row)
    }

    /// The token chosen after `list`; none where that ends the text.
    fn choose(&self, list: &[Token], generation: &Generation) -> Result<Option<Sampled>> {
        let mut row = (self.rows)(list);
        let top = top_tokens(&row, generation.top_logprobs).ok_or_else(|| self.not_finite(list.len()))?;
        let sampled = pick(&mut row, list, &generation.sampling).ok_or_else(|| self.not_finite(list.len()))?;
        self.counters.steps.fetch_add(1, Ordering::SeqCst);
        let is_end = self.card.end_tokens.contains(&sampled.token);
        Ok((!is_end).then_some(Sampled { top, ..sampled }))
    }

    fn choice(&self, list: &[Token], generation: &Generation) -> Result<Step> {
        Ok(self.choose(list, generation)?.map_or(Step::End(Stop::End), Step::Token))
    }

    /// The list continued to each vertex of a tree, the root first.
    fn continued<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = Vec<Token>> + 'a {
        (0..=tree.len() as u32).map(|vertex| [self.tokens.clone(), tree.spelled(vertex)].concat())
    }

    /// Fails for a first position that no prefix ends before.
    fn check(&self, from: usize) -> Result<()> {
        if from > 0 {
            return Ok(());
        }
        let message = "asked about the first token, which has nothing before it".into();
        Err(Error::Engine { engine: self.card.name.clone(), message })
    }
}

#[async_trait]
impl Session for ScriptedSession {
    fn card(&self) -> &Card {
        &self.card
    }

    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn tokens_mut(&mut self) -> &mut Vec<Token> {
        &mut self.tokens
    }

    fn generate<'a>(&'a mut self, generation: &'a Generation) -> BoxStream<'a, Result<Step>> {
        stream::unfold((self, generation.max_tokens, false), move |(session, left, ended)| async move {
            if ended {
                return None;
            }
            if left == 0 || session.tokens.len() >= session.card.max_len {
                return Some((Ok(Step::End(Stop::Length)), (session, 0, true)));
            }
            yield_once().await;
            Some(match session.choose(&session.tokens, generation) {
                Ok(Some(sampled)) => {
                    session.tokens.push(sampled.token);
                    (Ok(Step::Token(sampled)), (session, left - 1, false))
                }
                Ok(None) => (Ok(Step::End(Stop::End)), (session, 0, true)),
                Err(error) => (Err(error), (session, 0, true)),
            })
        })
        .boxed()
    }

    async fn score(&mut self, from: usize) -> Result<Vec<f64>> {
        yield_once().await;
        self.check(from)?;
        (from..self.tokens.len())
            .map(|i| {
                let row = (self.rows)(&self.tokens[..i]);
                logprob(&row, self.tokens[i]).ok_or_else(|| self.not_finite(i))
            })
            .collect()
    }

    async fn choices(&mut self, from: usize, generation: &Generation) -> Result<Vec<Step>> {
        yield_once().await;
        (from..=self.tokens.len()).map(|len| self.choice(&self.tokens[..len], generation)).collect()
    }

    async fn logits(&mut self, from: usize) -> Result<Vec<Row>> {
        yield_once().await;
        (from..=self.tokens.len()).map(|len| self.row(&self.tokens[..len])).collect()
    }

    async fn hidden(&mut self, from: usize, _layer: Layer) -> Result<Vec<Vec<f32>>> {
        yield_once().await;
        self.check(from)?;
        Ok((from..=self.tokens.len()).map(|len| (self.rows)(&self.tokens[..len])).collect())
    }

    async fn outputs(&mut self, head: Head, from: usize) -> Result<Vec<Vec<f32>>> {
        yield_once().await;
        self.check(from)?;
        let lacks = || Error::Lacks { engine: self.card.name.clone(), need: head.outputs() };
        let outputs = self.heads.get(&head).ok_or_else(lacks)?;
        Ok((from..=self.tokens.len()).map(|len| outputs(&self.tokens[..len])).collect())
    }

    async fn tree_logits(&mut self, tree: &Tree) -> Result<Vec<Row>> {
        yield_once().await;
        self.continued(tree).map(|list| self.row(&list)).collect()
    }

    async fn tree_choices(&mut self, tree: &Tree, generation: &Generation) -> Result<Vec<Step>> {
        yield_once().await;
        self.continued(tree).map(|list| self.choice(&list, generation)).collect()
    }
}

/// Suspends once, as an engine that computes on another thread does.
async fn yield_once() {
    let mut yielded = false;
    futures::future::poll_fn(|context| {
        if yielded {
            return std::task::Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    #[test]
    fn a_tree_has_the_choices_of_its_paths() {
        futures::executor::block_on(async {
            let engine = Scripted::random("tiny", Arc::new(Pieces::letters("abcdef")), 3);
            let greedy = Generation { max_tokens: 3, sampling: Sampling::default(), top_logprobs: 1 };
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
