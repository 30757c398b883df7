//! The device thread: each step it takes what all sessions wait for (prompt pieces, drafts to
//! score, next tokens) and runs it as one ragged batch.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use wsd_core::{Activity, Card, Error, Layer, common_prefix};

use super::accounts::Accounts;
use super::drafter::Drafter;
use super::pace::{Load, Pace};
use super::plan::{Candidate, Plan};
use super::prefix_cache::{PrefixCache, SHARED_TOKENS};
use super::questions::{Output, Vectors};
use super::work::{Piece, Work};
use crate::arch::{Blueprint, Head, tensors};
use crate::executor::{Answer, Ask, Executor};

/// Hidden states that a head is applied to at once, which bounds the memory of a long scoring.
const PROJECT_ROWS: usize = 32;
/// The names of the layers' tensors begin so.
const LAYERS: &str = "model.layers.";
/// Polling interval while the clients of all requests are too slow.
const BLOCKED_WAIT: Duration = Duration::from_millis(1);

/// From sessions to the device thread.
pub(super) enum Message {
    Ask(Work),
    Close(u64),
}

/// The state of the device thread.
pub(super) struct Scheduler {
    executor: Box<dyn Executor>,
    card: Card,
    inbox: Receiver<Message>,
    activity: Arc<Mutex<Activity>>,
    /// Requests in progress, in order of arrival.
    works: Vec<Work>,
    cache: PrefixCache,
    /// The draft head, if there is one.
    drafter: Option<Drafter>,
    /// Scratch for head outputs.
    outputs: Vec<f32>,
    pace: Pace,
    accounts: Accounts,
    /// Steps run so far.
    steps: usize,
}

impl Scheduler {
    pub(super) fn new(
        executor: Box<dyn Executor>,
        card: Card,
        cache: PrefixCache,
        inbox: Receiver<Message>,
        activity: Arc<Mutex<Activity>>,
    ) -> Self {
        let pace = Pace::new(row_cost(executor.blueprint()));
        let (works, outputs, accounts) = Default::default();
        Self { executor, card, inbox, activity, works, cache, drafter: None, outputs, pace, accounts, steps: 0 }
    }

    /// The same thread with a draft head.
    pub(super) fn with_drafter(self, drafter: Option<Drafter>) -> Self {
        Self { drafter, ..self }
    }

    /// Runs until every session and the engine are gone.
    pub(super) fn run(mut self) {
        while self.receive() {
            self.works.retain(|work| !work.is_abandoned());
            self.step();
            self.report();
        }
    }

    /// Publishes the numbers of running requests and of open caches.
    fn report(&self) {
        self.count(|activity| (activity.working, activity.slots) = (self.works.len(), self.cache.open()));
    }

    /// Changes the counters that [`wsd_core::Engine::activity`] reads.
    fn count(&self, change: impl FnOnce(&mut Activity)) {
        change(&mut self.activity.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Handles all pending messages and waits for one if nothing can run. Returns `false` once all
    /// senders are gone and no work is left.
    fn receive(&mut self) -> bool {
        loop {
            let next = if self.works.is_empty() {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else if self.works.iter().all(Work::is_blocked) {
                self.inbox.recv_timeout(BLOCKED_WAIT)
            } else {
                self.inbox.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            match next {
                Ok(Message::Ask(work)) => self.admit(work),
                Ok(Message::Close(slot)) => {
                    self.works.retain(|work| work.place.slot != slot);
                    self.cache.close(&mut *self.executor, slot);
                    self.drafter.iter_mut().for_each(|drafter| drafter.close(slot));
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return !self.works.is_empty(),
            }
            self.report();
        }
    }

    /// Validates a request, queues it, and truncates its cache to the prefix that its list shares.
    fn admit(&mut self, work: Work) {
        // A session has one request at a time, so an earlier one was cancelled.
        self.works.retain(|other| other.place.slot != work.place.slot);
        let engine = self.card.name.clone();
        if let Some(&token) = work.tokens().iter().find(|&&token| token as usize >= self.card.vocab) {
            return work.fail(Error::TokenRange { engine, token, limit: self.card.vocab });
        }
        if work.len() > self.card.max_len {
            let tokens = work.len();
            return work.fail(Error::PromptTooLong { engine, tokens, limit: self.card.max_len });
        }
        if let Err(message) = self.check_output(work.output()) {
            return work.fail(Error::Engine { engine, message });
        }
        let work = self.known_to_drafter(work);
        let Some(work) = self.finish_if_done(work) else { return };
        self.cache.edit(&mut *self.executor, work.place, work.before_rows());
        self.works.push(work);
    }

    /// Tells the draft head the list of a work, which then needs no vectors that the head has.
    fn known_to_drafter(&mut self, work: Work) -> Work {
        let Some(drafter) = &mut self.drafter else { return work };
        let (slot, proposes) = (work.place.slot, work.wanted_tree().is_some());
        if proposes {
            drafter.begin(slot);
        }
        let known = drafter.edit(slot, &work.tokens()[..work.list().chain()], proposes);
        if proposes { work.starting_at(known) } else { work }
    }

    /// Answers a work if nothing is left to compute; returns it otherwise.
    fn finish_if_done(&mut self, mut work: Work) -> Option<Work> {
        if let (Some(drafter), true, Some(shape)) = (&mut self.drafter, work.wants_tree_now(), work.wanted_tree()) {
            match drafter.propose(&mut *self.executor, work.place.slot, work.tokens(), shape) {
                Ok(tree) => work.take_tree(tree),
                Err(error) => {
                    let (engine, message) = (self.card.name.clone(), error.to_string());
                    work.fail(Error::Engine { engine, message });
                    return None;
                }
            }
        }
        work.finish_if_done(&self.card.name)
    }

    /// Checks that the model has the layer or the head that a question reads.
    fn check_output(&self, output: Output) -> Result<(), String> {
        let blueprint = self.executor.blueprint();
        let layers = blueprint.layers.len();
        let (depth, head) = match output {
            Output::Hidden(layer) => (layer.depth(), None),
            Output::Head(head) => (None, Some(head)),
            Output::Inner(layers) => (Some(layers), Some(Head::VOCABULARY)),
        };
        if let Some(depth) = depth.filter(|depth| *depth > layers) {
            return Err(format!("`layer` must be at most {layers}, got {depth}"));
        }
        match head.filter(|head| blueprint.head(*head).is_none()) {
            Some(head) => Err(crate::Error::MissingHead { head: head.module() }.to_string()),
            None => Ok(()),
        }
    }

    /// Copies the longest cached prefix into every session that has no cache yet. Returns, for each
    /// work, true if it may run this step. A work must wait while its client is slow, or while an
    /// earlier work is computing a longer prefix that it can then copy.
    fn share_prefixes(&mut self) -> Vec<bool> {
        let mut ready = Vec::with_capacity(self.works.len());
        for (index, work) in self.works.iter().enumerate() {
            let needed = work.before_rows();
            if !self.cache.may_share(work.place.slot) || needed.len() < SHARED_TOKENS {
                ready.push(!work.is_blocked());
                continue;
            }
            let scope = work.place.scope;
            let (from, held) = self.cache.longest(scope, needed);
            let earlier = self.works[..index].iter().filter(|other| other.place.scope == scope);
            let pending = earlier.map(|other| common_prefix(other.shareable(), needed)).max();
            let waits = pending.unwrap_or(0) >= held + SHARED_TOKENS;
            if !waits && held >= SHARED_TOKENS {
                let copied = self.cache.copy(&mut *self.executor, from, work.place.slot, &needed[..held]);
                work.reused.fetch_add(copied, Ordering::Relaxed);
                self.count(|activity| activity.reused_tokens += copied);
            }
            ready.push(!waits);
        }
        ready
    }

    /// Plans the next step.
    fn plan(&mut self) -> Plan {
        let ready = self.share_prefixes();
        let candidates = self.works.iter().enumerate().filter(|(index, _)| ready[*index]).map(|(index, work)| {
            let cached = self.cache.tokens(work.place.slot).len();
            let unread = work.before_rows().len().saturating_sub(cached);
            let read = work.end().saturating_sub(cached + unread);
            Candidate { work: index, client: work.place.scope.client, ran: work.ran, unread, read }
        });
        Plan::new(candidates.collect(), &self.pace, &self.accounts)
    }

    /// Runs one step.
    fn step(&mut self) {
        let plan = self.plan();
        let pieces: Vec<_> = plan.pieces.iter().map(|(work, positions)| self.piece(*work, *positions)).collect();
        if pieces.is_empty() {
            return;
        }
        let spans: Vec<_> = pieces.iter().map(|piece| self.works[piece.work].span(&piece.range)).collect();
        let rows: Vec<_> = spans.iter().map(|span| span.rows.len()).collect();
        let started = Instant::now();
        let asks = self.asks(&pieces, &rows);
        let answers = asks.map_or(Ok(None), |asks| self.executor.answer(&spans, &asks));
        let outcome = match answers {
            Ok(Some(answers)) => Ok(Outcome::Answers(answers)),
            Ok(None) => self.executor.forward(&spans).map(Outcome::Hidden),
            Err(error) => Err(error),
        };
        self.steps += 1;
        let steps = self.steps;
        self.count(|activity| activity.steps = steps);
        for piece in &pieces {
            let work = &mut self.works[piece.work];
            work.ran = steps;
            let (tokens, tree) = work.cacheable(&piece.range);
            self.cache.extend(work.place.slot, tokens, tree);
        }
        let delivered = outcome.and_then(|outcome| match outcome {
            Outcome::Hidden(hidden) => self.deliver(hidden, &pieces, &rows),
            Outcome::Answers(answers) => {
                let mut answers = &answers[..];
                for (piece, rows) in pieces.iter().zip(&rows) {
                    let (own, later) = answers.split_at(*rows);
                    self.works[piece.work].take_answers(own);
                    answers = later;
                }
                Ok(())
            }
        });
        match delivered {
            Ok(()) => {
                let seconds = started.elapsed().as_secs_f64();
                let costs = pieces.iter().zip(&rows).map(|(piece, rows)| self.pace.cost(piece.range.len(), *rows));
                let costs: Vec<_> = costs.collect();
                // A tree is run whole, which tells nothing of one position.
                let is_told = pieces[..plan.first].iter().all(|piece| piece.range.len() == 1);
                if let Some(sessions) = plan.sessions.filter(|_| is_told) {
                    self.pace.observe(Load { sessions, cost: costs[plan.first..].iter().sum() }, seconds);
                }
                let clients = pieces.iter().map(|piece| self.works[piece.work].place.scope.client);
                self.accounts.charge(&clients.zip(costs).collect::<Vec<_>>(), seconds);
                let works = std::mem::take(&mut self.works).into_iter();
                self.works = works.filter_map(|work| self.finish_if_done(work)).collect();
            }
            Err(error) => self.fail_all(&pieces, &error.to_string()),
        }
    }

    /// The next positions of a work; a tree is run whole.
    fn piece(&self, work: usize, positions: usize) -> Piece {
        let cached = self.cache.tokens(self.works[work].place.slot).len();
        Piece { work, range: self.works[work].next_range(cached, positions) }
    }

    /// The questions about all rows of a step, if a device may answer all of them.
    fn asks(&self, pieces: &[Piece], rows: &[usize]) -> Option<Vec<Ask>> {
        // The draft head needs the features themselves.
        let drafts =
            |piece: &Piece| self.drafter.as_ref().is_some_and(|it| it.follows(self.works[piece.work].place.slot));
        if pieces.iter().any(drafts) {
            return None;
        }
        let asks = pieces.iter().zip(rows).map(|(piece, rows)| self.works[piece.work].asks(*rows));
        Some(asks.collect::<Option<Vec<_>>>()?.concat())
    }

    /// Delivers the output vectors of each work: hidden states, or head outputs, projected in
    /// blocks of `PROJECT_ROWS`.
    fn deliver(&mut self, mut hidden: Vec<f32>, pieces: &[Piece], rows: &[usize]) -> crate::Result<()> {
        let width = self.executor.blueprint().hidden;
        self.observe(&hidden, pieces, rows);
        let mut by_index: Vec<_> = self.works.iter_mut().map(Some).collect();
        // Pieces have the same order as the rows in `hidden`.
        let works = pieces.iter().zip(rows).filter_map(|(piece, rows)| Some((by_index[piece.work].take()?, *rows)));
        let mut works: Vec<_> = works.filter(|(_, rows)| *rows > 0).collect();
        let (mut rest, outputs) = (&mut hidden[..], &mut self.outputs);
        for alike in works.chunk_by_mut(|(one, _), (other, _)| one.output() == other.output()) {
            let rows: usize = alike.iter().map(|(_, rows)| rows).sum();
            let (hidden, later) = std::mem::take(&mut rest).split_at_mut(rows * width);
            rest = later;
            let head = match alike[0].0.output() {
                Output::Hidden(_) => None,
                Output::Head(head) => Some(head),
                Output::Inner(_) => Some(Head::VOCABULARY),
            };
            match head {
                None => drop(read(alike, Vectors { floats: hidden, width })),
                Some(head) => {
                    let mut alike = alike;
                    for hidden in hidden.chunks(PROJECT_ROWS * width) {
                        self.executor.project(head, hidden, outputs)?;
                        let rows = hidden.len() / width;
                        let width = outputs.len() / rows;
                        alike = read(alike, Vectors { floats: outputs, width });
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives the features of a step to the draft head.
    fn observe(&mut self, hidden: &[f32], pieces: &[Piece], rows: &[usize]) {
        let Some(drafter) = &mut self.drafter else { return };
        let (width, mut rest) = (self.executor.blueprint().hidden, hidden);
        for (piece, rows) in pieces.iter().zip(rows) {
            let (own, later) = rest.split_at(rows * width);
            rest = later;
            let work = &self.works[piece.work];
            if matches!(work.output(), Output::Hidden(Layer::Final) | Output::Head(_)) {
                drafter.observe(work.place.slot, work.list(), own);
            }
        }
    }

    /// Fails the works of a step that the executor could not complete, and drops their caches,
    /// whose contents are unknown.
    fn fail_all(&mut self, pieces: &[Piece], message: &str) {
        let mut works: Vec<_> = std::mem::take(&mut self.works).into_iter().map(Some).collect();
        for piece in pieces {
            if let Some(work) = works[piece.work].take() {
                self.cache.forget(&mut *self.executor, work.place.slot);
                self.drafter.iter_mut().for_each(|drafter| drafter.close(work.place.slot));
                work.fail(Error::Engine { engine: self.card.name.clone(), message: message.to_owned() });
            }
        }
        self.works = works.into_iter().flatten().collect();
    }
}

/// The multiplications of the vocabulary's head, as a multiple of those of all layers.
fn row_cost(blueprint: &Blueprint) -> f64 {
    let sizes = tensors(blueprint).into_iter().filter(|(name, _)| name.starts_with(LAYERS));
    let layers: usize = sizes.map(|(_, shape)| shape.into_iter().product::<usize>()).sum();
    (blueprint.vocab * blueprint.hidden) as f64 / layers.max(1) as f64
}

/// The result of a step.
enum Outcome {
    /// The hidden states of the wanted rows.
    Hidden(Vec<f32>),
    /// Answers to questions about the wanted rows.
    Answers(Vec<Answer>),
}

/// Distributes vectors to works in order, at most the missing rows of each, which then process them
/// in parallel. Returns the works that still miss rows.
fn read<'s, 'w>(works: &'s mut [(&'w mut Work, usize)], vectors: Vectors<'_>) -> &'s mut [(&'w mut Work, usize)] {
    let width = vectors.width;
    let (mut parts, mut rest, mut served) = (Vec::new(), vectors.floats, 0);
    for (work, lacking) in works.iter_mut() {
        let rows = (*lacking).min(rest.len() / width);
        if rows == 0 {
            break;
        }
        let (floats, later) = std::mem::take(&mut rest).split_at_mut(rows * width);
        rest = later;
        *lacking -= rows;
        served += usize::from(*lacking == 0);
        parts.push((work, floats));
    }
    let take = |(work, floats): (&mut &mut Work, &mut [f32])| work.take(Vectors { floats, width });
    // One work is not worth the hand-over to another thread.
    if parts.len() == 1 {
        parts.into_iter().for_each(take)
    } else {
        parts.into_par_iter().for_each(take)
    }
    &mut works[served..]
}
