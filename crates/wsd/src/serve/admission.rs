//! Admission control: some requests are answered at once, some wait in a queue, the rest are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// A bounded queue before a bounded number of concurrent answers.
pub(super) struct Admission {
    /// One permit for each request that is answered or waits.
    requests: Arc<Semaphore>,
    /// One permit for each concurrent answer.
    slots: Arc<Semaphore>,
    /// Number of answers that wait for a slot.
    waiting: Arc<AtomicUsize>,
    /// Maximum number of concurrent answers.
    max_concurrent: usize,
    /// Maximum number of waiting requests.
    max_queue: usize,
}

/// A place among the admitted requests; dropping it frees the place.
pub(super) struct Admitted {
    _place: OwnedSemaphorePermit,
}

/// A slot for one answer; dropping it frees the slot.
pub(super) struct Slot {
    _slot: OwnedSemaphorePermit,
}

/// A guard that decrements the number of waiting answers when dropped.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Admission {
    /// Admission of `max_concurrent` answers at a time and `max_queue` waiting requests.
    pub(super) fn new(max_concurrent: usize, max_queue: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(max_concurrent + max_queue)),
            slots: Arc::new(Semaphore::new(max_concurrent)),
            waiting: Arc::default(),
            max_concurrent,
            max_queue,
        }
    }

    /// Admits a request, or refuses it if the queue is full.
    pub(super) fn admit(&self) -> Result<Admitted, ApiError> {
        let place = self.requests.clone().try_acquire_owned();
        place.map(|place| Admitted { _place: place }).map_err(|_| ApiError::busy(self.max_concurrent, self.max_queue))
    }

    /// Tells whether a request would be refused now. This is checked before its body is read, so that
    /// refusals cost little.
    pub(super) fn is_full(&self) -> bool {
        self.requests.available_permits() == 0
    }

    /// Waits for a slot, in order of arrival.
    pub(super) async fn slot(&self) -> Result<Slot, ApiError> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self.waiting.clone());
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| ApiError::closing())?;
        Ok(Slot { _slot: slot })
    }

    /// The number of concurrent answers.
    pub(super) fn max_concurrent(&self) -> usize {
        self.max_concurrent
    }

    /// The number of answers being written.
    pub(super) fn running(&self) -> usize {
        self.max_concurrent - self.slots.available_permits()
    }

    /// The number of answers that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}
