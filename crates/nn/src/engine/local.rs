//! An engine in this process, and its sessions.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use wsd_core::{
    Activity, Caps, Card, Cost, Engine, Error, Generation, Head, Heads, Layer, ModelFiles, Profile, Row, Sampled,
    Scope, Session, Step, Stop, TextCodec, Token, Tree, TreeShape,
};

use super::drafter::Drafter;
use super::list::List;
use super::prefix_cache::{Place, PrefixCache};
use super::questions::{Choices, Collect, Generate, Hidden, Inner, Outputs, Propose, Question, Reader, Rows, Score};
use super::scheduler::{Message, Scheduler};
use super::work::Work;
use crate::adapter::Adapter;
use crate::arch::{Blueprint, tensors};
use crate::checkpoint::{Checkpoint, TemplateChoice};
use crate::cpu::{CpuOptions, DraftLayer};
use crate::device::Device;
use crate::draft::DraftHead;
use crate::format::Format;
use crate::kernels::KvFormat;
use crate::load::load;

/// Tokens that may be buffered for a slow client.
const READ_AHEAD: usize = 64;

/// Options for loading a checkpoint.
///
/// ```
/// use wsd_nn::{Device, LoadOptions};
///
/// let options = LoadOptions { device: Device::Cpu, max_len: Some(2048), ..LoadOptions::new("draft") };
/// assert_eq!(options.prefix_cache_tokens, LoadOptions::PREFIX_CACHE_TOKENS);
/// ```
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The model's name for messages and listings.
    pub name: String,
    /// The number of threads; by default one per core.
    pub threads: Option<usize>,
    /// The device to compute on.
    pub device: Device,
    /// The format to compute with matrices in. By default a CPU keeps that of the file, and a
    /// candle device chooses F32, F16 or BF16.
    pub dtype: Option<Format>,
    /// The number format of cached keys and values. By default a CPU caches half precision.
    pub kv_dtype: Option<KvFormat>,
    /// The template for conversations.
    pub template: TemplateChoice,
    /// Folders of LoRA adapters in PEFT's form, all added to the model; see [`Adapter::open`].
    pub adapters: Vec<PathBuf>,
    /// The folder of a draft head for the model; see [`DraftHead::open`].
    pub draft_head: Option<PathBuf>,
    /// The context length in tokens, if shorter than the model's.
    pub max_len: Option<usize>,
    /// The number of sessions that may be open at once; further ones wait.
    pub max_sessions: usize,
    /// Capacity of the prefix cache: tokens of ended sessions whose KV caches are kept for later
    /// sessions with a common prefix. With 0, open sessions share nothing either.
    pub prefix_cache_tokens: usize,
}

impl LoadOptions {
    /// The default of [`LoadOptions::prefix_cache_tokens`].
    pub const PREFIX_CACHE_TOKENS: usize = 4096;

    /// Returns the defaults for a model of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            threads: None,
            device: Device::default(),
            dtype: None,
            kv_dtype: None,
            adapters: Vec::new(),
            draft_head: None,
            template: TemplateChoice::Own,
            max_len: None,
            max_sessions: 64,
            prefix_cache_tokens: Self::PREFIX_CACHE_TOKENS,
        }
    }
}

/// An engine that runs a loaded checkpoint on its own thread.
///
/// ```
/// use wsd_core::{Engine as _, Tree};
/// use wsd_nn::{Checkpoint, LoadOptions, Local, TemplateChoice};
///
/// # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
/// let options = LoadOptions { template: TemplateChoice::Plain, ..LoadOptions::new("tiny") };
/// let engine = Local::load(Checkpoint::open(&folder)?, &options)?;
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut session = engine.open(&[5, 6, 7]).await?;
/// // Two tokens follow the first: two log-probabilities.
/// assert_eq!(session.score(1).await?.len(), 2);
/// // Rows predict the tokens after the root and after each node of a tree.
/// let tree = Tree::try_new([(0, 8), (1, 9), (0, 10)])?;
/// assert_eq!(session.tree_logits(&tree).await?.len(), 4);
/// session.append(&tree.spelled(2));
/// assert_eq!(session.tokens(), [5, 6, 7, 8, 9]);
/// # Ok::<(), wsd_core::Error>(()) })?;
/// # Ok::<(), wsd_nn::Error>(())
/// ```
pub struct Local {
    card: Card,
    layers: usize,
    text: TextCodec,
    inbox: Sender<Message>,
    permits: Arc<Semaphore>,
    next_slot: AtomicU64,
    activity: Arc<Mutex<Activity>>,
    profile: Profile,
    weights: u64,
    files: ModelFiles,
}

impl Local {
    /// Loads a checkpoint onto a device.
    ///
    /// # Errors
    /// Those of [`Checkpoint`] and of the device; [`crate::Error`] names every tensor, key or limit
    /// at fault.
    pub fn load(checkpoint: Checkpoint, options: &LoadOptions) -> crate::Result<Self> {
        let drafter = options.draft_head.as_deref().map(|folder| drafter(folder, &checkpoint, options)).transpose()?;
        // Adapters change the rows as a folder has them.
        let checkpoint = if options.adapters.is_empty() { checkpoint } else { checkpoint.in_standard_form()? };
        let mut executor = load(options.device, &checkpoint, options.dtype, options.kv_dtype)?;
        options.adapters.iter().try_for_each(|folder| executor.adapt(&Adapter::open(folder)?))?;
        let blueprint = executor.blueprint();
        let sizes = tensors(blueprint).into_iter().map(|(_, shape)| shape.into_iter().product::<usize>() as u64);
        let weights = sizes.sum();
        let layers = blueprint.layers.len();
        let card = Card {
            name: options.name.clone(),
            max_len: options.max_len.map_or(blueprint.max_len, |len| len.min(blueprint.max_len)),
            vocab: blueprint.vocab,
            caps: Caps { drafts: drafter.is_some(), ..caps(blueprint) },
            cost: Cost::default(),
            end_tokens: checkpoint.end_tokens.clone(),
        };
        let files = ModelFiles {
            parameters: checkpoint.weights.parameters(),
            bytes: checkpoint.weights.total_bytes() as u64,
            sampling: checkpoint.sampling(),
        };
        let text = checkpoint.into_codec(&options.name, &options.template)?.with_limit(card.max_len);
        let (inbox, receiver) = channel();
        let activity = Arc::new(Mutex::new(Activity::default()));
        let cache = PrefixCache::new(options.prefix_cache_tokens);
        let scheduler = Scheduler::new(executor, card.clone(), cache, receiver, activity.clone());
        let scheduler = scheduler.with_drafter(drafter);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or(0))
            .thread_name(|i| format!("wsd-engine-{i}"))
            .build()
            .map_err(|error| crate::Error::Threads { threads: options.threads, reason: error.to_string() })?;
        // The loop runs on a thread of the pool, so that handing work to the others needs no switch of threads.
        std::thread::spawn(move || pool.install(|| scheduler.run()));
        let permits = Arc::new(Semaphore::new(options.max_sessions.max(1)));
        let (next_slot, profile) = (AtomicU64::new(0), Profile::default());
        Ok(Self { card, layers, text, inbox, permits, next_slot, activity, profile, weights, files })
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

    fn files(&self) -> ModelFiles {
        self.files.clone()
    }

    fn layers(&self) -> Option<usize> {
        Some(self.layers)
    }

    fn activity(&self) -> Activity {
        *self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn weights(&self) -> Option<u64> {
        Some(self.weights)
    }

    fn applies_masks(&self) -> bool {
        true
    }

    async fn open(&self, tokens: &[Token]) -> wsd_core::Result<Box<dyn Session>> {
        self.open_in(Scope::default(), tokens).await
    }

    async fn open_in(&self, scope: Scope, tokens: &[Token]) -> wsd_core::Result<Box<dyn Session>> {
        self.card.check(tokens)?;
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| stopped(&self.card))?;
        Ok(Box::new(Open {
            place: Place { slot: self.next_slot.fetch_add(1, Ordering::Relaxed), scope },
            tokens: tokens.to_vec(),
            card: self.card.clone(),
            text: self.text.clone(),
            inbox: self.inbox.clone(),
            reused: Arc::default(),
            _permit: permit,
        }))
    }
}

/// Returns the questions that a model with these heads answers.
fn caps(blueprint: &Blueprint) -> Caps {
    let heads: Heads = blueprint.output_heads.iter().map(|plan| plan.head).collect();
    let writes = heads.contains(Head::VOCABULARY);
    Caps { score: writes, logits: writes, choices: writes, hidden: true, heads, trees: writes, drafts: false }
}

/// Loads the draft head of a model.
fn drafter(folder: &Path, base: &Checkpoint, options: &LoadOptions) -> crate::Result<Drafter> {
    let head = DraftHead::open(folder)?;
    let kept = CpuOptions { dtype: options.dtype, kv: options.kv_dtype, ..CpuOptions::default() };
    Ok(Drafter::new(DraftLayer::load(&head, base, kept)?, head.config.base.hidden_size))
}

/// The error for a device thread that ended, which happens only if it panicked.
fn stopped(card: &Card) -> Error {
    Error::Engine { engine: card.name.clone(), message: "the engine's thread has ended".into() }
}

struct Open {
    place: Place,
    tokens: Vec<Token>,
    card: Card,
    text: TextCodec,
    inbox: Sender<Message>,
    /// Tokens copied from the caches of other sessions.
    reused: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
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
        let asked = if self.tokens.is_empty() {
            Err(Error::EmptyPrompt { engine: self.card.name.clone() })
        } else {
            let question = Generate::new(self.choosing(generation), self.left(generation), reply);
            self.send(List::new(self.tokens.clone(), self.tokens.len() - 1), question)
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
