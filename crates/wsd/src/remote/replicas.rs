//! The servers of one model: choice of a replica for a session, and fail-over.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::http::Target;

/// Time for which a server that failed is avoided while another is available.
const COOL_DOWN: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Replica {
    target: Target,
    /// Sessions pinned to this server.
    sessions: AtomicUsize,
    /// End of the cool-down, in milliseconds since `Replicas::started`.
    avoided_until: AtomicU64,
}

/// The servers and their health. Only a monotonic clock is used, never the time of day.
#[derive(Debug)]
pub(super) struct Replicas {
    all: Vec<Replica>,
    started: Instant,
}

impl Replicas {
    pub(super) fn new(targets: Vec<Target>) -> Self {
        let replica = |target| Replica { target, sessions: AtomicUsize::new(0), avoided_until: AtomicU64::new(0) };
        Self { all: targets.into_iter().map(replica).collect(), started: Instant::now() }
    }

    pub(super) fn target(&self, index: usize) -> &Target {
        &self.all[index].target
    }

    /// Pins a session to the healthy server with the fewest sessions. Returns its index.
    pub(super) fn pin(&self) -> usize {
        self.pin_best(None)
    }

    /// Moves a session away from a server that failed. Returns the index of the new one, which is
    /// the same again where there is no other.
    pub(super) fn fail_over(&self, from: usize) -> usize {
        let until = self.started.elapsed() + COOL_DOWN;
        self.all[from].avoided_until.store(until.as_millis() as u64, Ordering::Relaxed);
        self.unpin(from);
        self.pin_best(Some(from))
    }

    /// True unless the server failed within the cool-down.
    pub(super) fn is_healthy(&self, index: usize) -> bool {
        self.all[index].avoided_until.load(Ordering::Relaxed) <= self.started.elapsed().as_millis() as u64
    }

    pub(super) fn unpin(&self, index: usize) {
        self.all[index].sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sessions pinned to all servers together.
    pub(super) fn sessions(&self) -> usize {
        self.all.iter().map(|replica| replica.sessions.load(Ordering::Relaxed)).sum()
    }

    fn pin_best(&self, except: Option<usize>) -> usize {
        let now = self.started.elapsed().as_millis() as u64;
        let key = |&index: &usize| {
            let replica = &self.all[index];
            let cool_down = replica.avoided_until.load(Ordering::Relaxed).saturating_sub(now);
            (cool_down, replica.sessions.load(Ordering::Relaxed))
        };
        let others = (0..self.all.len()).filter(|&index| Some(index) != except);
        let index = others.min_by_key(key).or(except).unwrap_or(0);
        self.all[index].sessions.fetch_add(1, Ordering::Relaxed);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;

    #[test]
    fn sessions_are_spread_and_avoid_failed_servers() {
        let target = |n: usize| Target { root: format!("http://{n}"), headers: HeaderMap::new() };
        let replicas = Replicas::new((0..3).map(target).collect());
        assert_eq!([replicas.pin(), replicas.pin(), replicas.pin(), replicas.pin()], [0, 1, 2, 0]);
        let moved = replicas.fail_over(1);
        assert_eq!(moved, 2, "the one with fewer sessions");
        assert!(replicas.is_healthy(2) && !replicas.is_healthy(1));
        assert!((0..5).all(|_| replicas.pin() != 1), "no new session goes to the failed server");
        assert_eq!(replicas.sessions(), 9);
        let single = Replicas::new(vec![target(0)]);
        assert_eq!((single.pin(), single.fail_over(0)), (0, 0));
        assert_eq!(single.sessions(), 1);
    }
}
