//! What runs a model: token ids in, hidden states and logits out.

use std::collections::HashSet;
use std::ops::Range;

use crate::arch::Blueprint;
use crate::error::{Error, Result};

/// Positions of one sequence to run in a step.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// The sequence. A slot comes to be with its first span.
    pub slot: u64,
    /// Position of `tokens[0]`, which is the cached length.
    pub start: usize,
    /// Token ids, each below [`Blueprint::vocab`].
    pub tokens: &'a [u32],
    /// Which of `tokens` have their hidden state returned; may be empty.
    pub rows: Range<usize>,
}

/// A model on some device, with a cache of keys and values per slot.
///
/// A hidden state depends on the tokens of its sequence up to it and on nothing else: not on how they were divided into
/// spans, nor on what else is in a step. On [`crate::Cpu`] bits are equal, not merely close; other devices choose the order of
/// their sums by the shapes at hand. The one exception is named in [`Blueprint::is_long`].
pub trait Executor: Send + Sync {
    /// The model.
    fn blueprint(&self) -> &Blueprint;

    /// One step over several sequences, each slot at most once: one matrix product per layer over all tokens, attention
    /// per sequence. Appends to each slot's cache. Returns the hidden states of the wanted rows after the final norm,
    /// `(rows, hidden)`, in the order of `spans`.
    ///
    /// # Errors
    /// [`crate::Error::Span`] for a span that does not continue its slot or exceeds a limit; no cache has changed then.
    fn forward(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>>;

    /// Logits of hidden states as [`Executor::forward`] returns them, after the final soft cap: `(rows, vocab)` in
    /// place of what `out` held.
    ///
    /// # Errors
    /// [`crate::Error::Rows`] where `hidden` is no whole number of rows.
    fn project(&mut self, hidden: &[f32], out: &mut Vec<f32>) -> Result<()>;

    /// Let slot `to` begin with the first `len` positions of `from`, in place of what it held.
    ///
    /// # Errors
    /// The device has no room for them; `to` is as good as released then.
    fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<()>;

    /// Keep the first `len` positions of a slot.
    fn truncate(&mut self, slot: u64, len: usize);

    /// Forget a slot.
    fn release(&mut self, slot: u64);

    /// Positions in the cache of a slot; 0 for an unknown one.
    fn cached(&self, slot: u64) -> usize;

    /// Slots that hold a cache.
    fn slots(&self) -> usize;
}

/// What [`Executor::forward`] demands of spans, given the cached length of each slot.
pub(crate) fn check(plan: &Blueprint, spans: &[Span<'_>], cached: impl Fn(u64) -> usize) -> Result<()> {
    let mut seen = HashSet::new();
    for span in spans {
        let (cached, end) = (cached(span.slot), span.start.saturating_add(span.tokens.len()));
        let unknown = span.tokens.iter().find(|token| **token as usize >= plan.vocab);
        let problem = if !seen.insert(span.slot) {
            "it is in the step twice".to_owned()
        } else if span.start != cached {
            format!("it starts at position {} where {cached} are cached", span.start)
        } else if end > plan.max_len {
            format!("{end} positions exceed the model's limit of {}", plan.max_len)
        } else if let Some(token) = unknown {
            format!("token {token} is none of the model's {}", plan.vocab)
        } else if span.rows.start > span.rows.end || span.rows.end > span.tokens.len() {
            format!("rows {:?} are not within its {} tokens", span.rows, span.tokens.len())
        } else {
            continue;
        };
        return Err(Error::Span { slot: span.slot, problem });
    }
    Ok(())
}
