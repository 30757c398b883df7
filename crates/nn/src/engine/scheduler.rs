//! The device thread: each step it takes what all sessions wait for (prompt pieces, drafts to
//! score, next tokens) and runs it as one ragged batch.

mod step;

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wsd_core::{Activity, Card, Error, common_prefix};

use super::accounts::Accounts;
use super::drafter::Drafter;
use super::pace::Pace;
use super::plan::{Candidate, Kind, Plan};
use super::prefix_cache::{PrefixCache, SHARED_TOKENS};
use super::questions::Output;
use super::work::Work;
use crate::arch::{Blueprint, Head, tensors};
use crate::executor::Executor;

/// The names of the layers' tensors begin so.
const LAYERS: &str = "model.layers.";
/// The names of the experts' tensors contain this.
const EXPERTS: &str = ".experts.";
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
            self.report();
            self.step();
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
                    self.cache.close(&mut *self.executor, slot, Instant::now());
                    self.drafter.iter_mut().for_each(|drafter| drafter.close(slot));
                    self.accounts.close(slot);
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
        if work.is_done() {
            return work.finish(&self.card.name);
        }
        self.cache.edit(&mut *self.executor, work.place, work.before_rows());
        self.works.push(work);
    }

    /// Tells the draft head the list of a work, which then needs no vectors that the head has.
    fn known_to_drafter(&mut self, work: Work) -> Work {
        let Some(drafter) = &mut self.drafter else { return work };
        let (slot, proposes) = (work.place.slot, work.proposes());
        if proposes {
            drafter.begin(slot);
        }
        let known = drafter.edit(slot, &work.tokens()[..work.list().chain()], proposes);
        if proposes { work.starting_at(known) } else { work }
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
            let runs = work.due_tree().is_none();
            if !runs || !self.cache.may_share(work.place.slot) || needed.len() < SHARED_TOKENS {
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
        let works = self.works.iter().enumerate().filter(|(index, _)| ready[*index]);
        let candidates = works.map(|(index, work)| self.candidate(index, work));
        Plan::new(candidates.collect(), &self.pace, &self.accounts)
    }

    /// The need of the work at an index.
    fn candidate(&self, index: usize, work: &Work) -> Candidate {
        let (kind, unread, read) = match work.due_tree() {
            Some(shape) => (Kind::Proposal, 0, Drafter::rows(shape)),
            None => {
                let cached = self.cache.tokens(work.place.slot).len();
                let unread = work.before_rows().len().saturating_sub(cached);
                let kind = if work.has_tree() { Kind::Tree } else { Kind::Chain };
                (kind, unread, work.end().saturating_sub(cached + unread))
            }
        };
        let has_read = self.accounts.read(work.place.slot);
        Candidate { work: index, client: work.place.scope.client, ran: work.ran, has_read, unread, read, kind }
    }
}

/// The multiplications of the vocabulary's head, as a multiple of those of all layers, in which a
/// position passes some of the experts.
fn row_cost(blueprint: &Blueprint) -> f64 {
    let passed = blueprint.experts.map_or(1.0, |experts| experts.used as f64 / experts.count as f64);
    let sizes = tensors(blueprint).into_iter().filter(|(name, _)| name.starts_with(LAYERS)).map(|(name, shape)| {
        let share = if name.contains(EXPERTS) { passed } else { 1.0 };
        share * shape.into_iter().product::<usize>() as f64
    });
    (blueprint.vocab * blueprint.hidden) as f64 / sizes.sum::<f64>().max(1.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;

    use tokio::sync::oneshot;
    use wsd_core::{Caps, Cost, Scope, Tree, TreeShape};

    use super::*;
    use crate::arch::{self, Experts};
    use crate::checkpoint::Checkpoint;
    use crate::cpu::Cpu;
    use crate::engine::list::List;
    use crate::engine::prefix_cache::Place;
    use crate::engine::questions::{NotFinite, Propose, Question, Vectors};

    /// A question that answers with the number of running requests that is public then.
    struct Watch {
        activity: Arc<Mutex<Activity>>,
        reply: oneshot::Sender<usize>,
    }

    impl Question for Watch {
        fn take(&mut self, list: &mut List, _: Vectors<'_>) -> Result<(), NotFinite> {
            list.advance();
            Ok(())
        }

        fn finish(self: Box<Self>) {
            let working = self.activity.lock().unwrap().working;
            self.reply.send(working).unwrap();
        }

        fn fail(self: Box<Self>, error: Error) {
            panic!("{error}");
        }

        fn is_abandoned(&self) -> bool {
            false
        }
    }

    fn checkpoint(name: &str) -> Checkpoint {
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
    }

    #[test]
    fn a_position_costs_the_experts_that_it_passes() {
        let blueprint = arch::blueprint(&checkpoint("mixtral").config).unwrap();
        let layers = |count, used| {
            let experts = blueprint.experts.map(|experts| Experts { count, used, ..experts });
            (blueprint.vocab * blueprint.hidden) as f64 / row_cost(&Blueprint { experts, ..blueprint.clone() })
        };
        // Beside the experts a layer has a row of its router for each of them.
        let routers = (6 * blueprint.hidden * blueprint.layers.len()) as f64;
        assert!((layers(8, 2) - layers(2, 2) - routers).abs() < 1e-6 * routers);
        assert!(layers(8, 8) > 1.5 * layers(8, 2));
    }

    /// A scheduler that nobody sends messages to.
    fn scheduler() -> Scheduler {
        let executor = Cpu::load(&checkpoint("llama")).unwrap();
        let (vocab, max_len) = (executor.blueprint().vocab, executor.blueprint().max_len);
        let (name, caps, cost) = ("tiny".to_owned(), Caps::GENERATE, Cost::default());
        let card = Card { name, max_len, vocab, caps, cost, end_tokens: Vec::new() };
        Scheduler::new(Box::new(executor), card, PrefixCache::new(0), channel().1, Arc::default())
    }

    #[test]
    fn whoever_reads_an_answer_is_no_longer_counted() {
        let mut scheduler = scheduler();
        let (reply, mut answer) = oneshot::channel();
        let watch = Watch { activity: scheduler.activity.clone(), reply };
        scheduler.admit(Work::new(Place::default(), List::new(vec![7], 0), watch));
        scheduler.report();
        assert_eq!(scheduler.activity.lock().unwrap().working, 1);
        scheduler.step();
        assert_eq!(answer.try_recv(), Ok(0));
    }

    #[test]
    fn a_proposal_is_a_part_of_a_step_and_of_its_client_s_share() {
        let mut scheduler = scheduler();
        let shape = TreeShape { width: 3, depth: 4, nodes: 9, least: 0.0 };
        let (reply, mut answer) = oneshot::channel();
        let place = Place { slot: 1, scope: Scope { cache: 0, client: 5 } };
        // No feature is needed before the first token, so that the head can propose at once.
        scheduler.admit(Work::new(place, List::new(vec![7], 0), Propose::new(shape, reply)));
        assert!(answer.try_recv().is_err(), "it waits for its step");
        let plan = scheduler.plan();
        assert_eq!(plan.pieces, [(0, 10)], "the root and three levels of three nodes");
        let pieces = scheduler.pieces(&plan);
        assert_eq!(scheduler.shares(&pieces), [(5, scheduler.pace.cost(0, 10))]);
        scheduler.step();
        assert_eq!((answer.try_recv().unwrap().unwrap(), scheduler.works.len()), (Tree::default(), 0));
    }
}
