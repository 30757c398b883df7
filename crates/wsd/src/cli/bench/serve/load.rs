//! Loads: requests one after the other, or at random moments.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use futures::stream::{FuturesUnordered, TryStreamExt as _};
use wsd_core::splitmix64;

use super::report::Figures;
use super::sample::Sample;
use super::target::Target;

/// The arrival of requests.
pub(super) enum Load {
    /// A closed loop: this many clients, each of which sends its next request after an answer.
    Clients(usize),
    /// An open loop: this many requests per second on average, at random moments.
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

/// Sends `requests` requests and measures them.
pub(super) async fn drive(target: &Target, load: &Load, requests: usize) -> Result<Figures> {
    let before = target.processor_seconds().await;
    let started = Instant::now();
    let samples = match *load {
        Load::Clients(clients) => closed_loop(target, clients, requests).await?,
        Load::Rate(rate) => open_loop(target, rate, requests).await?,
    };
    let seconds = started.elapsed().as_secs_f64();
    let after = target.processor_seconds().await;
    Ok(Figures::new(&samples, seconds, after.zip(before).map(|(after, before)| after - before)))
}

/// Runs clients with a connection each until `requests` requests have been sent in all.
async fn closed_loop(target: &Target, clients: usize, requests: usize) -> Result<Vec<Sample>> {
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

/// Sends requests at random moments, on pooled connections.
async fn open_loop(target: &Target, rate: f64, requests: usize) -> Result<Vec<Sample>> {
    let idle = Mutex::new(Vec::new());
    let idle = || idle.lock().unwrap_or_else(PoisonError::into_inner);
    let mut at = tokio::time::Instant::now();
    let answers = FuturesUnordered::new();
    for index in 0..requests {
        at += Duration::from_secs_f64(gap(index as u64) / rate);
        let moment = at;
        answers.push(async move {
            tokio::time::sleep_until(moment).await;
            let mut connection = idle().pop();
            let sample = target.ask(&mut connection, index).await;
            idle().extend(connection);
            sample
        });
    }
    answers.try_collect().await
}

/// The gap before a request, relative to the mean: exponentially distributed with mean 1, and the
/// same in every run.
fn gap(index: u64) -> f64 {
    // Output `index` of SplitMix64 with seed 0: its state advances by this constant.
    let bits = splitmix64(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    // Inverse of the distribution function at a uniform number in (0, 1].
    -(((bits >> 11) as f64 + 1.0) / (1u64 << 53) as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_mean_and_variance_one() {
        let gaps: Vec<_> = (0..100_000).map(gap).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 1.0).abs() < 0.02 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
