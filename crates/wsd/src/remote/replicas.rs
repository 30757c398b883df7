//! Several servers of one model: who takes the next dialogue, and who takes over when one is gone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::http::Target;

/// How long a server that failed is passed over, where another is there.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Replica {
    target: Target,
    /// Sessions pinned to it.
    open: AtomicUsize,
    /// Milliseconds from the beginning until which it is passed over.
    paused_until: AtomicU64,
}

/// The servers, with what is known of their health. Nothing here depends on the time of day.
#[derive(Debug)]
pub(super) struct Replicas {
    all: Vec<Replica>,
    began: Instant,
}

impl Replicas {
    pub(super) fn new(targets: Vec<Target>) -> Self {
        let replica = |target| Replica { target, open: AtomicUsize::new(0), paused_until: AtomicU64::new(0) };
        Self { all: targets.into_iter().map(replica).collect(), began: Instant::now() }
    }

    pub(super) fn target(&self, index: usize) -> &Target {
        &self.all[index].target
    }

    /// Pin a dialogue to the server with the fewest of those that work.
    pub(super) fn pin(&self) -> usize {
        self.best(None)
    }

    /// Move a dialogue away from a server that failed; the same again where there is no other.
    pub(super) fn move_on(&self, from: usize) -> usize {
        let until = self.began.elapsed() + PAUSE;
        self.all[from].paused_until.store(until.as_millis() as u64, Ordering::Relaxed);
        self.unpin(from);
        self.best(Some(from))
    }

    /// Whether nothing bad was seen of a server lately.
    pub(super) fn is_well(&self, index: usize) -> bool {
        self.all[index].paused_until.load(Ordering::Relaxed) <= self.began.elapsed().as_millis() as u64
    }

    pub(super) fn unpin(&self, index: usize) {
        self.all[index].open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sessions pinned to any of them.
    pub(super) fn open(&self) -> usize {
        self.all.iter().map(|replica| replica.open.load(Ordering::Relaxed)).sum()
    }

    fn best(&self, but: Option<usize>) -> usize {
        let now = self.began.elapsed().as_millis() as u64;
        let key = |&index: &usize| {
            let replica = &self.all[index];
            (replica.paused_until.load(Ordering::Relaxed).saturating_sub(now), replica.open.load(Ordering::Relaxed))
        };
        let others = (0..self.all.len()).filter(|&index| Some(index) != but);
        let index = others.min_by_key(key).or(but).unwrap_or(0);
        self.all[index].open.fetch_add(1, Ordering::Relaxed);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;

    #[test]
    fn dialogues_spread_and_leave_the_dead() {
        let target = |n: usize| Target { root: format!("http://{n}"), headers: HeaderMap::new() };
        let replicas = Replicas::new((0..3).map(target).collect());
        assert_eq!([replicas.pin(), replicas.pin(), replicas.pin(), replicas.pin()], [0, 1, 2, 0]);
        let moved = replicas.move_on(1);
        assert_eq!(moved, 2, "the one with fewer dialogues");
        assert!(replicas.is_well(2) && !replicas.is_well(1));
        assert!((0..5).all(|_| replicas.pin() != 1), "nobody new goes to the one that failed");
        assert_eq!(replicas.open(), 9);
        let single = Replicas::new(vec![target(0)]);
        assert_eq!((single.pin(), single.move_on(0)), (0, 0));
        assert_eq!(single.open(), 1);
    }
}
