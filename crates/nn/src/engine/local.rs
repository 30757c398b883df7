//! An engine in this process.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use wsd_core::{
    Activity, Caps, Card, Cost, Engine, Head, Heads, ModelFiles, Profile, Scope, Session, TextCodec, Token,
};

use super::drafter::Drafter;
use super::options::LoadOptions;
use super::prefix_cache::{Place, PrefixCache};
use super::scheduler::{Message, Scheduler};
use super::session::{Open, stopped};
use crate::adapter::Adapter;
use crate::arch::{Blueprint, tensors};
use crate::checkpoint::{Checkpoint, Spelling};
use crate::cpu::{CpuOptions, DraftLayer};
use crate::draft::DraftHead;
use crate::load::{Loaded, load};

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
    device: String,
    files: ModelFiles,
}

impl Local {
    /// Loads a checkpoint onto a device.
    ///
    /// # Errors
    /// Those of [`Checkpoint`] and of the device; [`crate::Error`] names every tensor, key or limit
    /// at fault.
    pub fn load(checkpoint: Checkpoint, options: &LoadOptions) -> crate::Result<Self> {
        let onto_device = |checkpoint: &Checkpoint| load(&options.device, checkpoint, options.dtype, options.kv_dtype);
        Self::load_by(checkpoint, options, onto_device)
    }

    /// Loads a checkpoint, its model by `onto_device`.
    pub(crate) fn load_by(
        checkpoint: Checkpoint,
        options: &LoadOptions,
        onto_device: impl FnOnce(&Checkpoint) -> crate::Result<Loaded>,
    ) -> crate::Result<Self> {
        let drafter = options.draft_head.as_deref().map(|folder| drafter(folder, &checkpoint, options)).transpose()?;
        // Adapters change the rows as a folder has them.
        let checkpoint = if options.adapters.is_empty() { checkpoint } else { checkpoint.in_standard_form()? };
        let Loaded { mut executor, device, has_stream } = onto_device(&checkpoint)?;
        let spelling = Spelling::of(executor.blueprint());
        options.adapters.iter().try_for_each(|folder| executor.adapt(&Adapter::open(folder, &spelling)?))?;
        let blueprint = executor.blueprint();
        let sizes = tensors(blueprint).into_iter().map(|(_, shape)| shape.into_iter().product::<usize>() as u64);
        let weights = sizes.sum();
        let layers = blueprint.layers.len();
        let card = Card {
            name: options.name.clone(),
            max_len: options.max_len.map_or(blueprint.max_len, |len| len.min(blueprint.max_len)),
            vocab: blueprint.vocab,
            caps: Caps { drafts: drafter.is_some(), ..caps(blueprint) },
            cost: Cost { has_stream, ..Cost::default() },
            end_tokens: checkpoint.end_tokens.clone(),
        };
        let files = ModelFiles {
            parameters: checkpoint.weights.parameters(),
            bytes: checkpoint.weights.total_bytes() as u64,
            sampling: checkpoint.sampling(),
        };
        let codec = checkpoint.into_codec(&options.name, &options.template)?;
        let text = codec.with_variables(&options.template_variables).with_limit(card.max_len);
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
        Ok(Self { card, layers, text, inbox, permits, next_slot, activity, profile, weights, device, files })
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

    fn device(&self) -> Option<String> {
        Some(self.device.clone())
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
    Ok(Drafter::new(DraftLayer::load(&head, base, kept)?))
}
