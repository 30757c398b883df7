//! Which tokens the executor's caches hold: those of open sessions, and those of ended ones, kept for sessions that begin alike.

use std::collections::HashMap;

use wsd_core::Token;

use crate::executor::Executor;

/// What a beginning saves must be worth a copy, or a wait for another session to compute it.
pub(super) const SHARED_TOKENS: usize = 16;

/// The token lists of all caches, by slot. What is not written of a slot here, its cache does not hold.
pub(super) struct Caches {
    open: HashMap<u64, Vec<Token>>,
    /// Of ended sessions; the first has been of no use for the longest.
    kept: Vec<(u64, Vec<Token>)>,
    /// How many tokens may be kept. Where none may, open sessions share nothing either.
    room: usize,
}

impl Caches {
    pub(super) fn new(room: usize) -> Self {
        Self { open: HashMap::new(), kept: Vec::new(), room }
    }

    /// Open sessions that hold a cache.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// What is cached of an open session.
    pub(super) fn tokens(&self, slot: u64) -> &[Token] {
        self.open.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// Keep what a session's cache has of `tokens`.
    pub(super) fn edit(&mut self, executor: &mut dyn Executor, slot: u64, tokens: &[Token]) {
        let cached = self.open.entry(slot).or_default();
        cached.truncate(common(cached, tokens));
        executor.truncate(slot, cached.len());
    }

    /// The executor has run these tokens.
    pub(super) fn extend(&mut self, slot: u64, tokens: &[Token]) {
        if let Some(cached) = self.open.get_mut(&slot) {
            cached.extend(tokens);
        }
    }

    /// Whether a session has nothing yet and may begin with what others have.
    pub(super) fn may_share(&self, slot: u64) -> bool {
        self.room > 0 && self.tokens(slot).is_empty()
    }

    /// The cache with most of the beginning of `tokens`, and how much that is.
    pub(super) fn longest(&self, tokens: &[Token]) -> (u64, usize) {
        let all = self.open.iter().chain(self.kept.iter().map(|(slot, cached)| (slot, cached)));
        all.map(|(slot, cached)| (*slot, common(cached, tokens))).max_by_key(|&(_, len)| len).unwrap_or_default()
    }

    /// Let a session begin with `tokens`, copied from another's cache. Returns how many it has, which is none where the device is full.
    pub(super) fn copy(&mut self, executor: &mut dyn Executor, from: u64, slot: u64, tokens: &[Token]) -> usize {
        if let Some(index) = self.kept.iter().position(|(kept, _)| *kept == from) {
            self.kept[index..].rotate_left(1);
        }
        if executor.copy(from, slot, tokens.len()).is_ok() {
            self.extend(slot, tokens);
        }
        self.tokens(slot).len()
    }

    /// A session has ended. Its cache is kept, unless others hold all of it, and those that have been of no use for the longest go.
    pub(super) fn close(&mut self, executor: &mut dyn Executor, slot: u64) {
        let mut tokens = self.open.remove(&slot).unwrap_or_default();
        tokens.truncate(self.room);
        executor.truncate(slot, tokens.len());
        if tokens.len() < SHARED_TOKENS || self.kept.iter().any(|(_, kept)| kept.starts_with(&tokens)) {
            return executor.release(slot);
        }
        let mut release = |(old, _): &(u64, Vec<Token>)| executor.release(*old);
        self.kept.extract_if(.., |(_, kept)| tokens.starts_with(kept)).for_each(|gone| release(&gone));
        self.kept.push((slot, tokens));
        while self.kept.iter().map(|(_, kept)| kept.len()).sum::<usize>() > self.room {
            release(&self.kept.remove(0));
        }
    }

    /// Nothing is known of a slot's cache any more.
    pub(super) fn forget(&mut self, executor: &mut dyn Executor, slot: u64) {
        self.open.remove(&slot);
        executor.release(slot);
    }
}

/// How many tokens two lists begin with alike.
pub(super) fn common(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
