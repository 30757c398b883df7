//! A question to a remote engine, with all its attempts: again after a pause, or elsewhere, within one limit of time.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};
use wsd_core::Error;

use super::Shared;
use super::dialect::{Misread, Post};
use super::fault::Fault;
use super::http::{Events, Target};

/// The pause after the first failed attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause that is made, whoever asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a server is asked for, in words for messages.
pub(super) type Phase = &'static str;

/// One question's attempts. While it lives, the engine counts as working.
pub(super) struct Asking {
    shared: Arc<Shared>,
    phase: Phase,
    deadline: Instant,
    failures: u32,
}

impl Asking {
    pub(super) fn new(shared: Arc<Shared>, phase: Phase) -> Self {
        let deadline = Instant::now() + shared.limits.total;
        shared.working.fetch_add(1, Ordering::Relaxed);
        Self { shared, phase, deadline, failures: 0 }
    }

    /// Something came of the last attempt: the next failure is a first one.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Post and read the whole reply.
    pub(super) async fn whole(&mut self, dialogue: &mut Dialogue, post: &Post) -> Result<Value, Error> {
        loop {
            match self.once(dialogue, post).await {
                Ok(reply) => return Ok(reply),
                Err(fault) => self.recover(dialogue, fault).await?,
            }
        }
    }

    /// Post once and read the whole reply.
    pub(super) async fn once(&self, dialogue: &Dialogue, post: &Post) -> Result<Value, Fault> {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.in_time(self.shared.http.post(&dialogue.target, post.path, &post.body)).await
    }

    /// Post and read a stream.
    pub(super) async fn stream(&self, dialogue: &Dialogue, post: &Post) -> Result<Events, Fault> {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        self.in_time(self.shared.http.stream(&dialogue.target, post.path, &post.body)).await
    }

    /// Wait for something, though not beyond the limit.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let late = || Fault::Late { awaited: "the whole answer", limit: self.shared.limits.total };
        timeout_at(self.deadline, work).await.unwrap_or_else(|_| Err(late()))
    }

    /// After a failed attempt: make ready for another, or say why there is none.
    pub(super) async fn recover(&mut self, dialogue: &mut Dialogue, fault: Fault) -> Result<(), Error> {
        self.failures += 1;
        let error = self.error(dialogue, &fault);
        let elsewhere = fault.is_passing() && dialogue.move_on();
        let pause = fault.retry_after().unwrap_or_else(|| pause(self.failures));
        let resumes = Instant::now() + if elsewhere { Duration::ZERO } else { pause };
        let again = elsewhere || (fault.is_worth_waiting_for() && pause <= LONGEST_PAUSE);
        if !again || self.failures >= self.shared.attempts || resumes >= self.deadline {
            return Err(error);
        }
        sleep_until(resumes).await;
        Ok(())
    }

    /// A reply that does not say what was asked: asking again would bring the same.
    pub(super) fn misread(&self, dialogue: &Dialogue, why: Misread) -> Error {
        self.error(dialogue, &Fault::Unreadable(why))
    }

    pub(super) fn error(&self, dialogue: &Dialogue, fault: &Fault) -> Error {
        let status = match fault {
            Fault::Status { status, .. } => Some(*status),
            _ => None,
        };
        Error::Remote {
            engine: self.shared.card.name.clone(),
            url: dialogue.target.root.clone(),
            phase: self.phase,
            status,
            fault: fault.to_string(),
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.shared.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Half the doubled pause, and a part of the other half by chance, so that many who failed together do not come together.
fn pause(failures: u32) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(8)).min(LONGEST_PAUSE);
    let chance = RandomState::new().hash_one(failures) >> 11;
    whole.mul_f64(0.5 + chance as f64 / (1u64 << 54) as f64)
}

/// A dialogue, pinned to one replica.
pub(super) struct Dialogue {
    shared: Arc<Shared>,
    replica: usize,
    /// The replica's address, with this dialogue's headers.
    target: Target,
}

impl Dialogue {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let replica = shared.replicas.pin();
        let mut target = shared.replicas.target(replica).clone();
        // Routers and data-parallel engines keep what has one id together.
        let id = format!("{:016x}", RandomState::new().hash_one(replica));
        if let Ok(id) = id.parse() {
            target.headers.insert("x-session-id", id);
        }
        Self { shared, replica, target }
    }

    /// Go to another replica; false where there is none that is well.
    fn move_on(&mut self) -> bool {
        let before = self.replica;
        self.replica = self.shared.replicas.move_on(before);
        self.target.root.clone_from(&self.shared.replicas.target(self.replica).root);
        self.replica != before && self.shared.replicas.is_well(self.replica)
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        self.shared.replicas.unpin(self.replica);
    }
}
