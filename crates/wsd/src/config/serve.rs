//! The server's settings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use wsd_core::Error;

use super::ServeArgs;

/// Where the API keys are.
#[derive(Clone, Default)]
pub struct KeySource {
    /// A key itself.
    pub key: Option<String>,
    /// A file of keys, one to a line.
    pub file: Option<PathBuf>,
}

/// How the server is reached and how much it takes on.
#[derive(Clone)]
pub struct ServeSettings {
    /// Where to listen.
    pub address: SocketAddr,
    /// The keys that clients must send.
    pub keys: KeySource,
    /// Whether to listen beyond loopback without a key.
    pub insecure: bool,
    /// Answers written at a time.
    pub max_concurrent: usize,
    /// Requests that wait beside them.
    pub max_queue: usize,
    /// From the request to the end of its answer.
    pub request_timeout: Duration,
    /// For running answers when the server is stopped.
    pub drain_timeout: Duration,
    /// For a request's headers, and again for its body.
    pub header_timeout: Duration,
    /// Silence after which a stream says that it lives.
    pub keep_alive: Duration,
    /// Further names that the server may be called by.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may call.
    pub cors: Vec<HeaderValue>,
}

impl ServeSettings {
    /// Most answers at a time, and most requests that wait.
    pub const MAX_REQUESTS: usize = 16_384;
    /// The longest time that can be set: a day.
    pub const MAX_SECONDS: u64 = 86_400;

    /// Fill in the defaults and check every value.
    pub(super) fn parse(args: ServeArgs) -> Result<Self, Error> {
        let requests = |name, value: Option<usize>, least: usize, default: usize| match value.unwrap_or(default) {
            value if (least..=Self::MAX_REQUESTS).contains(&value) => Ok(value),
            value => Err(Error::Setting {
                name,
                limit: "at least 1 (a queue: 0) and at most 16384",
                value: value.to_string(),
            }),
        };
        let seconds = |name, value: Option<u64>, default: u64| match value.unwrap_or(default) {
            value if (1..=Self::MAX_SECONDS).contains(&value) => Ok(Duration::from_secs(value)),
            value => Err(Error::Setting { name, limit: "from 1 to 86400 seconds", value: value.to_string() }),
        };
        let origin = |origin: String| match HeaderValue::from_str(&origin) {
            Ok(value) if origin.contains("://") => Ok(value),
            _ => Err(Error::Setting { name: "cors", limit: "origins such as https://chat.example", value: origin }),
        };
        let max_concurrent = requests("max_concurrent", args.max_concurrent, 1, 16)?;
        Ok(Self {
            address: SocketAddr::new(args.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), args.port.unwrap_or(8080)),
            keys: KeySource { key: args.api_key, file: args.api_key_file },
            insecure: args.insecure.unwrap_or(false),
            max_concurrent,
            // Who is last in the queue then waits for about a quarter of an answer.
            max_queue: requests("max_queue", args.max_queue, 0, max_concurrent.div_ceil(4))?,
            request_timeout: seconds("request_timeout_seconds", args.request_timeout_seconds, 600)?,
            drain_timeout: seconds("drain_timeout_seconds", args.drain_timeout_seconds, 90)?,
            header_timeout: seconds("header_timeout_seconds", args.header_timeout_seconds, 15)?,
            keep_alive: seconds("keep_alive_seconds", args.keep_alive_seconds, 5)?,
            allowed_hosts: args.allowed_host.unwrap_or_default(),
            cors: args.cors.unwrap_or_default().into_iter().map(origin).collect::<Result<_, _>>()?,
        })
    }
}
