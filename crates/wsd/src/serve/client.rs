//! Clients, and the share of the server that each may take.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::error::ApiError;

/// The bits of an IPv6 address that name a network; its holder has all addresses in it.
const NETWORK_BITS: u32 = 64;
/// The time over which slots held are averaged.
const HELD_MEMORY: Duration = Duration::from_secs(4);
/// The parts of a slot in which means are compared.
const FINENESS: f64 = 100.0;
/// A slot in these parts.
const ONE: usize = FINENESS as usize;

/// The sender of requests: the holder of a key, or an address where there are no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// The key at this index.
    Key(u32),
    /// An address, or a network of IPv6 addresses.
    Address(IpAddr),
    /// A request that came over no connection.
    Unknown,
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(index) => write!(formatter, "key {index}"),
            Self::Address(address) => address.fmt(formatter),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

impl Client {
    /// The client at an address.
    pub(super) fn at(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Address(address),
            IpAddr::V6(address) => {
                let network = address.to_bits() >> NETWORK_BITS << NETWORK_BITS;
                Self::Address(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

/// The most that each client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimits {
    /// Answers at a time.
    pub(super) max_concurrent: usize,
    /// Requests in a minute.
    pub(super) requests: Option<usize>,
    /// Tokens of prompts and answers in a minute.
    pub(super) tokens: Option<usize>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { max_concurrent: usize::MAX, requests: None, tokens: None }
    }
}

/// The use of the server by a client at present.
#[derive(Default)]
pub(super) struct Account {
    /// Requests that are answered or wait.
    pub(super) requests: usize,
    pub(super) held: Held,
    pub(super) minute: Minute,
}

/// The slots that a client holds, and those that it has lately held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    now: usize,
    /// The mean number up to `since`, in which the time before [`HELD_MEMORY`] counts 1/e.
    mean: f64,
    since: Option<Instant>,
}

impl Held {
    /// Returns the number of slots held now.
    pub(super) fn now(self) -> usize {
        self.now
    }

    /// Returns the mean number of slots held up to `now`.
    fn mean(self, now: Instant) -> f64 {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let before = (-passed.as_secs_f64() / HELD_MEMORY.as_secs_f64()).exp();
        self.mean * before + self.now as f64 * (1.0 - before)
    }

    /// Returns the mean up to `now` in whole hundredths of a slot.
    pub(super) fn lately(self, now: Instant) -> usize {
        (self.mean(now) * FINENESS) as usize
    }

    /// Tells whether the client has no slot, and lately had less than one.
    pub(super) fn is_modest(self, now: Instant) -> bool {
        self.now == 0 && self.lately(now) < ONE
    }

    /// Changes the number of slots held.
    pub(super) fn change(&mut self, by: isize, now: Instant) {
        *self = Self { now: self.now.saturating_add_signed(by), mean: self.mean(now), since: Some(now) };
    }
}

impl Account {
    /// Tells that an account without any use would stand for the client as well.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let holds = self.held.now() > 0 || self.held.lately(now) > 0;
        self.requests == 0 && !holds && self.minute.seconds_left(now) == 0
    }
}

/// The use by a client in its present minute, which begins with its first request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Minute {
    began: Option<Instant>,
    requests: usize,
    tokens: usize,
}

impl Minute {
    /// Refuses a further request of a client that has used up its share.
    pub(super) fn check(self, limits: &ClientLimits, now: Instant) -> Result<(), ApiError> {
        let Self { requests, tokens, .. } = self.at(now);
        let seconds = self.at(now).seconds_left(now);
        for (name, limit, used) in [("requests", limits.requests, requests), ("tokens", limits.tokens, tokens)] {
            if let Some(limit) = limit.filter(|limit| used >= *limit) {
                return Err(ApiError::share_used(limit, name, seconds));
            }
        }
        Ok(())
    }

    /// Counts a request, to the minute in which it came.
    pub(super) fn add_request(&mut self, now: Instant) {
        *self = self.at(now);
        self.requests += 1;
    }

    /// Charges tokens, to the minute in which they were computed.
    pub(super) fn add_tokens(&mut self, tokens: usize, now: Instant) {
        *self = self.at(now);
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Returns the minute at `now`: another one if this one is over.
    fn at(self, now: Instant) -> Self {
        if self.seconds_left(now) == 0 { Self { began: Some(now), ..Self::default() } } else { self }
    }

    /// Returns the seconds to the end of the minute, rounded up; 0 after it.
    fn seconds_left(&self, now: Instant) -> u32 {
        let passed = self.began.map_or(60, |began| now.saturating_duration_since(began).as_secs());
        60u64.saturating_sub(passed) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_network_are_one_client() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::2"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8::1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[test]
    fn the_mean_of_slots_follows_their_number() {
        let (mut held, start) = (Held::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(held.mean(at(9)), 0.0);
        held.change(3, at(10));
        assert_eq!((held.now(), held.mean(at(10))), (3, 0.0));
        assert!((held.mean(at(14)) - 3.0 * (1.0 - (-1f64).exp())).abs() < 1e-9);
        held.change(-3, at(100));
        assert!(held.now() == 0 && (2.9..=3.0).contains(&held.mean(at(100))));
        assert!(held.mean(at(108)) < 0.5);
    }

    #[test]
    fn a_share_comes_back_after_a_minute() {
        let limits = ClientLimits { requests: Some(1), ..ClientLimits::default() };
        let (mut minute, now) = (Minute::default(), Instant::now());
        minute.check(&limits, now).unwrap();
        minute.add_request(now);
        assert!(minute.check(&limits, now + Duration::from_secs(59)).is_err());
        minute.check(&limits, now + Duration::from_secs(60)).unwrap();
        // The tokens of an answer that takes minutes count in each of them.
        let limits = ClientLimits { tokens: Some(5), ..ClientLimits::default() };
        minute.add_tokens(9, now + Duration::from_secs(200));
        assert!(minute.check(&limits, now + Duration::from_secs(201)).is_err());
    }

    #[test]
    fn an_account_is_idle_once_nothing_of_its_use_counts() {
        let (mut account, start) = (Account::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(account.is_idle(start));
        account.minute.add_request(start);
        account.held.change(2, start);
        assert!(!account.is_idle(at(70)), "it holds slots");
        account.held.change(-2, at(70));
        assert!(!account.is_idle(at(70)), "it has lately held slots, which gives others the precedence");
        assert!(account.is_idle(at(70 + 30)));
        account.minute.add_tokens(1, at(100));
        assert!(!account.is_idle(at(159)) && account.is_idle(at(160)));
        account.requests = 1;
        assert!(!account.is_idle(at(900)));
    }
}
