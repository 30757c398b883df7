//! Admission control: some requests are answered at once, some wait in a queue, the rest are
//! refused. Slots go round the clients and their requests, so that none takes the time of others who
//! wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::{Account, Client, ClientLimits, Held};
use super::error::ApiError;

/// The least number of accounts from which idle ones are dropped.
const MANY_ACCOUNTS: usize = 4096;
/// The time after which a wait asks again whether its client has lately held so little that it may have
/// a spare slot, which no event tells.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Returns the most answers at a time: beside those of the setting as many again, for clients that have
/// none. One client may take all of the setting's, and its answers may be long.
#[must_use]
pub fn all_slots(max_concurrent: usize) -> usize {
    2 * max_concurrent
}

/// A bounded queue before a bounded number of concurrent answers.
pub(super) struct Admission {
    state: Mutex<State>,
    /// Maximum number of concurrent answers.
    max_concurrent: usize,
    /// Maximum number of waiting requests.
    max_queue: usize,
    limits: ClientLimits,
}

#[derive(Default)]
struct State {
    /// Requests that are answered or wait.
    requests: usize,
    /// Answers being written.
    running: usize,
    /// Answers that wait for a slot, in order of arrival.
    waiting: Vec<Waiter>,
    accounts: HashMap<Client, Account>,
    /// The number of accounts from which idle ones are dropped: twice those that were left by the last
    /// time, so that a request pays for a few accounts and not for all.
    many: usize,
    /// Answers being written, by request.
    answers: HashMap<u64, usize>,
    /// Requests admitted so far.
    count: u64,
}

/// A request among those of its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) client: Client,
    request: u64,
}

/// An answer that waits for a slot; a message over `slot` gives it one.
struct Waiter {
    source: Source,
    slot: oneshot::Sender<()>,
}

/// A place among the admitted requests; dropping it frees the place.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    pub(super) source: Source,
}

/// A slot for one answer; dropping it frees the slot.
pub(super) struct Slot {
    admission: Arc<Admission>,
    source: Source,
}

/// A wait for a slot; dropping it gives back a slot that came too late.
struct Wait {
    admission: Arc<Admission>,
    source: Source,
    slot: Option<oneshot::Receiver<()>>,
}

impl Admission {
    /// Admission of `max_concurrent` answers at a time and `max_queue` waiting requests, and of
    /// each client within its limits.
    pub(super) fn new(max_concurrent: usize, max_queue: usize, limits: ClientLimits) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), max_concurrent, max_queue, limits })
    }

    /// Admits a request, or refuses it if the queue is full or the client has used up its share of
    /// a minute. A client without any request finds room even in a queue that others fill.
    pub(super) fn admit(self: &Arc<Self>, client: Client) -> Result<Admitted, ApiError> {
        let (mut state, now) = (self.lock(), Instant::now());
        self.expect_room(&state, client)?;
        state.drop_idle(now);
        let account = state.accounts.entry(client).or_default();
        account.requests += 1;
        account.minute.add_request(now);
        state.requests += 1;
        state.count += 1;
        Ok(Admitted { admission: self.clone(), source: Source { client, request: state.count } })
    }

    /// Refuses a request that would be refused now. This is asked before its body is read, so that
    /// refusals cost little.
    pub(super) fn check(&self, client: Client) -> Result<(), ApiError> {
        self.expect_room(&self.lock(), client)
    }

    /// Refuses a request for which there is no room. One that is refused leaves no account.
    fn expect_room(&self, state: &State, client: Client) -> Result<(), ApiError> {
        let places = self.max_concurrent + self.max_queue;
        let account = state.accounts.get(&client);
        account.map(|account| account.minute).unwrap_or_default().check(&self.limits, Instant::now())?;
        let is_new = account.is_none_or(|account| account.requests == 0);
        let has_room = state.requests < places || (is_new && state.requests < 2 * places);
        if has_room { Ok(()) } else { Err(ApiError::busy(self.max_concurrent, self.max_queue)) }
    }

    /// Waits for a slot. The client with the fewest slots comes first, of those with equally many the one
    /// that has lately held the fewest, of its requests the one with the fewest, among equals the one that
    /// came first. A client without any slot, and lately with less than one, does not wait for those of
    /// others as long as a spare one is left.
    pub(super) async fn slot(self: &Arc<Self>, source: Source) -> Result<Slot, ApiError> {
        let (sender, receiver) = oneshot::channel();
        let mut wait = Wait { admission: self.clone(), source, slot: Some(receiver) };
        {
            let mut state = self.lock();
            state.waiting.push(Waiter { source, slot: sender });
            self.give_slots(&mut state);
        }
        while let Some(slot) = &mut wait.slot {
            match timeout(ASK_AGAIN, slot).await {
                Ok(given) => {
                    given.map_err(|_| ApiError::closing())?;
                    wait.slot = None;
                }
                Err(_) => self.ask_again(source.client),
            }
        }
        Ok(Slot { admission: self.clone(), source })
    }

    /// Gives free slots to those who wait if the client may have a spare one by now.
    fn ask_again(&self, client: Client) {
        let mut state = self.lock();
        if state.running < all_slots(self.max_concurrent) && state.held(client).is_modest(Instant::now()) {
            self.give_slots(&mut state);
        }
    }

    /// Gives free slots to those who wait.
    fn give_slots(&self, state: &mut State) {
        state.waiting.retain(|waiter| !waiter.slot.is_closed());
        let now = Instant::now();
        loop {
            let order = |source: Source| {
                let by_client = state.held(source.client);
                let by_request = state.answers.get(&source.request).copied().unwrap_or(0);
                (by_client.now(), by_client.lately(now), by_request)
            };
            let waiting = state.waiting.iter().enumerate();
            // Where the first may have no slot, none of the others may.
            let Some(first) = waiting.min_by_key(|(_, waiter)| order(waiter.source)) else { return };
            let (index, held) = (first.0, state.held(first.1.source.client));
            let slots = if held.is_modest(now) { all_slots(self.max_concurrent) } else { self.max_concurrent };
            if state.running >= slots || held.now() >= self.limits.max_concurrent {
                return;
            }
            let Waiter { source, slot } = state.waiting.remove(index);
            if slot.send(()).is_ok() {
                state.running += 1;
                state.accounts.entry(source.client).or_default().held.change(1, now);
                *state.answers.entry(source.request).or_default() += 1;
            }
        }
    }

    /// Takes a slot back.
    fn free_slot(&self, source: Source) {
        let mut state = self.lock();
        state.running -= 1;
        state.accounts.entry(source.client).or_default().held.change(-1, Instant::now());
        if let Entry::Occupied(mut answers) = state.answers.entry(source.request) {
            *answers.get_mut() -= 1;
            if *answers.get() == 0 {
                answers.remove();
            }
        }
        self.give_slots(&mut state);
    }

    /// Charges tokens to a client.
    pub(super) fn add_tokens(&self, client: Client, tokens: usize) {
        self.lock().accounts.entry(client).or_default().minute.add_tokens(tokens, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of concurrent answers.
    pub(super) fn max_concurrent(&self) -> usize {
        self.max_concurrent
    }

    /// The number of answers being written.
    pub(super) fn running(&self) -> usize {
        self.lock().running
    }

    /// The number of answers that wait for a slot.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.iter().filter(|waiter| !waiter.slot.is_closed()).count()
    }
}

impl State {
    /// The slots of a client.
    fn held(&self, client: Client) -> Held {
        self.accounts.get(&client).map(|account| account.held).unwrap_or_default()
    }

    /// Drops idle accounts once there are many.
    fn drop_idle(&mut self, now: Instant) {
        if self.accounts.len() >= self.many.max(MANY_ACCOUNTS) {
            self.accounts.retain(|_, account| !account.is_idle(now));
            self.many = 2 * self.accounts.len();
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.requests -= 1;
        state.accounts.entry(self.source.client).or_default().requests -= 1;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admission.free_slot(self.source);
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(slot) = &mut self.slot else { return };
        slot.close();
        if slot.try_recv().is_ok() {
            self.admission.free_slot(self.source);
        }
    }
}

#[cfg(test)]
mod tests;
