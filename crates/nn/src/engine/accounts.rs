//! The time that each client has lately used of an engine, and the outputs that each session has read.

use std::collections::HashMap;

/// Seconds after which a use counts 1/e of what it did.
const MEMORY_SECONDS: f64 = 1.0;
/// The use below which a client is forgotten, in seconds.
const LEAST_SECONDS: f64 = 1e-4;

/// The use of an engine by clients and by sessions.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Seconds of steps by client, which decay with the time of further steps.
    used: HashMap<u64, f64>,
    /// Outputs by session.
    read: HashMap<u64, usize>,
}

impl Accounts {
    /// The time that a client has used; 0 for one that has lately used none.
    pub(super) fn used(&self, client: u64) -> f64 {
        self.used.get(&client).copied().unwrap_or(0.0)
    }

    /// Tells whether others than these clients' first one wait, or have lately used the engine.
    pub(super) fn are_several(&self, mut waiting: impl Iterator<Item = u64>) -> bool {
        let Some(first) = waiting.next() else { return false };
        waiting.chain(self.used.keys().copied()).any(|client| client != first)
    }

    /// Charges the time of a step to the clients that it ran for, in proportion to their shares. Those
    /// that wait for their turn are charged nothing. A client that comes counts from then on as the one
    /// that had used the least, so that many who come at once do not hold back those before.
    pub(super) fn charge(&mut self, shares: &[(u64, f64)], seconds: f64) {
        self.used.values_mut().for_each(|used| *used *= (-seconds / MEMORY_SECONDS).exp());
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        let least = self.used.values().copied().reduce(f64::min).unwrap_or(0.0);
        for (client, share) in shares {
            *self.used.entry(*client).or_insert(least) += seconds * share / sum;
        }
        self.used.retain(|_, used| *used >= LEAST_SECONDS);
    }

    /// The outputs that a session has read.
    pub(super) fn read(&self, session: u64) -> usize {
        self.read.get(&session).copied().unwrap_or(0)
    }

    /// Counts outputs to a session.
    pub(super) fn count(&mut self, session: u64, outputs: usize) {
        *self.read.entry(session).or_default() += outputs;
    }

    /// Forgets a session.
    pub(super) fn close(&mut self, session: u64) {
        self.read.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_charged_by_shares_and_forgotten() {
        let mut accounts = Accounts::default();
        assert!(!accounts.are_several([7, 7].into_iter()) && !accounts.are_several([].into_iter()));
        accounts.charge(&[(1, 3.0), (2, 1.0)], 0.4);
        assert!((accounts.used(1) - 0.3).abs() < 1e-9 && (accounts.used(2) - 0.1).abs() < 1e-9);
        assert!(accounts.are_several([1].into_iter()), "another has lately used the engine");
        // The third client waits for both.
        assert_eq!(accounts.used(3), 0.0);
        for _ in 0..100 {
            accounts.charge(&[(2, 1.0)], 0.1);
        }
        assert!(accounts.used(1) == 0.0 && (0.9..1.1).contains(&accounts.used(2)), "{accounts:?}");
        assert!(!accounts.are_several([2].into_iter()) && accounts.are_several([2, 1].into_iter()));
    }

    #[test]
    fn those_who_come_stand_beside_those_who_are_there() {
        let mut accounts = Accounts::default();
        accounts.charge(&[(1, 1.0)], 0.4);
        for newcomer in 2..20 {
            accounts.charge(&[(newcomer, 1.0)], 0.01);
            assert!(accounts.used(newcomer) > accounts.used(1), "{accounts:?}");
        }
    }
}
