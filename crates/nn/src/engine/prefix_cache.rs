//! The tokens that the executor's KV caches hold: those of open sessions, and those of ended ones,
//! kept for later sessions with a common prefix.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use wsd_core::{Scope, Token, Tree, common_prefix};

use crate::executor::Executor;

/// The length from which a common prefix is worth a copy, or a wait for another session to compute
/// it.
pub(super) const SHARED_TOKENS: usize = 16;
/// The time without a session after which a client counts as gone.
const GONE: Duration = Duration::from_secs(600);

/// Tokens held by each slot's KV cache. This table is authoritative: what it does not list of a
/// slot is not cached.
pub(super) struct PrefixCache {
    open: HashMap<u64, Held>,
    /// Caches of ended sessions in LRU order, the least recently used first.
    kept: Vec<Kept>,
    /// The number of tokens that may be kept. With 0, open sessions share nothing either.
    capacity: usize,
}

/// The slot of a session, and its scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: u64,
    pub(super) scope: Scope,
}

/// The cache of an ended session.
struct Kept {
    place: Place,
    tokens: Vec<Token>,
    /// The time of its last use: the end of its session, or a copy.
    used: Instant,
}

/// The contents of an open session's cache.
#[derive(Default)]
struct Held {
    scope: Scope,
    tokens: Vec<Token>,
    /// A tree whose nodes are cached after the tokens, until the next request shows which path was
    /// accepted.
    tree: Option<Tree>,
}

impl PrefixCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { open: HashMap::new(), kept: Vec::new(), capacity }
    }

    /// The number of open sessions that hold a cache.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// The tokens cached for an open session.
    pub(super) fn tokens(&self, slot: u64) -> &[Token] {
        self.open.get(&slot).map_or(&[], |held| &held.tokens)
    }

    /// Reduces a session's cache to its common prefix with `tokens`, including the path of a cached
    /// tree that they follow.
    pub(super) fn edit(&mut self, executor: &mut dyn Executor, place: Place, tokens: &[Token]) {
        let Place { slot, scope } = place;
        let held = self.open.entry(slot).or_default();
        held.scope = scope;
        let shared = common_prefix(&held.tokens, tokens);
        let tree = held.tree.take().filter(|_| shared == held.tokens.len());
        let path = tree.map_or_else(Vec::new, |tree| tree.matching(&tokens[shared..]));
        held.tokens.truncate(shared);
        if path.is_empty() {
            return executor.truncate(slot, shared);
        }
        let positions: Vec<_> = path.iter().map(|vertex| shared + *vertex as usize - 1).collect();
        match executor.keep(slot, shared, &positions) {
            Ok(()) => held.tokens.extend(&tokens[shared..][..path.len()]),
            Err(_) => held.tokens.clear(),
        }
    }

    /// Adds tokens that the executor has run, and a tree that continues them.
    pub(super) fn extend(&mut self, slot: u64, tokens: &[Token], tree: Option<&Tree>) {
        if let Some(held) = self.open.get_mut(&slot) {
            held.tokens.extend(tokens);
            held.tree = tree.cloned();
        }
    }

    /// True if a session has no cache yet and may start with a copy of another's.
    pub(super) fn may_share(&self, slot: u64) -> bool {
        self.capacity > 0 && self.tokens(slot).is_empty()
    }

    /// The slot whose cache has the longest common prefix with `tokens` in a scope, and the length of
    /// that.
    pub(super) fn longest(&self, scope: Scope, tokens: &[Token]) -> (u64, usize) {
        let open = self
            .open
            .iter()
            .filter(|(_, held)| held.scope.cache == scope.cache)
            .map(|(slot, held)| (*slot, &held.tokens));
        let kept = self.kept.iter().filter(|kept| kept.place.scope.cache == scope.cache);
        let all = open.chain(kept.map(|kept| (kept.place.slot, &kept.tokens)));
        all.map(|(slot, cached)| (slot, common_prefix(cached, tokens))).max_by_key(|&(_, len)| len).unwrap_or_default()
    }

    /// Starts a session with `tokens`, copied from another's cache. Returns the number of tokens it
    /// has then: none where the device's memory is full.
    pub(super) fn copy(&mut self, executor: &mut dyn Executor, from: u64, slot: u64, tokens: &[Token]) -> usize {
        if let Some(index) = self.kept.iter().position(|kept| kept.place.slot == from) {
            self.kept[index].used = Instant::now();
            self.kept[index..].rotate_left(1);
        }
        if executor.copy(from, slot, tokens.len()).is_ok() {
            self.extend(slot, tokens, None);
        }
        self.tokens(slot).len()
    }

    /// Ends a session at `now`. Its cache is kept unless another holds all of it. Where there is no room,
    /// the least recently used one of the client that holds the most tokens is evicted; those of clients
    /// that are gone precede all others.
    pub(super) fn close(&mut self, executor: &mut dyn Executor, slot: u64, now: Instant) {
        let Held { scope, mut tokens, .. } = self.open.remove(&slot).unwrap_or_default();
        tokens.truncate(self.capacity);
        executor.truncate(slot, tokens.len());
        let is_held = |kept: &Kept| kept.place.scope.cache == scope.cache && kept.tokens.starts_with(&tokens);
        if tokens.len() < SHARED_TOKENS || self.kept.iter().any(is_held) {
            return executor.release(slot);
        }
        let mut release = |gone: &Kept| executor.release(gone.place.slot);
        let holds = |kept: &mut Kept| kept.place.scope.cache == scope.cache && tokens.starts_with(&kept.tokens);
        self.kept.extract_if(.., holds).for_each(|gone| release(&gone));
        self.kept.push(Kept { place: Place { slot, scope }, tokens, used: now });
        while self.kept.iter().map(|kept| kept.tokens.len()).sum::<usize>() > self.capacity {
            release(&self.kept.remove(self.next_to_go(now)));
        }
    }

    /// The index of the least recently used cache of the client whose caches have the most tokens, of the
    /// clients that are gone if there are any.
    fn next_to_go(&self, now: Instant) -> usize {
        let mut clients = HashMap::<u64, (bool, usize)>::new();
        for Kept { place, tokens, used } in &self.kept {
            let client = place.scope.client;
            let is_absent = || self.open.values().all(|held| held.scope.client != client);
            let (is_gone, sum) = clients.entry(client).or_insert_with(|| (is_absent(), 0));
            *is_gone &= now.saturating_duration_since(*used) >= GONE;
            *sum += tokens.len();
        }
        let first = clients.values().max().copied();
        let is_first = |kept: &Kept| clients.get(&kept.place.scope.client).copied() == first;
        self.kept.iter().position(is_first).unwrap_or_default()
    }

    /// Forgets a slot whose contents are unknown.
    pub(super) fn forget(&mut self, executor: &mut dyn Executor, slot: u64) {
        self.open.remove(&slot);
        executor.release(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::cpu::Cpu;
    use crate::executor::Span;

    /// Ends sessions of 40 tokens in a cache of 130, each of a client and at a second, while one of
    /// client 9 is open. Tells of each session whether its cache is kept.
    fn kept(sessions: &[(u64, u64)]) -> Vec<bool> {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        let mut cpu = Cpu::load(&Checkpoint::open(&fixture).unwrap()).unwrap();
        let (mut cache, start) = (PrefixCache::new(130), Instant::now());
        let scope = |client| Scope { cache: client, client };
        let list = |first: usize| (first as Token..first as Token + 40).collect::<Vec<_>>();
        cache.edit(&mut cpu, Place { slot: 100, scope: scope(9) }, &[]);
        for (index, (client, second)) in sessions.iter().enumerate() {
            let (slot, tokens) = (index as u64, list(index));
            cache.edit(&mut cpu, Place { slot, scope: scope(*client) }, &tokens);
            cache.extend(slot, &tokens, None);
            cache.close(&mut cpu, slot, start + Duration::from_secs(*second));
        }
        let held = sessions.iter().enumerate().map(|(index, (client, _))| cache.longest(scope(*client), &list(index)));
        held.map(|(_, len)| len == 40).collect()
    }

    #[test]
    fn the_client_with_the_most_tokens_makes_room() {
        let held = kept(&[(1, 0), (2, 0), (2, 0), (2, 0), (3, 0)]);
        assert_eq!(held, [true, false, false, true, true], "two of the second client's lists have made room");
    }

    #[test]
    fn clients_that_are_gone_make_room_first() {
        let busy = [(2, 599), (2, 599), (2, 599), (2, 599)];
        assert_eq!(kept(&[&[(1, 0)][..], &busy].concat()), [true, false, false, true, true], "it may come back");
        let late = [(2, 600), (2, 600), (2, 600), (2, 600)];
        assert_eq!(kept(&[&[(1, 0)][..], &late].concat()), [false, false, true, true, true]);
        assert_eq!(kept(&[&[(1, 0), (1, 500)][..], &late].concat()), [false, true, false, false, true, true]);
        assert_eq!(kept(&[&[(9, 0)][..], &late].concat()), [true, false, false, true, true], "a session is open");
    }

    #[test]
    fn the_path_of_a_tree_that_the_list_follows_is_kept() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        let mut cpu = Cpu::load(&Checkpoint::open(&fixture).unwrap()).unwrap();
        let mut cache = PrefixCache::new(0);
        let tree = Tree::try_new([(0, 7), (0, 8), (1, 9), (2, 5), (4, 6)]).unwrap();
        for (edited, kept) in [(&[1, 2, 8, 5, 3][..], 4), (&[1, 2, 7], 3), (&[1, 2, 6], 2), (&[1, 3], 1), (&[1, 2], 2)]
        {
            cache.edit(&mut cpu, Place::default(), &[]);
            cpu.forward(&[Span::chain(0, 0, &[1, 2])]).unwrap();
            let span = Span { parents: Some(tree.parents()), ..Span::chain(0, 2, tree.tokens()) };
            cpu.forward(&[span]).unwrap();
            cache.extend(0, &[1, 2], Some(&tree));
            cache.edit(&mut cpu, Place::default(), edited);
            assert_eq!((cache.tokens(0), cpu.cached(0)), (&edited[..kept], kept));
        }
    }
}
