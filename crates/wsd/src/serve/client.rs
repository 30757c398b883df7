//! Clients, and the share of the server that each may take.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::error::ApiError;

/// The bits of an IPv6 address that name a network; its holder has all addresses in it.
const NETWORK_BITS: u32 = 64;

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
    /// Answers being written.
    pub(super) running: usize,
    pub(super) minute: Minute,
}

impl Account {
    /// Tells that nothing would change without the account.
    pub(super) fn is_idle(&self) -> bool {
        self.requests == 0 && self.running == 0 && self.minute.seconds_left(Instant::now()) == 0
    }
}

/// The use by a client in its present minute, which begins with its first request.
#[derive(Default)]
pub(super) struct Minute {
    began: Option<Instant>,
    requests: usize,
    tokens: usize,
}

impl Minute {
    /// Refuses a further request of a client that has used up its share.
    pub(super) fn check(&mut self, limits: &ClientLimits, now: Instant) -> Result<(), ApiError> {
        self.renew(now);
        let seconds = self.seconds_left(now);
        for (name, limit, used) in
            [("requests", limits.requests, self.requests), ("tokens", limits.tokens, self.tokens)]
        {
            if let Some(limit) = limit.filter(|limit| used >= *limit) {
                return Err(ApiError::share_used(limit, name, seconds));
            }
        }
        Ok(())
    }

    pub(super) fn add_request(&mut self) {
        self.requests += 1;
    }

    /// Charges tokens, to the minute in which they were computed.
    pub(super) fn add_tokens(&mut self, tokens: usize, now: Instant) {
        self.renew(now);
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Begins another minute if the present one is over.
    fn renew(&mut self, now: Instant) {
        if self.seconds_left(now) == 0 {
            *self = Self { began: Some(now), ..Self::default() };
        }
    }

    /// Returns the seconds to the end of the minute, rounded up; 0 after it.
    fn seconds_left(&self, now: Instant) -> u32 {
        let passed = self.began.map_or(60, |began| now.duration_since(began).as_secs());
        60u64.saturating_sub(passed) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_addresses_of_a_network_are_one_client() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::2"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8::1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[test]
    fn a_share_comes_back_after_a_minute() {
        let limits = ClientLimits { requests: Some(1), ..ClientLimits::default() };
        let (mut minute, now) = (Minute::default(), Instant::now());
        minute.check(&limits, now).unwrap();
        minute.add_request();
        assert!(minute.check(&limits, now + Duration::from_secs(59)).is_err());
        minute.check(&limits, now + Duration::from_secs(60)).unwrap();
        // The tokens of an answer that takes minutes count in each of them.
        let limits = ClientLimits { tokens: Some(5), ..ClientLimits::default() };
        minute.add_tokens(9, now + Duration::from_secs(200));
        assert!(minute.check(&limits, now + Duration::from_secs(201)).is_err());
    }
}
