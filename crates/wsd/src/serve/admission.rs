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
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const ALICE: Client = Client::Key(0);
    const BOB: Client = Client::Key(1);

    fn admission(max_concurrent: usize, limits: ClientLimits) -> Arc<Admission> {
        Admission::new(max_concurrent, 2, limits)
    }

    fn of(client: Client, request: u64) -> Source {
        Source { client, request }
    }

    /// The account of a client that held so many slots for so many seconds, and the time at which it gave
    /// them back.
    fn held_until_now(slots: isize, seconds: u64) -> (Account, Instant) {
        let (mut account, now) = (Account::default(), Instant::now());
        account.held.change(slots, now.checked_sub(Duration::from_secs(seconds)).unwrap());
        account.held.change(-slots, now);
        (account, now)
    }

    fn ready<T>(future: impl Future<Output = Result<T, ApiError>>) -> Option<T> {
        future.now_or_never().map(Result::unwrap)
    }

    #[tokio::test]
    async fn a_free_slot_goes_to_the_client_with_the_fewest() {
        let admission = admission(2, ClientLimits::default());
        let mut held: Vec<_> = (0..2).map(|_| ready(admission.slot(of(ALICE, 1))).unwrap()).collect();
        let mut alice = Box::pin(admission.slot(of(ALICE, 1)));
        assert!(alice.as_mut().now_or_never().is_none());
        let _bob = ready(admission.slot(of(BOB, 2))).expect("a spare slot");
        let mut second = Box::pin(admission.slot(of(BOB, 2)));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!((admission.running(), admission.waiting()), (3, 2));
        held.pop();
        assert!(alice.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        held.pop();
        assert!(second.as_mut().now_or_never().is_none(), "bob has a slot, alice has none");
        let _alice = ready(alice).unwrap();
        assert_eq!((admission.running(), admission.waiting()), (2, 1));
    }

    #[tokio::test]
    async fn a_free_slot_goes_to_the_request_with_the_fewest() {
        let admission = admission(2, ClientLimits::default());
        let mut held: Vec<_> = (0..2).map(|_| ready(admission.slot(of(ALICE, 1))).unwrap()).collect();
        let mut many = Box::pin(admission.slot(of(ALICE, 1)));
        let mut one = Box::pin(admission.slot(of(ALICE, 2)));
        assert!(many.as_mut().now_or_never().is_none() && one.as_mut().now_or_never().is_none());
        held.pop();
        assert!(many.as_mut().now_or_never().is_none(), "it came first, but its request has a slot");
        let _one = ready(one).unwrap();
        held.pop();
        let _many = ready(many).unwrap();
        drop(held);
        assert_eq!(admission.lock().answers.len(), 2);
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_no_slot() {
        let admission = admission(1, ClientLimits::default());
        let held = ready(admission.slot(of(ALICE, 1))).unwrap();
        let mut waiting = Box::pin(admission.slot(of(ALICE, 2)));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        // The slot is on its way to the one who leaves.
        drop(waiting);
        assert_eq!((admission.running(), admission.waiting()), (0, 0));
        assert!(ready(admission.slot(of(ALICE, 3))).is_some());
        assert!(admission.lock().answers.is_empty());
    }

    #[test]
    fn a_queue_filled_by_one_client_has_room_for_another() {
        let admission = admission(1, ClientLimits::default());
        let held: Vec<_> = (0..3).map(|_| admission.admit(ALICE).unwrap()).collect();
        assert!(admission.admit(ALICE).is_err() && admission.check(ALICE).is_err());
        let bob = admission.admit(BOB).unwrap();
        assert!(admission.admit(BOB).is_err(), "one is his share while the queue is full");
        drop((held, bob));
        assert!(admission.admit(ALICE).is_ok());
    }

    #[tokio::test]
    async fn each_client_has_its_limits() {
        let limits = ClientLimits { max_concurrent: 1, requests: Some(3), tokens: Some(100) };
        let admission = admission(4, limits);
        let _slot = ready(admission.slot(of(ALICE, 1))).unwrap();
        assert!(admission.slot(of(ALICE, 2)).now_or_never().is_none());
        assert!(ready(admission.slot(of(BOB, 3))).is_some());
        for _ in 0..3 {
            drop(admission.admit(ALICE).unwrap());
        }
        let refused = admission.admit(ALICE).err().unwrap().body()["error"]["message"].to_string();
        assert!(refused.contains("3 requests a minute"), "{refused}");
        admission.add_tokens(BOB, 101);
        let refused = admission.admit(BOB).err().unwrap().body()["error"]["message"].to_string();
        assert!(refused.contains("100 tokens a minute"), "{refused}");
    }

    #[tokio::test]
    async fn a_client_that_asks_one_thing_after_another_waits_for_nobody() {
        let admission = admission(1, ClientLimits::default());
        let _held = ready(admission.slot(of(ALICE, 1))).unwrap();
        let (account, _) = held_until_now(1, 60);
        admission.lock().accounts.insert(BOB, account);
        assert!(ready(admission.slot(of(BOB, 2))).is_some());
    }

    #[tokio::test]
    async fn a_client_that_held_many_is_given_the_spare_slot_after_a_while() {
        let admission = admission(1, ClientLimits::default());
        let _held = ready(admission.slot(of(ALICE, 1))).unwrap();
        let (account, now) = held_until_now(2, 3);
        assert!(!account.held.is_modest(now) && account.held.is_modest(now + Duration::from_secs(1)));
        admission.lock().accounts.insert(BOB, account);
        // Nobody comes or leaves while he waits.
        let _bob = admission.slot(of(BOB, 2)).await.unwrap();
        assert_eq!((admission.running(), admission.waiting()), (2, 0));
    }

    #[test]
    fn requests_that_are_refused_or_asked_about_leave_no_account() {
        let admission = admission(1, ClientLimits { requests: Some(0), ..ClientLimits::default() });
        assert!(admission.check(ALICE).is_err() && admission.admit(BOB).is_err());
        assert!(admission.lock().accounts.is_empty());
    }

    #[test]
    fn idle_accounts_are_dropped_once_there_are_many() {
        let admission = admission(1, ClientLimits::default());
        let client = |index| Client::Key(2 + index);
        let idle = (0..MANY_ACCOUNTS as u32).map(|index| (client(index), Account::default()));
        admission.lock().accounts.extend(idle);
        let admitted = admission.admit(ALICE).unwrap();
        assert_eq!(admission.lock().accounts.len(), 1);
        drop(admitted);
        // The present minute counts.
        assert!(admission.lock().accounts.contains_key(&ALICE));
    }
}
