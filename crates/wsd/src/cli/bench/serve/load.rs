//! Requests one after the other or at their own times, and how each of them went.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use futures::stream::{FuturesUnordered, TryStreamExt as _};

use super::client::{Connection, Server};
use super::library::Library;
use super::report::Figures;

/// When requests come.
pub(super) enum Load {
    /// So many clients, each of which asks again once it is answered.
    Clients(usize),
    /// So many in a second, whatever becomes of them.
    Rate(f64),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients(clients) => write!(f, "{clients} at a time"),
            Self::Rate(rate) => write!(f, "{rate}/s"),
        }
    }
}

/// Who is asked.
pub(super) enum Target {
    Server(Server),
    Library(Library),
}

/// How one request went.
pub(super) struct Sample {
    /// As of HTTP; an answer of the library's is 200.
    pub(super) status: u16,
    pub(super) first_token: Option<Duration>,
    /// The longest time without a token after the first.
    pub(super) pause: Option<Duration>,
    pub(super) whole: Duration,
    pub(super) tokens: usize,
}

impl Target {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Server(_) => "server",
            Self::Library(_) => "library",
        }
    }

    async fn ask(&self, connection: &mut Option<Connection>, index: usize) -> Result<Sample> {
        match self {
            Self::Server(server) => server.ask(connection, index).await,
            Self::Library(library) => library.ask(index).await,
        }
    }

    /// Processor time that whoever answers has used, where it can be known.
    async fn processor_seconds(&self) -> Option<f64> {
        match self {
            Self::Server(server) => server.processor_seconds().await,
            Self::Library(_) => Some(wsd::process::read()?.processor_seconds),
        }
    }
}

/// Send `requests` requests and see how they go.
pub(super) async fn drive(target: &Target, load: &Load, requests: usize) -> Result<Figures> {
    let before = target.processor_seconds().await;
    let started = Instant::now();
    let samples = match *load {
        Load::Clients(clients) => in_turn(target, clients, requests).await?,
        Load::Rate(rate) => on_time(target, rate, requests).await?,
    };
    let seconds = started.elapsed().as_secs_f64();
    let after = target.processor_seconds().await;
    Ok(Figures::new(&samples, seconds, after.zip(before).map(|(after, before)| after - before)))
}

/// Clients with a connection each, which ask until enough has been asked.
async fn in_turn(target: &Target, clients: usize, requests: usize) -> Result<Vec<Sample>> {
    let next = AtomicUsize::new(0);
    let client = async || {
        let (mut connection, mut samples) = (None, Vec::new());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= requests {
                return Ok::<_, anyhow::Error>(samples);
            }
            samples.push(target.ask(&mut connection, index).await?);
        }
    };
    Ok(try_join_all((0..clients).map(|_| client())).await?.into_iter().flatten().collect())
}

/// Requests at random moments, on connections that are kept for later ones.
async fn on_time(target: &Target, rate: f64, requests: usize) -> Result<Vec<Sample>> {
    let idle = Mutex::new(Vec::new());
    let idle = || idle.lock().unwrap_or_else(PoisonError::into_inner);
    let mut at = tokio::time::Instant::now();
    let asks = FuturesUnordered::new();
    for index in 0..requests {
        at += Duration::from_secs_f64(gap(index as u64) / rate);
        let moment = at;
        asks.push(async move {
            tokio::time::sleep_until(moment).await;
            let mut connection = idle().pop();
            let sample = target.ask(&mut connection, index).await;
            idle().extend(connection);
            sample
        });
    }
    asks.try_collect().await
}

/// The time between two random moments, exponentially distributed with mean 1: the same in every
/// run.
fn gap(index: u64) -> f64 {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut bits = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    -(((bits >> 11) as f64 + 1.0) / (1u64 << 53) as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_mean_one_and_are_uneven() {
        let gaps: Vec<_> = (0..100_000).map(gap).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.02 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
