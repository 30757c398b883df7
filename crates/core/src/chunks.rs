//! Chunk lengths: the number of tokens drafted between two scorings.
//!
//! Let a chunk of `n` tokens take `per_call + n * per_token` seconds to draft and score, with the
//! switch `r` tokens away. The calls cost `per_call * r / n` on top of the tokens themselves, and
//! the tokens of the last chunk after the switch, half a chunk on average, waste
//! `per_token * n / 2`. The sum is minimal at `n = sqrt(2 * r * per_call / per_token)`. Both costs
//! are measured chunk by chunk; `r` is unknown and estimated as the length drafted so far plus a
//! constant.
//!
//! The tokens of a chunk appear together. So that readers see a steady stream, a chunk takes no
//! longer than [`PACE_SECONDS`], as long as the calls then take at most [`CALL_SHARE`] of the time
//! of the tokens.

use std::ops::RangeInclusive;

/// Length of the first chunk, in tokens, unless the window is longer: no token can pass before the
/// window is full.
const FIRST: usize = 8;
/// Length of the first chunk with [`Sizing::Costs`] on one machine, where a further call costs
/// little: the answer begins to appear earlier.
const FIRST_NEAR: usize = 4;
/// Duration of a chunk that reads as a steady stream, in seconds.
const PACE_SECONDS: f64 = 0.1;
/// Largest share of calls in the time of the tokens at which chunks are shortened to the pace.
const CALL_SHARE: f64 = 0.25;
/// Range of the lengths chosen by [`Sizing::Costs`], in tokens.
const LIMITS: RangeInclusive<usize> = 4..=64;
/// Tokens expected until the switch before anything is drafted.
const INITIAL_DISTANCE: usize = 16;

/// The rule for the length of the next chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizing {
    /// Each chunk is longer than the one before by this factor; 1 for equal lengths.
    Times(usize),
    /// The length with the lowest estimated cost.
    Costs {
        /// True if each chunk is drafted while the one before is scored.
        is_parallel: bool,
    },
}

/// A sequence of chunk lengths.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// Length of the next chunk, in tokens.
    length: usize,
    sizing: Sizing,
    /// Number of tokens in all chunks so far.
    total: usize,
    /// Maximum number of tokens in the whole answer.
    max_tokens: usize,
    /// The scored chunks except the first, whose times include the prefill of the prompts.
    rounds: Vec<Round>,
    /// True until the first chunk is scored.
    is_first: bool,
}

/// Measured costs of drafting and scoring one chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Number of tokens in the chunk.
    pub(crate) tokens: usize,
    /// Seconds to draft it.
    pub(crate) draft_seconds: f64,
    /// Seconds to score it.
    pub(crate) score_seconds: f64,
}

impl Chunks {
    /// Lengths for an answer of at most `max_tokens`. The first chunk has `first` tokens if given.
    pub(crate) fn new(first: Option<usize>, window: usize, sizing: Sizing, max_tokens: usize) -> Self {
        let length = first.unwrap_or(match sizing {
            Sizing::Costs { is_parallel: false } => FIRST_NEAR,
            _ => FIRST.max(window),
        });
        Self { length, sizing, total: 0, max_tokens, rounds: Vec::new(), is_first: true }
    }

    /// Returns the length of the next chunk.
    pub(crate) fn next(&mut self) -> usize {
        // No longer than the rest of the answer, but at least `FIRST`: the draft's tokens may be
        // shorter than the base's, so an answer may need more of them than `max_tokens`.
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
            // In parallel, drafting a chunk no longer than this ends before the scoring of the
            // previous chunk does; drafting more than that delays the next scoring call.
            let hidden = if is_parallel {
                round.score_seconds * round.tokens as f64 / round.draft_seconds
            } else {
                f64::INFINITY
            };
            let (per_call, per_token) = self.costs();
            let distance = (self.total + INITIAL_DISTANCE) as f64;
            let cheapest = (2.0 * distance * per_call / per_token).sqrt();
            let paced = ((PACE_SECONDS - per_call) / per_token).max(per_call / per_token / CALL_SHARE);
            self.length = (cheapest.min(hidden).min(paced) as usize).clamp(*LIMITS.start(), *LIMITS.end());
        }
    }

    /// Estimates the seconds per call and per token.
    fn costs(&self) -> (f64, f64) {
        let mean =
            |value: &dyn Fn(&Round) -> f64| self.rounds.iter().map(value).sum::<f64>() / self.rounds.len() as f64;
        let tokens = mean(&|round| round.tokens as f64);
        let draft = mean(&|round| round.draft_seconds);
        let score = mean(&|round| round.score_seconds);
        let seconds = draft + score;
        let variance = mean(&|round| (round.tokens as f64 - tokens).powi(2));
        let covariance =
            mean(&|round| (round.tokens as f64 - tokens) * (round.draft_seconds + round.score_seconds - seconds));
        // Least-squares fit of `per_call + tokens * per_token`. Chunks of one length cannot separate
        // the two, so half of the scoring time is then attributed to each.
        let per_token =
            if variance > 0.0 { (covariance / variance).max(draft / tokens) } else { (draft + score / 2.0) / tokens };
        ((seconds - per_token * tokens).max(0.0), per_token)
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
            let draft_seconds = tokens as f64 * draft + prompt;
            let score_seconds = fixed + tokens as f64 * more + prompt;
            chunks.record(Round { tokens, draft_seconds, score_seconds });
            tokens
        };
        (0..7).map(next).collect()
    }

    #[test]
    fn lengths_grow_with_the_fixed_cost_of_a_call() {
        let alone = Sizing::Costs { is_parallel: false };
        assert_eq!(lengths(alone, [0.01; 3])[0], 4, "the first chunk appears early");
        // The first estimates are made from chunks of one length, which cannot separate costs per
        // call from costs per token.
        assert_eq!(lengths(alone, [0.1, 0.0, 0.1])[3..], [4; 4], "no fixed cost");
        assert_eq!(lengths(alone, [0.001, 10.0, 0.0])[3..], [64; 4], "no cost per token of scoring");
        // Measured with 1.1B and 150M parameters: 3 ms per drafted token; 31 ms per call and 3 ms
        // per scored token.
        let found = lengths(alone, [0.003, 0.031, 0.003]);
        assert_eq!(found[..2], [4, 4]);
        let mut total = 8;
        for (index, pair) in found.windows(2).enumerate().skip(2) {
            total += pair[0];
            let best = (2.0 * (total + INITIAL_DISTANCE) as f64 * 0.031 / 0.006).sqrt();
            let best = best.min(0.031 / 0.006 / CALL_SHARE);
            assert!((best - pair[1] as f64).abs() <= 1.0, "{best} at {index} of {found:?}");
        }
    }

    #[test]
    fn chunks_keep_the_pace_of_a_stream_where_calls_are_cheap() {
        // 30 ms per token drafted and scored, 20 ms per call: the cheapest length grows, the pace allows 4 (at
        // least) of them.
        assert_eq!(lengths(Sizing::Costs { is_parallel: false }, [0.02, 0.005, 0.01])[3..], [4; 4]);
        // 6 ms per token, 10 ms per call: 15 tokens in 100 ms.
        let found = lengths(Sizing::Costs { is_parallel: false }, [0.004, 0.01, 0.002]);
        assert!(found.iter().all(|&length| length <= 15), "{found:?}");
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
