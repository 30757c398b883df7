//! Sessions of a scripted engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::{
    Beam, Card, Error, Generation, Head, Layer, Result, Row, Session, Step, Stop, TextCodec, Token, Tree, TreeShape,
    log_softmax, logprob, splitmix64,
};

/// Computes the output of a head for a token list: for the vocabulary's, the logits that follow it.
pub(super) type Outputs = dyn Fn(&[Token]) -> Vec<f32> + Send + Sync;

/// Counters of an engine, shared with its sessions.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Number of open sessions.
    pub(super) sessions: AtomicUsize,
    /// Number of tokens generated so far.
    pub(super) steps: AtomicUsize,
}

/// The range of the differences between the logits of the draft head and those of the model.
const DRAFT_ERROR: f32 = 4.0;

/// A session of a [`super::Scripted`] engine.
pub(super) struct ScriptedSession {
    pub(super) tokens: Vec<Token>,
    pub(super) card: Card,
    pub(super) codec: TextCodec,
    pub(super) rows: Arc<Outputs>,
    pub(super) heads: BTreeMap<Head, Arc<Outputs>>,
    pub(super) counters: Arc<Counters>,
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

    /// Computes the log-probabilities of the token after `list`, over the vocabulary.
    fn row(&self, list: &[Token]) -> Result<Row> {
        let mut row = (self.rows)(list);
        log_softmax(&mut row).ok_or_else(|| self.not_finite(list.len()))?;
        Ok(row)
    }

    /// Chooses the token after `list`; an end-of-text token is a [`Step::End`].
    fn choose(&self, list: &[Token], generation: &Generation) -> Result<Step> {
        let generation = generation.spelled_by(&self.codec);
        let step = generation.choose(&mut (self.rows)(list), list, &self.card.end_tokens);
        self.counters.steps.fetch_add(1, Ordering::SeqCst);
        step.ok_or_else(|| self.not_finite(list.len()))?
    }

    /// Computes the logits of the draft head after `list`: those of the model, each changed by up to
    /// [`DRAFT_ERROR`].
    fn drafted(&self, list: &[Token]) -> Row {
        let mut row = (self.rows)(list);
        for (id, logit) in row.iter_mut().enumerate() {
            let hash = splitmix64((list.len() as u64) << 32 ^ id as u64);
            *logit += DRAFT_ERROR * ((hash >> 40) as f32 / (1 << 24) as f32 - 0.5);
        }
        row
    }

    /// Iterates over the vertices of `tree`, the root first, and yields for each the session's list
    /// followed by the path to it.
    fn lists<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = Vec<Token>> + 'a {
        (0..=tree.len() as u32).map(|vertex| [self.tokens.clone(), tree.spelled(vertex)].concat())
    }

    /// Refuses `from == 0`: the first token has no context to be predicted from.
    fn check_from(&self, from: usize) -> Result<()> {
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
        stream::unfold((self, generation.max_tokens, false), move |(session, remaining, has_ended)| async move {
            if has_ended {
                return None;
            }
            if remaining == 0 || session.tokens.len() >= session.card.max_len {
                return Some((Ok(Step::End(Stop::Length)), (session, 0, true)));
            }
            yield_once().await;
            Some(match session.choose(&session.tokens, generation) {
                Ok(Step::Token(sampled)) => {
                    session.tokens.push(sampled.token);
                    (Ok(Step::Token(sampled)), (session, remaining - 1, false))
                }
                end_or_error => (end_or_error, (session, 0, true)),
            })
        })
        .boxed()
    }

    async fn score(&mut self, from: usize) -> Result<Vec<f64>> {
        yield_once().await;
        self.check_from(from)?;
        (from..self.tokens.len())
            .map(|i| {
                let row = (self.rows)(&self.tokens[..i]);
                logprob(&row, self.tokens[i]).ok_or_else(|| self.not_finite(i))
            })
            .collect()
    }

    async fn choices(&mut self, from: usize, generation: &Generation) -> Result<Vec<Step>> {
        yield_once().await;
        (from..=self.tokens.len()).map(|len| self.choose(&self.tokens[..len], generation)).collect()
    }

    async fn logits(&mut self, from: usize) -> Result<Vec<Row>> {
        yield_once().await;
        (from..=self.tokens.len()).map(|len| self.row(&self.tokens[..len])).collect()
    }

    async fn hidden(&mut self, from: usize, _layer: Layer) -> Result<Vec<Vec<f32>>> {
        yield_once().await;
        self.check_from(from)?;
        Ok((from..=self.tokens.len()).map(|len| (self.rows)(&self.tokens[..len])).collect())
    }

    async fn outputs(&mut self, head: Head, from: usize) -> Result<Vec<Vec<f32>>> {
        yield_once().await;
        self.check_from(from)?;
        let lacks = || Error::Lacks { engine: self.card.name.clone(), need: head.outputs() };
        let outputs = self.heads.get(&head).ok_or_else(lacks)?;
        Ok((from..=self.tokens.len()).map(|len| outputs(&self.tokens[..len])).collect())
    }

    async fn propose(&mut self, shape: TreeShape) -> Result<Tree> {
        yield_once().await;
        let Some(mut beam) = Beam::new(shape, &self.drafted(&self.tokens)) else { return Ok(Tree::default()) };
        while !beam.level().is_empty() {
            let row = |&node: &usize| {
                let path = beam.ancestors(node).into_iter().chain([node]);
                self.drafted(&self.tokens.iter().copied().chain(path.map(|node| beam.token(node))).collect::<Vec<_>>())
            };
            let rows: Vec<_> = beam.level().iter().map(row).collect();
            if beam.expand(rows.iter().map(Vec::as_slice)).is_none() {
                return Ok(Tree::default());
            }
        }
        Ok(beam.tree())
    }

    async fn tree_logits(&mut self, tree: &Tree) -> Result<Vec<Row>> {
        yield_once().await;
        self.lists(tree).map(|list| self.row(&list)).collect()
    }

    async fn tree_choices(&mut self, tree: &Tree, generation: &Generation) -> Result<Vec<Step>> {
        yield_once().await;
        self.lists(tree).map(|list| self.choose(&list, generation)).collect()
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
