//! The server's state.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::watch;
use wsd_core::{Bridge, Models, RECIPES, Recipe, Scope, Seat};

use super::admission::{Admission, Admitted};
use super::body::BodyReader;
use super::client::{Client, ClientLimits};
use super::clock::unix_time;
use super::conversations::Conversations;
use super::error::ApiError;
use super::keys::Keys;
use super::metrics::{Metrics, REJECTED};
use super::work::Work;
use crate::config::{ServeSettings, Settings};

/// The server's state, which all requests share.
pub struct App {
    pub(super) models: Models,
    /// The strategies that the models can follow, by the settings of the server.
    pub(super) offered: Vec<&'static Recipe>,
    /// True where token ids mean the same to both models.
    pub(super) one_vocabulary: bool,
    pub(super) settings: Settings,
    pub(super) serve: ServeSettings,
    /// The seed of requests that name none; `None` to draw one for each request.
    pub(super) seed: Option<u64>,
    pub(super) keys: Keys,
    pub(super) admission: Arc<Admission>,
    /// Threads for the work of answers.
    pub(super) work: Work,
    pub(super) bodies: BodyReader,
    pub(super) metrics: Metrics,
    pub(super) conversations: Conversations,
    /// True once the server is being stopped.
    pub(super) closing: AtomicBool,
    /// True once running answers are to end at once.
    pub(super) cut: watch::Sender<bool>,
    /// The number of requests that ended so.
    pub(super) cut_requests: AtomicUsize,
    /// The start of the server, in seconds since 1970.
    pub(super) started: u64,
    ids: AtomicU64,
    random: RandomState,
}

impl App {
    /// Creates a server of these models. Requests that name no seed get `seed`, or one drawn for
    /// each.
    #[must_use]
    pub fn new(models: Models, settings: Settings, seed: Option<u64>, keys: Keys) -> Self {
        let serve = settings.serve.clone();
        let limits = ClientLimits {
            max_concurrent: serve.client_concurrent.unwrap_or(usize::MAX),
            requests: serve.client_requests,
            tokens: serve.client_tokens,
        };
        let pair = models.get(Seat::DRAFT).zip(models.get(Seat::BASE));
        let one_vocabulary = pair.is_none_or(|(draft, base)| Bridge::passes_ids(draft.codec(), base.codec()));
        let can = |recipe: &&Recipe| recipe.build(&models, &settings.values).is_ok();
        let offered = RECIPES.iter().copied().filter(can).collect();
        Self {
            models,
            offered,
            one_vocabulary,
            settings,
            seed,
            keys,
            admission: Admission::new(serve.max_concurrent, serve.max_queue, limits),
            work: Work::new(),
            bodies: BodyReader::new(serve.header_timeout),
            metrics: Metrics::default(),
            conversations: Conversations::default(),
            closing: AtomicBool::new(false),
            cut: watch::Sender::new(false),
            cut_requests: AtomicUsize::new(0),
            started: unix_time(),
            ids: AtomicU64::new(0),
            random: RandomState::new(),
            serve,
        }
    }

    /// Lets a client's request into the queue, or refuses it.
    pub(super) fn admit(&self, client: Client) -> Result<Admitted, ApiError> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(ApiError::closing());
        }
        self.admission.admit(client).inspect_err(|_| self.metrics.add(&REJECTED, "", 1))
    }

    /// Refuses a request for which there is no room, before its body is read.
    pub(super) fn expect_room(&self, client: Client) -> Result<(), ApiError> {
        self.admission.check(client).inspect_err(|_| self.metrics.add(&REJECTED, "", 1))
    }

    /// Returns the scope of a request: it shares cached prefixes with those of its key, if there are
    /// several keys, and its salt, and time with those of its client.
    pub(super) fn scope(&self, client: Client, salt: Option<&str>) -> Scope {
        let is_apart = salt.is_some() || self.keys.len() > 1;
        let cache = if is_apart { self.random.hash_one((client, salt)) } else { 0 };
        Scope { cache, client: self.random.hash_one(client) }
    }

    /// Waits until running answers are to end at once, and returns the error that tells so.
    pub(super) async fn cut_off(&self) -> ApiError {
        // The sender is part of `self`, so the wait cannot fail.
        let _ = self.cut.subscribe().wait_for(|cut| *cut).await;
        self.cut_requests.fetch_add(1, Ordering::SeqCst);
        ApiError::cut()
    }

    /// Returns a name for a reply, unlike any other.
    pub(super) fn next_id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}", self.random_seed())
    }

    /// Returns a name for a call of a tool: nine letters and digits, as Mistral's templates need.
    pub(super) fn next_call_id(&self) -> String {
        let mut number = self.random_seed();
        (0..9)
            .map(|_| {
                let digit = (number % 36) as u32;
                number /= 36;
                char::from_digit(digit, 36).unwrap_or('0')
            })
            .collect()
    }

    /// Returns an unpredictable number of 53 bits, which JSON represents exactly.
    pub(super) fn random_seed(&self) -> u64 {
        self.random.hash_one(self.ids.fetch_add(1, Ordering::Relaxed)) >> 11
    }
}
