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
