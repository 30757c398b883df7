//! How long an executor takes for what engines ask of it. Each function is one sample; medians are the caller's.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

use crate::error::Result;
use crate::executor::{Executor, Span};

/// The slot that is measured in.
const SLOT: u64 = u64::MAX;
/// Tokens fed at a time where only their cache is wanted.
const FEED_TOKENS: usize = 256;

/// Seconds per token of writing `count` tokens, one at a time with logits, after `context` others.
///
/// # Errors
/// Those of the executor, as for a context that is too long.
pub fn decode(executor: &mut dyn Executor, context: usize, count: usize) -> Result<f64> {
    feed(executor, context)?;
    let (mut logits, mut token) = (Vec::new(), 1);
    let started = Instant::now();
    for start in context..context + count {
        let hidden = executor.forward(&[Span { slot: SLOT, start, tokens: &[token], rows: 0..1 }])?;
        executor.project(&hidden, &mut logits)?;
        let likeliest = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        token = likeliest.unwrap_or(0) as u32;
    }
    let seconds = started.elapsed().as_secs_f64();
    executor.release(SLOT);
    Ok(seconds / count as f64)
}

/// Seconds of a step of `count` tokens with the logits of each, after `context` others.
///
/// # Errors
/// As [`decode`].
pub fn score(executor: &mut dyn Executor, context: usize, count: usize) -> Result<f64> {
    feed(executor, context)?;
    let seconds = step(executor, context, count, 0)?;
    executor.release(SLOT);
    Ok(seconds)
}

/// Seconds from nothing to the logits after `count` tokens.
///
/// # Errors
/// As [`decode`].
pub fn prefill(executor: &mut dyn Executor, count: usize) -> Result<f64> {
    let seconds = step(executor, 0, count, count - 1)?;
    executor.release(SLOT);
    Ok(seconds)
}

/// Bytes per second that all threads together read of `bytes` of memory, the best of several times: what decoding is
/// limited by.
#[must_use]
pub fn read_bandwidth(bytes: usize) -> f64 {
    let words = vec![1u64; bytes / 8];
    let read = || {
        let started = Instant::now();
        let part = words.len().div_ceil(8 * rayon::current_num_threads());
        let sum: u64 =
            words.par_chunks(part.max(1)).map(|part| part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word))).sum();
        black_box(sum);
        (8 * words.len()) as f64 / started.elapsed().as_secs_f64()
    };
    (0..5).map(|_| read()).fold(0.0, f64::max)
}

fn feed(executor: &mut dyn Executor, count: usize) -> Result<()> {
    for start in (0..count).step_by(FEED_TOKENS) {
        let tokens = some(executor, start, FEED_TOKENS.min(count - start));
        executor.forward(&[Span { slot: SLOT, start, tokens: &tokens, rows: 0..0 }])?;
    }
    Ok(())
}

/// Tokens of which no two neighbours are the same.
fn some(executor: &dyn Executor, start: usize, count: usize) -> Vec<u32> {
    (start..start + count).map(|index| (index * 7919 % executor.blueprint().vocab) as u32).collect()
}

fn step(executor: &mut dyn Executor, start: usize, count: usize, first_row: usize) -> Result<f64> {
    let tokens = some(executor, start, count);
    let mut logits = Vec::new();
    let started = Instant::now();
    let hidden = executor.forward(&[Span { slot: SLOT, start, tokens: &tokens, rows: first_row..count }])?;
    executor.project(&hidden, &mut logits)?;
    black_box(&logits);
    Ok(started.elapsed().as_secs_f64())
}
