//! Sessions of an engine in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use wsd_core::{
    Caps, Card, Error, Generation, Head, Layer, Row, Sampled, Session, Step, Stop, TextCodec, Token, Tree, TreeShape,
};

use super::list::List;
use super::prefix_cache::Place;
use super::questions::{Choices, Collect, Generate, Hidden, Inner, Outputs, Propose, Question, Reader, Rows, Score};
use super::scheduler::Message;
use super::work::Work;

/// Tokens that may be buffered for a slow client.
const READ_AHEAD: usize = 64;

/// A session of an engine in this process: its list, and the way to the device thread.
pub(super) struct Open {
    pub(super) place: Place,
    pub(super) tokens: Vec<Token>,
    pub(super) card: Card,
    pub(super) text: TextCodec,
    pub(super) inbox: Sender<Message>,
    /// Tokens copied from the caches of other sessions.
    pub(super) reused: Arc<AtomicUsize>,
    /// The place among the sessions that may be open.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// The error for a device thread that ended, which happens only if it panicked.
pub(super) fn stopped(card: &Card) -> Error {
    Error::Engine { engine: card.name.clone(), message: "the engine's thread has ended".into() }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Close(self.place.slot));
    }
}

impl Open {
    /// Sends a question to the device thread.
    fn send(&self, list: List, question: impl Question + 'static) -> wsd_core::Result<()> {
        let work = Work::new(self.place, list, question).counting(self.reused.clone());
        self.inbox.send(Message::Ask(work)).map_err(|_| stopped(&self.card))
    }

    /// Reads one item for each prefix of `from..=len` tokens.
    async fn collect<R: Reader>(&self, from: usize, reader: R) -> wsd_core::Result<Vec<R::Item>> {
        if from == 0 || from > self.tokens.len() {
            let message =
                format!("asked from position {from} of {} tokens; the first has nothing before it", self.tokens.len());
            return Err(Error::Engine { engine: self.card.name.clone(), message });
        }
        let (reply, answer) = oneshot::channel();
        self.send(List::new(self.tokens.clone(), from - 1), Collect::new(reader, reply))?;
        answer.await.map_err(|_| stopped(&self.card))?
    }

    /// Reads one item for each vertex of a tree that continues the list.
    async fn collect_tree<R: Reader>(&self, tree: &Tree, reader: R) -> wsd_core::Result<Vec<R::Item>> {
        if self.tokens.is_empty() {
            return Err(Error::EmptyPrompt { engine: self.card.name.clone() });
        }
        let (reply, answer) = oneshot::channel();
        self.send(List::with_tree(self.tokens.clone(), tree.clone()), Collect::new(reader, reply))?;
        answer.await.map_err(|_| stopped(&self.card))?
    }

    fn choosing(&self, generation: &Generation) -> Choices {
        Choices { generation: generation.spelled_by(&self.text), end_tokens: self.card.end_tokens.clone() }
    }

    /// Tokens that a generation may still write.
    fn left(&self, generation: &Generation) -> usize {
        generation.max_tokens.min(self.card.max_len.saturating_sub(self.tokens.len()))
    }
}

#[async_trait]
impl Session for Open {
    fn card(&self) -> &Card {
        &self.card
    }

    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn tokens_mut(&mut self) -> &mut Vec<Token> {
        &mut self.tokens
    }

    fn reused_tokens(&self) -> usize {
        self.reused.load(Ordering::Relaxed)
    }

    async fn warm(&mut self) -> wsd_core::Result<()> {
        // Scoring the last token runs all before it.
        let last = self.tokens.len().saturating_sub(1);
        if last == 0 { Ok(()) } else { self.score(last).await.map(drop) }
    }

    fn generate<'a>(&'a mut self, generation: &'a Generation) -> BoxStream<'a, wsd_core::Result<Step>> {
        let (reply, steps) = mpsc::channel(READ_AHEAD);
        let asked = match self.left(generation) {
            _ if self.tokens.is_empty() => Err(Error::EmptyPrompt { engine: self.card.name.clone() }),
            // The list may even be longer than the context: it follows the text of another model.
            0 => Ok(()),
            left => {
                let question = Generate::new(self.choosing(generation), left, reply);
                self.send(List::new(self.tokens.clone(), self.tokens.len() - 1), question)
            }
        };
        let asked = stream::iter(asked.err().map(Err));
        let state = (self, steps, generation.max_tokens, false);
        let steps = stream::unfold(state, |(session, mut steps, left, ended)| async move {
            if ended {
                return None;
            }
            let full = left == 0 || session.tokens.len() >= session.card.max_len;
            let step = match steps.recv().await {
                Some(step) => step,
                None if full => Ok(Step::End(Stop::Length)),
                None => Err(stopped(&session.card)),
            };
            let mut left = left;
            if let Ok(Step::Token(sampled)) = &step {
                session.tokens.push(sampled.token);
                left -= 1;
            }
            let ended = !matches!(step, Ok(Step::Token(_)));
            Some((step, (session, steps, left, ended)))
        });
        asked.chain(steps).boxed()
    }

    async fn score(&mut self, from: usize) -> wsd_core::Result<Vec<f64>> {
        // Every scored token has its log-probability.
        Ok(self.score_top(from, 0).await?.into_iter().filter_map(|scored| scored.logprob).collect())
    }

    async fn score_top(&mut self, from: usize, top: usize) -> wsd_core::Result<Vec<Sampled>> {
        self.collect(from, Score { top }).await
    }

    async fn choices(&mut self, from: usize, generation: &Generation) -> wsd_core::Result<Vec<Step>> {
        self.collect(from, self.choosing(generation)).await?.into_iter().collect()
    }

    async fn logits(&mut self, from: usize) -> wsd_core::Result<Vec<Row>> {
        self.collect(from, Rows).await
    }

    async fn hidden(&mut self, from: usize, layer: Layer) -> wsd_core::Result<Vec<Vec<f32>>> {
        self.collect(from, Hidden { layer }).await
    }

    async fn score_after(&mut self, from: usize, layers: usize) -> wsd_core::Result<Vec<f64>> {
        self.collect(from, Inner { layers }).await
    }

    async fn outputs(&mut self, head: Head, from: usize) -> wsd_core::Result<Vec<Vec<f32>>> {
        if !self.card.caps.heads.contains(head) {
            return Err(Error::Lacks { engine: self.card.name.clone(), need: head.outputs() });
        }
        self.collect(from, Outputs { head }).await
    }

    async fn propose(&mut self, shape: TreeShape) -> wsd_core::Result<Tree> {
        if !self.card.caps.drafts {
            let need = Caps { drafts: true, ..Caps::GENERATE }.lacking(self.card.caps).unwrap_or("a draft head");
            return Err(Error::Lacks { engine: self.card.name.clone(), need });
        }
        if self.tokens.is_empty() {
            return Err(Error::EmptyPrompt { engine: self.card.name.clone() });
        }
        let (reply, answer) = oneshot::channel();
        self.send(List::new(self.tokens.clone(), 0), Propose::new(shape, reply))?;
        answer.await.map_err(|_| stopped(&self.card))?
    }

    async fn tree_logits(&mut self, tree: &Tree) -> wsd_core::Result<Vec<Row>> {
        self.collect_tree(tree, Rows).await
    }

    async fn tree_choices(&mut self, tree: &Tree, generation: &Generation) -> wsd_core::Result<Vec<Step>> {
        self.collect_tree(tree, self.choosing(generation)).await?.into_iter().collect()
    }
}
