//! One question to a remote engine and its attempts: repeated after a back-off, or on another
//! replica, within one time limit.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};
use wsd_core::Error;

use super::dialect::{Misread, Post};
use super::fault::Fault;
use super::http::{Events, Target};
use super::shared::Shared;

/// Back-off after the first failed attempt; each further one is twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Longest back-off, also where the server asks for more.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// The purpose of a question, for messages: "scoring", "continuing".
pub(super) type Phase = &'static str;

/// The attempts at one question. The engine counts as working while this lives.
pub(super) struct Attempts {
    shared: Arc<Shared>,
    phase: Phase,
    deadline: Instant,
    failures: u32,
}

impl Attempts {
    pub(super) fn new(shared: Arc<Shared>, phase: Phase) -> Self {
        let deadline = Instant::now() + shared.limits.total;
        shared.working.fetch_add(1, Ordering::Relaxed);
        Self { shared, phase, deadline, failures: 0 }
    }

    /// Notes that the last attempt brought tokens: the next failure counts as the first one.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Posts until there is a whole reply, or no attempt is left.
    pub(super) async fn post(&mut self, route: &mut Route, post: &Post) -> Result<Value, Error> {
        loop {
            match self.post_once(route, post).await {
                Ok(reply) => return Ok(reply),
                Err(fault) => self.recover(route, fault).await?,
            }
        }
    }

    /// Posts once and reads the whole reply.
    pub(super) async fn post_once(&self, route: &Route, post: &Post) -> Result<Value, Fault> {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.in_time(self.shared.http.post(&route.target, post.path, &post.body)).await
    }

    /// Posts once and opens the stream of events.
    pub(super) async fn stream(&self, route: &Route, post: &Post) -> Result<Events, Fault> {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.in_time(self.shared.http.stream(&route.target, post.path, &post.body)).await
    }

    /// Waits for `work`, at most until the question's deadline.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let late = || Fault::Late { awaited: "the whole answer", limit: self.shared.limits.total };
        timeout_at(self.deadline, work).await.unwrap_or_else(|_| Err(late()))
    }

    /// Prepares another attempt after a failed one: fails over, or sleeps for the back-off.
    ///
    /// # Errors
    /// The fault, where no attempt is left or none would help.
    pub(super) async fn recover(&mut self, route: &mut Route, fault: Fault) -> Result<(), Error> {
        self.failures += 1;
        let error = self.error(route, &fault);
        let moved = fault.is_transient() && route.fail_over();
        let pause = fault.retry_after().unwrap_or_else(|| backoff(self.failures));
        let resumes = Instant::now() + if moved { Duration::ZERO } else { pause };
        let again = moved || (fault.is_worth_waiting_for() && pause <= LONGEST_BACKOFF);
        if !again || self.failures >= self.shared.attempts || resumes >= self.deadline {
            return Err(error);
        }
        sleep_until(resumes).await;
        Ok(())
    }

    /// The error for a reply that cannot be used; repeating the request would bring the same reply.
    pub(super) fn misread(&self, route: &Route, why: Misread) -> Error {
        self.error(route, &Fault::Unreadable(why))
    }

    pub(super) fn error(&self, route: &Route, fault: &Fault) -> Error {
        let status = match fault {
            Fault::Status { status, .. } => Some(*status),
            _ => None,
        };
        Error::Remote {
            engine: self.shared.card.name.clone(),
            url: route.target.root.clone(),
            phase: self.phase,
            status,
            fault: fault.to_string(),
        }
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        self.shared.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Exponential back-off with jitter: half the doubled pause plus a random part of the other half,
/// so that clients that failed together do not come back together.
fn backoff(failures: u32) -> Duration {
    let whole = FIRST_BACKOFF.saturating_mul(1 << (failures - 1).min(8)).min(LONGEST_BACKOFF);
    let random = RandomState::new().hash_one(failures) >> 11;
    whole.mul_f64(0.5 + random as f64 / (1u64 << 54) as f64)
}

/// The replica a session is pinned to, released on drop.
pub(super) struct Route {
    shared: Arc<Shared>,
    replica: usize,
    /// The replica's address, with this session's headers.
    target: Target,
}

impl Route {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let replica = shared.replicas.pin();
        let mut target = shared.replicas.target(replica).clone();
        // Routers and data-parallel engines send all requests with one id to one worker.
        let id = format!("{:016x}", RandomState::new().hash_one(replica));
        if let Ok(id) = id.parse() {
            target.headers.insert("x-session-id", id);
        }
        Self { shared, replica, target }
    }

    /// Moves to another replica. Returns false where no other is healthy.
    fn fail_over(&mut self) -> bool {
        let before = self.replica;
        self.replica = self.shared.replicas.fail_over(before);
        self.target.root.clone_from(&self.shared.replicas.target(self.replica).root);
        self.replica != before && self.shared.replicas.is_healthy(self.replica)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.shared.replicas.unpin(self.replica);
    }
}
