//! The interface of a model on a device: token ids in, hidden states and head outputs out.

use std::collections::HashSet;
use std::ops::Range;

use wsd_core::{Candidates, Layer};

use crate::adapter::Adapter;
use crate::arch::{Blueprint, Head};
use crate::error::{Error, Result};

/// Positions of one sequence to run in a step.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    /// The sequence. A slot is created by its first span.
    pub slot: u64,
    /// Position of `tokens[0]`, which is the cached length.
    pub start: usize,
    /// Token ids, each below [`Blueprint::vocab`].
    pub tokens: &'a [u32],
    /// For a tree of continuations, the parent of each token: 0 for the last cached position, `i +
    /// 1` for `tokens[i]`. A token sees its ancestors and the cached positions, and its depth
    /// determines its rotary position. `None` for a chain, whose parents would be `0, 1, 2, ...`.
    pub parents: Option<&'a [u32]>,
    /// Indices into `tokens` whose hidden state is returned; may be empty.
    pub rows: Range<usize>,
    /// The layer of the returned hidden states.
    pub layer: Layer,
}

impl<'a> Span<'a> {
    /// A chain that returns no hidden states.
    ///
    /// ```
    /// use wsd_nn::Span;
    ///
    /// let prefill = Span::chain(7, 0, &[1, 2, 3]);
    /// let last_row = Span { rows: 2..3, ..prefill };
    /// assert_eq!(last_row.rows.len(), 1);
    /// ```
    #[must_use]
    pub const fn chain(slot: u64, start: usize, tokens: &'a [u32]) -> Self {
        Self { slot, start, tokens, parents: None, rows: 0..0, layer: Layer::Final }
    }

    /// The token before `tokens[index]` on its path, as an index into `tokens`; `None` where that
    /// is cached.
    pub(crate) fn parent(&self, index: usize) -> Option<usize> {
        self.parents.map_or(index, |parents| parents[index] as usize).checked_sub(1)
    }

    /// The rotary position of each token: `start` plus its depth.
    pub(crate) fn positions(&self) -> Vec<usize> {
        let mut positions = Vec::with_capacity(self.tokens.len());
        for index in 0..self.tokens.len() {
            positions.push(self.parent(index).map_or(self.start, |parent: usize| positions[parent] + 1));
        }
        positions
    }

    /// The tokens that `tokens[index]` sees, itself included, as ascending indices into `tokens`.
    pub(crate) fn ancestors(&self, index: usize) -> Vec<usize> {
        let mut ancestors: Vec<_> = std::iter::successors(Some(index), |index| self.parent(*index)).collect();
        ancestors.reverse();
        ancestors
    }

    /// Length of the longest sequence in the span.
    pub(crate) fn end(&self) -> usize {
        match self.parents {
            None => self.start + self.tokens.len(),
            Some(_) => self.positions().into_iter().max().map_or(self.start, |last| last + 1),
        }
    }

    /// The first position whose predecessor is not its parent; `None` for a chain.
    pub(crate) fn fork(&self) -> Option<usize> {
        let parents = self.parents?;
        let index = parents.iter().enumerate().position(|(index, parent)| *parent as usize != index)?;
        Some(self.start + index)
    }
}

/// A question about the logits of a row that a device can answer without giving them out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ask {
    /// The log-probability of a token.
    Logprob(u32),
    /// The most likely token and its log-probability.
    Argmax,
    /// The most likely token, and [`CANDIDATES`] most likely ones with the sums of [`Candidates`] at
    /// a temperature above 0.
    Candidates {
        /// The temperature.
        temperature: f32,
    },
}

/// The number of tokens that [`Ask::Candidates`] asks for, or the whole vocabulary.
pub const CANDIDATES: usize = 128;

/// An answer to [`Ask`].
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The token.
    pub token: u32,
    /// Its log-probability; not finite if the logits are not.
    pub logprob: f64,
    /// The candidates that were asked for.
    pub candidates: Option<Candidates>,
}

/// A model on some device, with a KV cache per slot.
///
/// A hidden state depends on the tokens of its sequence up to it and on nothing else: not on how
/// they were divided into spans, nor on what else is in a step, nor on other branches of a tree. On
/// [`crate::Cpu`] bits are equal, not merely close; other devices choose the order of their sums by
/// the shapes at hand. The one exception is named in [`Blueprint::is_long`].
pub trait Executor: Send + Sync {
    /// The model.
    fn blueprint(&self) -> &Blueprint;

    /// Adds an adapter to the linear layers, from the next step on, and forgets all slots.
    ///
    /// # Errors
    /// [`crate::Error::Tensors`] for an adapter of another model, which then is not added.
    fn adapt(&mut self, adapter: &Adapter) -> Result<()>;

    /// Runs one step over several sequences, each slot at most once: one matrix product per layer
    /// over all tokens, attention per sequence. Appends to each slot's cache. Returns the hidden
    /// states of the wanted rows, `(rows, hidden)`, in the order of `spans`.
    ///
    /// After a span with branches, [`Executor::keep`] or [`Executor::truncate`] must reduce the
    /// slot to a chain before it is continued.
    ///
    /// # Errors
    /// [`crate::Error::Span`] for a span that does not continue its slot or exceeds a limit; no
    /// cache has changed then.
    fn forward(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>>;

    /// Applies an output head to hidden states that have passed the final norm, and writes `(rows, outputs)` in
    /// place of what `out` held. Logits are those after the final soft cap.
    ///
    /// # Errors
    /// [`crate::Error::Rows`] where `hidden` is not a whole number of rows;
    /// [`crate::Error::MissingHead`].
    fn project(&mut self, head: Head, hidden: &[f32], out: &mut Vec<f32>) -> Result<()>;

    /// Runs a step as [`Executor::forward`] does and answers a question about the vocabulary logits
    /// of each wanted row, in the order of the rows. Returns `None`, and does nothing, if the
    /// device is not faster than the logits themselves.
    ///
    /// # Errors
    /// Those of [`Executor::forward`].
    fn answer(&mut self, spans: &[Span<'_>], asks: &[Ask]) -> Result<Option<Vec<Answer>>> {
        let _ = (spans, asks);
        Ok(None)
    }

    /// Returns the vocabulary logits of a wanted row of the last step, which [`Executor::answer`] ran:
    /// for a question that its answer does not decide.
    ///
    /// # Errors
    /// A device that fails.
    fn answered_logits(&mut self, row: usize) -> Result<Vec<f32>> {
        let _ = row;
        Ok(Vec::new())
    }

    /// Replaces slot `to` by the first `len` positions of `from`.
    ///
    /// # Errors
    /// Not enough memory on the device; `to` is released then.
    fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<()>;

    /// Keeps the first `len` positions of a slot.
    fn truncate(&mut self, slot: u64, len: usize);

    /// Keeps the first `len` positions of a slot and, after them, the cached positions of `path`,
    /// which ascend from at least `len`: the accepted path of a tree.
    ///
    /// # Errors
    /// Not enough memory on the device; the slot is released then.
    fn keep(&mut self, slot: u64, len: usize, path: &[usize]) -> Result<()>;

    /// Forgets a slot.
    fn release(&mut self, slot: u64);

    /// The number of positions in the cache of a slot; 0 for an unknown one.
    fn cached(&self, slot: u64) -> usize;

    /// The number of slots that hold a cache.
    fn slots(&self) -> usize;

    /// Measures the bytes per second that the device reads from `bytes` bytes of its memory: the
    /// limit of decoding.
    ///
    /// # Errors
    /// An allocation that fails.
    fn read_bandwidth(&self, bytes: usize) -> Result<f64>;
}

/// The state of a slot's cache.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cached {
    /// Positions.
    pub(crate) len: usize,
    /// The first position of a tree that was not reduced to a chain.
    pub(crate) fork: Option<usize>,
}

/// Checks the conditions of [`Executor::forward`], given what is cached of each slot.
pub(crate) fn check(blueprint: &Blueprint, spans: &[Span<'_>], cached: impl Fn(u64) -> Cached) -> Result<()> {
    let mut seen = HashSet::new();
    for span in spans {
        let problem = if seen.insert(span.slot) {
            problem(blueprint, span, cached(span.slot))
        } else {
            Some("it occurs twice in the step".to_owned())
        };
        if let Some(problem) = problem {
            return Err(Error::Span { slot: span.slot, problem });
        }
    }
    Ok(())
}

fn problem(blueprint: &Blueprint, span: &Span<'_>, cached: Cached) -> Option<String> {
    let (len, layers) = (span.tokens.len(), blueprint.layers.len());
    if span.start != cached.len {
        return Some(format!("it starts at position {} where {} are cached", span.start, cached.len));
    }
    if let Some(fork) = cached.fork {
        return Some(format!("the tree at position {fork} was not reduced to a chain"));
    }
    if let Some(parents) = span.parents {
        if parents.len() != len {
            return Some(format!("it has {} parents for {len} tokens", parents.len()));
        }
        if let Some(index) = (0..len).find(|index| parents[*index] as usize > *index) {
            return Some(format!("the parent of token {index} must be from 0 to {index}, got {}", parents[index]));
        }
    }
    // A tree is not longer than its number of tokens; the first test avoids computing its depth.
    if span.start.saturating_add(len) > blueprint.max_len && span.end() > blueprint.max_len {
        return Some(format!("{} positions exceed the model's limit of {}", span.end(), blueprint.max_len));
    }
    if let Some(token) = span.tokens.iter().find(|token| **token as usize >= blueprint.vocab) {
        return Some(format!("token {token} is outside the vocabulary of {} entries", blueprint.vocab));
    }
    if span.rows.start > span.rows.end || span.rows.end > len {
        return Some(format!("rows {:?} are not within its {len} tokens", span.rows));
    }
    let outside = span.layer.depth().filter(|depth| *depth > layers);
    outside.map(|depth| format!("layer must be at most {layers}, got {depth}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_positions_ancestors_and_a_fork() {
        let parents = [0, 1, 1, 2, 0];
        let tree = Span { parents: Some(&parents), ..Span::chain(0, 10, &[1, 2, 3, 4, 5]) };
        assert_eq!(tree.positions(), [10, 11, 11, 12, 10]);
        assert_eq!((tree.ancestors(3), tree.ancestors(2), tree.ancestors(4)), (vec![0, 1, 3], vec![0, 2], vec![4]));
        assert_eq!((tree.end(), tree.fork()), (13, Some(12)));
        let chain = Span { parents: None, ..tree.clone() };
        assert_eq!((chain.positions(), chain.end(), chain.fork()), (vec![10, 11, 12, 13, 14], 15, None));
        assert_eq!(Span { parents: Some(&[0, 1, 2, 3, 4]), ..tree }.fork(), None);
    }
}
