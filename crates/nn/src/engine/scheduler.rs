//! The device thread: each turn it takes what all sessions wait for (prompt pieces, drafts to score, next tokens) and runs it as
//! one ragged batch.

use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;
use wsd_core::{Activity, Card, Error};

use super::caches::{Caches, SHARED_TOKENS, common};
use super::work::{Outcome, Work};
use crate::executor::{Executor, Span};

/// Tokens run in one turn: enough to keep the matrix products efficient, few enough that a token being generated beside a long
/// prompt does not wait long.
const STEP_TOKENS: usize = 256;
/// Of these, at least so many for long prompts, however many tokens are being generated.
const PROMPT_TOKENS: usize = 32;
/// Rows projected to the vocabulary at once, which bounds the memory of a long scoring.
const PROJECT_ROWS: usize = 32;
/// How long to wait for a slow reader before looking again.
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
    /// What is asked, in order of arrival.
    works: Vec<Work>,
    caches: Caches,
}

impl Scheduler {
    pub(super) fn new(
        executor: Box<dyn Executor>,
        card: Card,
        caches: Caches,
        inbox: Receiver<Message>,
        activity: Arc<Mutex<Activity>>,
    ) -> Self {
        Self { executor, card, inbox, activity, works: Vec::new(), caches }
    }

    /// Run until every session and the engine are gone.
    pub(super) fn run(mut self) {
        while self.receive() {
            self.works.retain(|work| !work.is_abandoned());
            self.step();
            self.report();
        }
    }

    /// Publishes the numbers of questions and caches.
    fn report(&self) {
        self.count(|activity| (activity.working, activity.slots) = (self.works.len(), self.caches.open()));
    }

    /// Changes the counters that [`wsd_core::Engine::activity`] reads.
    fn count(&self, change: impl FnOnce(&mut Activity)) {
        change(&mut self.activity.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Take in messages, waiting for one where there is nothing to run; `false` when no more can come.
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
                    self.works.retain(|work| work.slot != slot);
                    self.caches.close(&mut *self.executor, slot);
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return !self.works.is_empty(),
            }
            self.report();
        }
    }

    /// Check a question and keep what the cache already knows of its list.
    fn admit(&mut self, work: Work) {
        // A session asks one thing at a time: what it asked before has been dropped.
        self.works.retain(|other| other.slot != work.slot);
        if let Some(&token) = work.tokens.iter().find(|&&token| token as usize >= self.card.vocab) {
            let engine = self.card.name.clone();
            return work.fail(Error::TokenRange { engine, token, limit: self.card.vocab });
        }
        if work.tokens.len() > self.card.max_len {
            let (engine, tokens) = (self.card.name.clone(), work.tokens.len());
            return work.fail(Error::PromptTooLong { engine, tokens, limit: self.card.max_len });
        }
        let Some(work) = work.finish_if_done() else { return };
        self.caches.edit(&mut *self.executor, work.slot, work.before_rows());
        self.works.push(work);
    }

    /// Let works that have nothing yet begin with what some cache holds. Which of all works are to run now: one that a work asked
    /// before it is computing more of the beginning for waits.
    fn share_beginnings(&mut self) -> Vec<bool> {
        let mut ready = Vec::with_capacity(self.works.len());
        for (index, work) in self.works.iter().enumerate() {
            let needed = work.before_rows();
            if !self.caches.may_share(work.slot) || needed.len() < SHARED_TOKENS {
                ready.push(!work.is_blocked());
                continue;
            }
            let (from, held) = self.caches.longest(needed);
            let coming = self.works[..index].iter().map(|other| common(&other.tokens[..other.end()], needed)).max();
            let waits = coming.unwrap_or(0) >= held + SHARED_TOKENS;
            if !waits && held >= SHARED_TOKENS {
                let copied = self.caches.copy(&mut *self.executor, from, work.slot, &needed[..held]);
                self.count(|activity| activity.reused_tokens += copied);
            }
            ready.push(!waits);
        }
        ready
    }

    /// What each work that is ready runs this turn, as ranges of positions: all that are one token short, then long ones, which
    /// share what is left. Nobody waits for others to finish.
    fn plan(&mut self) -> Vec<(usize, Range<usize>)> {
        let ready = self.share_beginnings();
        let pending = |work: &Work| self.caches.tokens(work.slot).len()..work.end();
        let ready = self.works.iter().enumerate().filter(|(index, _)| ready[*index]);
        let (mut plan, long): (Vec<_>, Vec<_>) =
            ready.map(|(i, work)| (i, pending(work))).partition(|(_, span)| span.len() == 1);
        let mut left = STEP_TOKENS.saturating_sub(plan.len()).max(PROMPT_TOKENS);
        for (n, (i, span)) in long.iter().enumerate() {
            let share = left.div_ceil(long.len() - n);
            let take = span.len().min(share);
            if take > 0 {
                plan.push((*i, span.start..span.start + take));
                left -= take;
            }
        }
        plan
    }

    /// Run one turn.
    fn step(&mut self) {
        let plan = self.plan();
        if plan.is_empty() {
            return;
        }
        let spans: Vec<_> = plan
            .iter()
            .map(|(i, span)| {
                let work = &self.works[*i];
                let rows = work.rows(span.clone());
                let rows = rows.start - span.start..rows.end - span.start;
                Span { slot: work.slot, start: span.start, tokens: &work.tokens[span.clone()], rows }
            })
            .collect();
        // Which work each row belongs to, and how many of its rows come before.
        let owners: Vec<(usize, usize)> = plan
            .iter()
            .zip(&spans)
            .flat_map(|((i, _), span)| (0..span.rows.len()).map(move |ahead| (*i, ahead)))
            .collect();
        let outcomes = self.executor.forward(&spans).and_then(|hidden| self.outcomes(&hidden, &owners));
        self.count(|activity| activity.steps += 1);
        for (i, span) in &plan {
            let work = &self.works[*i];
            self.caches.extend(work.slot, &work.tokens[span.clone()]);
        }
        match outcomes {
            Ok(outcomes) => self.apply(outcomes, &owners),
            Err(error) => self.fail_all(&plan, &error.to_string()),
        }
    }

    /// Project hidden rows to the vocabulary, block by block, and see what each leads to.
    fn outcomes(&mut self, hidden: &[f32], owners: &[(usize, usize)]) -> crate::Result<Vec<Outcome>> {
        let width = hidden.len() / owners.len().max(1);
        let mut outcomes = Vec::with_capacity(owners.len());
        let mut logits = Vec::new();
        for (hidden, owners) in hidden.chunks((PROJECT_ROWS * width).max(1)).zip(owners.chunks(PROJECT_ROWS)) {
            self.executor.project(hidden, &mut logits)?;
            let rows = logits.par_chunks_mut(self.card.vocab).zip(owners);
            let works = &self.works;
            outcomes.par_extend(rows.map(|(row, &(i, ahead))| works[i].outcome(ahead, row)));
        }
        Ok(outcomes)
    }

    /// Hand out the outcomes; a work that ends early ignores its later rows.
    fn apply(&mut self, outcomes: Vec<Outcome>, owners: &[(usize, usize)]) {
        let mut works: Vec<_> = std::mem::take(&mut self.works).into_iter().map(Some).collect();
        for (outcome, &(i, _)) in outcomes.into_iter().zip(owners) {
            works[i] = works[i].take().and_then(|work| work.apply(outcome, &self.card.name, &self.card.end_tokens));
        }
        self.works = works.into_iter().flatten().collect();
    }

    /// The executor failed: nothing is known of the caches it touched.
    fn fail_all(&mut self, plan: &[(usize, Range<usize>)], message: &str) {
        let mut works: Vec<_> = std::mem::take(&mut self.works).into_iter().map(Some).collect();
        for (i, _) in plan {
            if let Some(work) = works[*i].take() {
                self.caches.forget(&mut *self.executor, work.slot);
                work.fail(Error::Engine { engine: self.card.name.clone(), message: message.to_owned() });
            }
        }
        self.works = works.into_iter().flatten().collect();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::{mpsc, oneshot};
    use wsd_core::{Caps, Cost, Generation, Sampling};

    use super::*;
    use crate::{Checkpoint, cpu::Cpu};

    #[test]
    fn nobody_waits_for_others_to_finish_however_many_there_are() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
        let executor = Cpu::load(&Checkpoint::open(&fixture).unwrap()).unwrap();
        let card = Card {
            name: "tiny".into(),
            max_len: 256,
            vocab: 300,
            caps: Caps::default(),
            cost: Cost::default(),
            end_tokens: vec![],
        };
        let (_inbox, receiver) = std::sync::mpsc::channel();
        let mut scheduler = Scheduler::new(Box::new(executor), card, Caches::new(0), receiver, Arc::default());
        let (reply, _steps) = mpsc::channel(1);
        let plan = Generation { max_tokens: 9, sampling: Sampling::default(), top_logprobs: 0 };
        let writers = 2 * STEP_TOKENS as u64;
        for slot in 0..writers {
            scheduler.admit(Work::generate(slot, vec![1], plan.clone(), 256, reply.clone()));
        }
        let (reply, _scores) = oneshot::channel();
        scheduler.admit(Work::score(writers, vec![1; 200], 1, 0, reply));
        let tokens: Vec<_> = scheduler.plan().into_iter().map(|(i, span)| (i, span.len())).collect();
        let mut expected: Vec<_> = (0..writers as usize).map(|i| (i, 1)).collect();
        expected.push((writers as usize, PROMPT_TOKENS));
        assert_eq!(tokens, expected);
    }
}
