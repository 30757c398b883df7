//! Chunk lengths: the number of tokens drafted between two scorings.
//!
//! Let a chunk of `n` tokens take `fixed + n * each` seconds to write and to score, with the switch
//! `r` tokens away. The calls cost `fixed * r / n` on top of the tokens themselves, and the part of
//! the last chunk after the switch, half a chunk on average, wastes `each * n / 2`. The sum is
//! minimal at `n = sqrt(2 * r * fixed / each)`. Both costs are measured as chunks come; `r` is
//! unknown and estimated as the length drafted so far plus a constant.

use std::ops::RangeInclusive;

/// Tokens in the first chunk, unless the window is longer: before it is full, nothing can pass.
const FIRST: usize = 8;
/// Limits of a length chosen by costs, in tokens.
const LIMITS: RangeInclusive<usize> = 4..=64;
/// Tokens expected until the switch, at the start.
const NEAR: usize = 16;

/// The rule for the length of the next chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizing {
    /// Each chunk is this many times as long as the one before.
    Times(usize),
    /// The length with the lowest estimated cost.
    Costs {
        /// True where a chunk is written while the one before is scored.
        is_parallel: bool,
    },
}

/// A sequence of chunk lengths.
#[derive(Debug)]
pub(crate) struct Chunks {
    length: usize,
    sizing: Sizing,
    /// Tokens in all chunks so far.
    total: usize,
    /// The most tokens that the whole answer may have.
    max_tokens: usize,
    /// Chunks that have been scored, except the first, whose times include the prefill of the
    /// prompts.
    rounds: Vec<Round>,
    is_first: bool,
}

/// The measured costs of a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Tokens in it.
    pub(crate) tokens: usize,
    /// Seconds to write it.
    pub(crate) write: f64,
    /// Seconds to score it.
    pub(crate) read: f64,
}

impl Chunks {
    /// Lengths for an answer of at most `max_tokens`. The first chunk has `first` tokens if given.
    pub(crate) fn new(first: Option<usize>, window: usize, sizing: Sizing, max_tokens: usize) -> Self {
        let length = first.unwrap_or(FIRST.max(window));
        Self { length, sizing, total: 0, max_tokens, rounds: Vec::new(), is_first: true }
    }

    /// Returns the length of the next chunk.
    pub(crate) fn next(&mut self) -> usize {
        // The draft's tokens may be shorter than the base's, so a few more are needed to fill an
        // answer.
        let length = self.length.min(self.max_tokens.saturating_sub(self.total).max(FIRST));
        self.total = self.total.saturating_add(length);
        if let Sizing::Times(times) = self.sizing {
            self.length = self.length.saturating_mul(times);
        }
        length
    }

    /// Records the costs of a scored chunk.
    pub(crate) fn record(&mut self, round: Round) {
        if std::mem::take(&mut self.is_first) || round.tokens == 0 {
            return;
        }
        self.rounds.push(round);
        if let Sizing::Costs { is_parallel } = self.sizing {
            // In parallel, drafting is hidden by scoring up to the length that takes as long;
            // longer chunks gain nothing.
            let hiding = if is_parallel { round.read * round.tokens as f64 / round.write } else { f64::INFINITY };
            self.length = (self.best().min(hiding) as usize).clamp(*LIMITS.start(), *LIMITS.end());
        }
    }

    /// Computes the length with the least cost.
    fn best(&self) -> f64 {
        let mean =
            |value: &dyn Fn(&Round) -> f64| self.rounds.iter().map(value).sum::<f64>() / self.rounds.len() as f64;
        let tokens = mean(&|round| round.tokens as f64);
        let write = mean(&|round| round.write);
        let read = mean(&|round| round.read);
        let seconds = write + read;
        let spread = mean(&|round| (round.tokens as f64 - tokens).powi(2));
        let slope = mean(&|round| (round.tokens as f64 - tokens) * (round.write + round.read - seconds)) / spread;
        // Least-squares fit of fixed plus per-token cost. With chunks of one length the two cannot
        // be told apart, so the time of scoring is split evenly.
        let each = if spread > 0.0 { slope.max(write / tokens) } else { (write + read / 2.0) / tokens };
        let fixed = (seconds - each * tokens).max(0.0);
        (2.0 * (self.total + NEAR) as f64 * fixed / each).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lengths of the first chunks if the draft takes `draft` seconds per token, and
    /// scoring a chunk takes `fixed` seconds and `more` per token.
    fn lengths(sizing: Sizing, [draft, fixed, more]: [f64; 3]) -> Vec<usize> {
        let mut chunks = Chunks::new(None, 6, sizing, 1000);
        let next = |_| {
            let tokens = chunks.next();
            let prompt = if chunks.is_first { 5.0 } else { 0.0 };
            let (write, read) = (tokens as f64 * draft + prompt, fixed + tokens as f64 * more + prompt);
            chunks.record(Round { tokens, write, read });
            tokens
        };
        (0..7).map(next).collect()
    }

    #[test]
    fn lengths_grow_with_the_fixed_cost_of_a_call() {
        let alone = Sizing::Costs { is_parallel: false };
        // The first estimates rest on one length, which does not separate fixed costs from costs
        // per token.
        assert_eq!(lengths(alone, [0.1, 0.0, 0.1])[3..], [4; 4], "no fixed cost");
        assert_eq!(lengths(alone, [0.001, 10.0, 0.0])[3..], [64; 4], "no cost per token of scoring");
        // Measured with 1.1B and 150M parameters: 3 ms per drafted token; 31 ms per call and 3 ms
        // per scored token.
        let found = lengths(alone, [0.003, 0.031, 0.003]);
        assert_eq!(found[..2], [8, 8]);
        let mut total = 16;
        for (index, pair) in found.windows(2).enumerate().skip(2) {
            total += pair[0];
            let best = (2.0 * (total + NEAR) as f64 * 0.031 / 0.006).sqrt();
            assert!((best - pair[1] as f64).abs() <= 1.0, "{best} at {index} of {found:?}");
        }
    }

    #[test]
    fn parallel_chunks_are_no_longer_than_scoring_takes() {
        let found = lengths(Sizing::Costs { is_parallel: true }, [0.02, 0.1, 0.0005]);
        assert_eq!(found[2..], [5; 5]);
    }

    #[test]
    fn a_given_first_length_is_kept() {
        assert_eq!(lengths(Sizing::Times(2), [1.0; 3])[..4], [8, 16, 32, 64]);
        let mut chunks = Chunks::new(Some(3), 6, Sizing::Times(1), 1000);
        assert_eq!([chunks.next(), chunks.next()], [3, 3]);
        assert_eq!(Chunks::new(None, 10, Sizing::Times(1), 1000).next(), 10);
        let mut endless = Chunks::new(Some(usize::MAX), 6, Sizing::Times(2), 20);
        assert_eq!([endless.next(), endless.next()], [20, FIRST], "no chunk is longer than the answer");
    }
}
