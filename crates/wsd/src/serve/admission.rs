//! Who is answered now, who waits, and who is sent away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// A bounded queue before a bounded number of answers.
pub(super) struct Admission {
    requests: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    max_concurrent: usize,
    max_queue: usize,
}

/// The right to be in the queue; leaves it when dropped.
pub(super) struct Admitted {
    _place: OwnedSemaphorePermit,
}

/// The right to be answered; gives the slot back when dropped.
pub(super) struct Slot {
    _slot: OwnedSemaphorePermit,
}

/// Counts one that waits, for as long as it waits.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Admission {
    pub(super) fn new(max_concurrent: usize, max_queue: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(max_concurrent + max_queue)),
            slots: Arc::new(Semaphore::new(max_concurrent)),
            waiting: Arc::default(),
            max_concurrent,
            max_queue,
        }
    }

    /// Let a request in, or send it away at once.
    pub(super) fn admit(&self) -> Result<Admitted, ApiError> {
        let place = self.requests.clone().try_acquire_owned();
        place.map(|place| Admitted { _place: place }).map_err(|_| ApiError::busy(self.max_concurrent, self.max_queue))
    }

    /// Whether a request would be sent away now: known before its body is read, so that refusals cost little.
    pub(super) fn is_full(&self) -> bool {
        self.requests.available_permits() == 0
    }

    /// Wait for a slot, in order of arrival.
    pub(super) async fn slot(&self) -> Result<Slot, ApiError> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self.waiting.clone());
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| ApiError::closing())?;
        Ok(Slot { _slot: slot })
    }

    /// Answers at a time.
    pub(super) fn max_concurrent(&self) -> usize {
        self.max_concurrent
    }

    /// Answers being written.
    pub(super) fn running(&self) -> usize {
        self.max_concurrent - self.slots.available_permits()
    }

    /// Answers that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}
