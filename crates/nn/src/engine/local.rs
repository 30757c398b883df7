//! An engine in this process, and its sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use wsd_core::{
    Activity, Caps, Card, Cost, Engine, Error, Generation, Row, Sampled, Session, Step, Stop, TextCodec, Token,
};

use super::caches::Caches;
use super::scheduler::{Message, Scheduler};
use super::work::Work;
use crate::checkpoint::{Checkpoint, TemplateChoice};
use crate::device::Device;
use crate::format::Format;
use crate::load;

/// Tokens that the engine may be ahead of a reader.
const READ_AHEAD: usize = 64;

/// How to load a checkpoint.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The model's name, for people.
    pub name: String,
    /// Threads to compute with; all cores where not given.
    pub threads: Option<usize>,
    /// What to compute on.
    pub device: Device,
    /// Compute with matrices in this format. Where not given, a CPU maps them in the file's own, and a candle device
    /// chooses F32, F16 or BF16 by itself and the file.
    pub dtype: Option<Format>,
    /// How the model writes conversations.
    pub template: TemplateChoice,
    /// A shorter context than the model's.
    pub max_len: Option<usize>,
    /// Sessions open at once; more wait.
    pub max_sessions: usize,
    /// Tokens of ended sessions whose keys and values stay in memory, so that sessions which begin alike need not compute them.
    /// With 0, open sessions share nothing either.
    pub prefix_cache_tokens: usize,
}

impl LoadOptions {
    /// [`LoadOptions::prefix_cache_tokens`] where nothing is said.
    pub const PREFIX_CACHE_TOKENS: usize = 4096;

    /// The defaults for a model of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            threads: None,
            device: Device::default(),
            dtype: None,
            template: TemplateChoice::Own,
            max_len: None,
            max_sessions: 64,
            prefix_cache_tokens: Self::PREFIX_CACHE_TOKENS,
        }
    }
}

/// A checkpoint, loaded and run by a thread of its own.
pub struct Local {
    card: Card,
    text: TextCodec,
    inbox: Sender<Message>,
    permits: Arc<Semaphore>,
    next_slot: AtomicU64,
    activity: Arc<Mutex<Activity>>,
}

impl Local {
    /// Load a checkpoint onto a device.
    ///
    /// # Errors
    /// [`crate::Error`] names every tensor, key or limit at fault.
    pub fn load(checkpoint: Checkpoint, options: &LoadOptions) -> crate::Result<Self> {
        let executor = load::load(options.device, &checkpoint, options.dtype)?;
        let blueprint = executor.blueprint();
        let card = Card {
            name: options.name.clone(),
            max_len: options.max_len.map_or(blueprint.max_len, |len| len.min(blueprint.max_len)),
            vocab: blueprint.vocab,
            caps: Caps { score: true, logits: true, choices: true },
            cost: Cost::default(),
            end_tokens: checkpoint.end_tokens.clone(),
        };
        let text = checkpoint.into_codec(&options.name, &options.template)?.with_limit(card.max_len);
        let (inbox, receiver) = channel();
        let activity = Arc::new(Mutex::new(Activity::default()));
        let caches = Caches::new(options.prefix_cache_tokens);
        let scheduler = Scheduler::new(executor, card.clone(), caches, receiver, activity.clone());
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or(0))
            .thread_name(|i| format!("wsd-engine-{i}"))
            .build()
            .map_err(|error| crate::Error::Threads { threads: options.threads, reason: error.to_string() })?;
        // The loop lives on a thread of the pool, so that handing work to the others costs no hop.
        std::thread::spawn(move || pool.install(|| scheduler.run()));
        let permits = Arc::new(Semaphore::new(options.max_sessions.max(1)));
        Ok(Self { card, text, inbox, permits, next_slot: AtomicU64::new(0), activity })
    }
}

#[async_trait]
impl Engine for Local {
    fn card(&self) -> &Card {
        &self.card
    }

    fn codec(&self) -> &TextCodec {
        &self.text
    }

    fn activity(&self) -> Activity {
        *self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, tokens: &[Token]) -> wsd_core::Result<Box<dyn Session>> {
        self.card.check(tokens)?;
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| stopped(&self.card))?;
        Ok(Box::new(Open {
            slot: self.next_slot.fetch_add(1, Ordering::Relaxed),
            tokens: tokens.to_vec(),
            card: self.card.clone(),
            inbox: self.inbox.clone(),
            _permit: permit,
        }))
    }
}

/// The device thread is gone, which only a fault of its own can bring about.
fn stopped(card: &Card) -> Error {
    Error::Engine { engine: card.name.clone(), message: "the engine's thread has ended".into() }
}

struct Open {
    slot: u64,
    tokens: Vec<Token>,
    card: Card,
    inbox: Sender<Message>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.inbox.send(Message::Close(self.slot));
    }
}

impl Open {
    /// Ask about the list from position `from` on, which must follow at least one token.
    async fn ask<T>(
        &self,
        from: usize,
        work: impl FnOnce(u64, Vec<Token>, usize, oneshot::Sender<wsd_core::Result<T>>) -> Work,
    ) -> wsd_core::Result<T> {
        if from == 0 || from > self.tokens.len() {
            let message =
                format!("asked from position {from} of {} tokens; the first has nothing before it", self.tokens.len());
            return Err(Error::Engine { engine: self.card.name.clone(), message });
        }
        let (reply, answer) = oneshot::channel();
        let work = work(self.slot, self.tokens.clone(), from, reply);
        self.inbox.send(Message::Ask(work)).map_err(|_| stopped(&self.card))?;
        answer.await.map_err(|_| stopped(&self.card))?
    }
}

#[async_trait]
impl Session for Open {
    fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    fn tokens_mut(&mut self) -> &mut Vec<Token> {
        &mut self.tokens
    }

    async fn warm(&mut self) -> wsd_core::Result<()> {
        // To score the last token is to run all before it.
        let last = self.tokens.len().saturating_sub(1);
        if last == 0 { Ok(()) } else { self.score(last).await.map(drop) }
    }

    fn generate<'a>(&'a mut self, plan: &'a Generation) -> BoxStream<'a, wsd_core::Result<Step>> {
        let (reply, steps) = mpsc::channel(READ_AHEAD);
        let asked = if self.tokens.is_empty() {
            Err(Error::EmptyPrompt { engine: self.card.name.clone() })
        } else {
            let work = Work::generate(self.slot, self.tokens.clone(), plan.clone(), self.card.max_len, reply);
            self.inbox.send(Message::Ask(work)).map_err(|_| stopped(&self.card))
        };
        let asked = stream::iter(asked.err().map(Err));
        let state = (self, steps, plan.max_tokens, false);
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
        let scored = self.score_top(from, 0).await?;
        scored.into_iter().map(|scored| scored.logprob).collect::<Option<_>>().ok_or_else(|| Error::Engine {
            engine: self.card.name.clone(),
            message: "a scored token has no log-probability".into(),
        })
    }

    async fn score_top(&mut self, from: usize, top: usize) -> wsd_core::Result<Vec<Sampled>> {
        self.ask(from, |slot, tokens, from, reply| Work::score(slot, tokens, from, top, reply)).await
    }

    async fn choices(&mut self, from: usize, plan: &Generation) -> wsd_core::Result<Vec<Step>> {
        let plan = plan.clone();
        self.ask(from, |slot, tokens, from, reply| Work::choices(slot, tokens, from, plan, reply)).await
    }

    async fn logits(&mut self, from: usize) -> wsd_core::Result<Vec<Row>> {
        self.ask(from, Work::logits).await
    }
}
