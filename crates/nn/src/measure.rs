//! Timing of an executor at the work of an engine: decoding, scoring, prefill.
//!
//! `wsd bench engine` and `wsd compress` use it. Each function measures one sample; the caller takes
//! medians. The context stays in the cache from one sample to the next.

use std::hint::black_box;
use std::time::Instant;

use crate::arch::{self, Head};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::Result;
use crate::executor::{Ask, Executor, Span};

/// The slot of the measurements.
const SLOT: u64 = u64::MAX;
/// The tokens of a step that only fills the cache.
const FEED_TOKENS: usize = 256;

/// Measures the seconds per token of decoding `count` tokens, one at a time with the choice of the
/// next, after a context of `context` tokens.
///
/// # Errors
/// Those of the executor, for instance for a context that is too long.
pub fn decode(executor: &mut dyn Executor, context: usize, count: usize) -> Result<f64> {
    feed(executor, context)?;
    let (mut logits, mut token) = (Vec::new(), 1);
    let started = Instant::now();
    for start in context..context + count {
        let tokens = [token];
        let span = Span { rows: 0..1, ..Span::chain(SLOT, start, &tokens) };
        token = match executor.answer(std::slice::from_ref(&span), &[Ask::Argmax])?.as_deref() {
            Some([answer, ..]) => answer.token,
            _ => {
                let hidden = executor.forward(&[span])?;
                executor.project(Head::VOCABULARY, &hidden, &mut logits)?;
                let argmax = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
                argmax.unwrap_or(0) as u32
            }
        };
    }
    let seconds = started.elapsed().as_secs_f64();
    executor.truncate(SLOT, context);
    Ok(seconds / count as f64)
}

/// Measures the seconds of a step over `count` tokens with the logits of each, after a context of
/// `context` tokens.
///
/// # Errors
/// Those of [`decode`].
pub fn score(executor: &mut dyn Executor, context: usize, count: usize) -> Result<f64> {
    feed(executor, context)?;
    let seconds = step(executor, Step { slot: SLOT, start: context, count, first_row: 0 })?;
    executor.truncate(SLOT, context);
    Ok(seconds)
}

/// Measures the seconds of the prefill of `count` tokens with the logits of the last.
///
/// # Errors
/// Those of [`decode`].
pub fn prefill(executor: &mut dyn Executor, count: usize) -> Result<f64> {
    let slot = SLOT - 1;
    let seconds = step(executor, Step { slot, start: 0, count, first_row: count.saturating_sub(1) })?;
    executor.release(slot);
    Ok(seconds)
}

/// Returns the fewest bytes of weights that a step reads: all matrices, without the embedding
/// unless it is the output projection too.
///
/// # Errors
/// A configuration that is not supported, or tensors that are missing.
pub fn step_bytes(checkpoint: &Checkpoint) -> Result<usize> {
    let blueprint = arch::blueprint(&checkpoint.config)?;
    let tensors = checkpoint.weights.require(&arch::tensors(&blueprint))?;
    let is_read = |tensor: &&Tensor| blueprint.tied || tensor.name != "model.embed_tokens.weight";
    Ok(tensors.iter().filter(is_read).map(|tensor| tensor.bytes().len()).sum())
}

/// Extends the cache to `count` tokens.
fn feed(executor: &mut dyn Executor, count: usize) -> Result<()> {
    executor.truncate(SLOT, count);
    for start in (executor.cached(SLOT)..count).step_by(FEED_TOKENS) {
        let tokens = some(executor, start, FEED_TOKENS.min(count - start));
        executor.forward(&[Span::chain(SLOT, start, &tokens)])?;
    }
    Ok(())
}

/// Returns tokens without equal neighbors.
fn some(executor: &dyn Executor, start: usize, count: usize) -> Vec<u32> {
    (start..start + count).map(|index| (index * 7919 % executor.blueprint().vocab) as u32).collect()
}

/// The tokens of a step.
struct Step {
    slot: u64,
    start: usize,
    count: usize,
    /// The first token with logits.
    first_row: usize,
}

fn step(executor: &mut dyn Executor, Step { slot, start, count, first_row }: Step) -> Result<f64> {
    let tokens = some(executor, start, count);
    // The engine keeps this memory from step to step, too.
    let mut logits = vec![1.0; (count - first_row) * executor.blueprint().vocab];
    let started = Instant::now();
    let span = Span { rows: first_row..count, ..Span::chain(slot, start, &tokens) };
    let asks = vec![Ask::Logprob(1); count - first_row];
    if black_box(executor.answer(std::slice::from_ref(&span), &asks)?).is_none() {
        let hidden = executor.forward(&[span])?;
        executor.project(Head::VOCABULARY, &hidden, &mut logits)?;
        black_box(&logits);
    }
    Ok(started.elapsed().as_secs_f64())
}
