//! Chooses the number of proposals per round from measured costs.
//!
//! With acceptance rate `a`, a round of `k` proposals yields `(1 - a^(k+1)) / (1 - a)` tokens on
//! average (arXiv 2211.17192, equation 1) and costs `k` steps of the draft and one of the base over
//! `k + 1` tokens. All costs are measured; the `k` with the least time per token is taken. `k = 0`
//! means that the base decodes alone for a while (back-off).

use std::ops::RangeInclusive;

/// The most tokens proposed at once.
pub(super) const MAX_AHEAD: usize = 16;
/// The most tokens proposed while little is known of the draft.
const INITIAL_AHEAD: usize = 4;
/// The first and the longest back-off, in tokens; each is twice as long as the one before.
const BACK_OFF: RangeInclusive<usize> = 4..=64;
/// Turns between two measurements of the base decoding one token alone.
const MEASURE_TURNS: usize = 16;
/// Decay of the exponential moving averages.
const DECAY: f64 = 0.9;

/// The next move of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The base decodes this many tokens alone.
    Alone(usize),
    /// The draft proposes this many tokens.
    Propose(usize),
}

/// Costs and acceptance measured so far.
#[derive(Debug, Default)]
pub(super) struct Pace {
    turns: usize,
    proposed: f64,
    accepted: f64,
    /// Seconds of the draft per token.
    draft: Average,
    /// Seconds of the base for one token alone.
    alone: Average,
    /// Seconds of the base for one check.
    check: Average,
    /// Tokens in one check.
    checked: Average,
    /// Number of back-offs, minus the profitable rounds since then.
    back_offs: u32,
    /// True right after a back-off.
    is_rested: bool,
}

/// An exponential moving average.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn add(&mut self, value: f64) {
        self.sum = self.sum * DECAY + value;
        self.weight = self.weight * DECAY + 1.0;
    }

    fn get(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

impl Pace {
    /// Chooses the next turn.
    pub(super) fn turn(&mut self) -> Turn {
        self.turns += 1;
        if self.turns % MEASURE_TURNS == 1 {
            return Turn::Alone(1);
        }
        let Some(costs) = self.costs() else { return Turn::Propose(INITIAL_AHEAD) };
        // One accepted and one rejected token are added as a prior.
        let acceptance = (self.accepted + 1.0) / (self.proposed + 2.0);
        let is_rested = std::mem::take(&mut self.is_rested);
        match costs.best(acceptance, 0..=MAX_AHEAD) {
            // After a back-off always probe once, with the length that would pay if every proposal
            // were accepted: otherwise a draft that was bad for a while would never be tried again.
            0 if is_rested => Turn::Propose(costs.best(1.0, 1..=INITIAL_AHEAD)),
            0 => Turn::Alone(self.back_off()),
            ahead => {
                self.back_offs = self.back_offs.saturating_sub(1);
                Turn::Propose(ahead)
            }
        }
    }

    /// Starts a back-off; returns its length in tokens.
    fn back_off(&mut self) -> usize {
        let length = BACK_OFF.start().saturating_mul(1 << self.back_offs.min(16)).min(*BACK_OFF.end());
        self.is_rested = true;
        self.back_offs += 1;
        length
    }

    /// Records tokens that the base decoded alone.
    pub(super) fn record_alone(&mut self, tokens: usize, seconds: f64) {
        if tokens > 0 {
            self.alone.add(seconds / tokens as f64);
        }
    }

    /// Records a round of proposals. `draft_seconds` is `None` where they do not measure the
    /// draft's steps alone.
    pub(super) fn record_round(
        &mut self,
        proposed: usize,
        accepted: usize,
        draft_seconds: Option<f64>,
        check_seconds: f64,
    ) {
        self.proposed = self.proposed * DECAY + proposed.min(accepted + 1) as f64;
        self.accepted = self.accepted * DECAY + accepted as f64;
        // The first round may include a prefill of the prompt.
        if let Some(seconds) = draft_seconds.filter(|_| self.check.get().is_some()) {
            self.draft.add(seconds / proposed.max(1) as f64);
        }
        self.check.add(check_seconds);
        self.checked.add((proposed + 1) as f64);
    }

    /// The costs, once every part of them was measured.
    fn costs(&self) -> Option<Costs> {
        let (draft, alone) = (self.draft.get()?, self.alone.get()?);
        let (check, checked) = (self.check.get()?, self.checked.get()?);
        Some(Costs { draft, alone, extra: ((check - alone) / (checked - 1.0).max(1.0)).max(0.0) })
    }
}

/// Costs in seconds.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// One token by the draft.
    draft: f64,
    /// One token by the base.
    alone: f64,
    /// One further token in the same step of the base.
    extra: f64,
}

impl Costs {
    /// The number of proposals within `counts` with the least time per token at this acceptance
    /// rate.
    fn best(self, acceptance: f64, counts: RangeInclusive<usize>) -> usize {
        let per_token = |ahead: usize| {
            let tokens = (0..=ahead).map(|power| acceptance.powi(power as i32)).sum::<f64>();
            (self.alone + (self.draft + self.extra) * ahead as f64) / tokens
        };
        counts.min_by(|a, b| per_token(*a).total_cmp(&per_token(*b))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a long answer. `share` of the proposals are right, a draft step takes `draft`
    /// seconds, a step of the base 1 second and `more` for each further token. Returns the seconds
    /// per token and the last number of proposals.
    fn settled(share: f64, draft: f64, more: f64) -> (f64, usize) {
        let (mut pace, mut seconds, mut tokens, mut last) = (Pace::default(), 0.0, 0, 0);
        let mut state = 1u64;
        while tokens < 20_000 {
            match pace.turn() {
                Turn::Alone(count) => {
                    pace.record_alone(count, count as f64);
                    (seconds, tokens) = (seconds + count as f64, tokens + count);
                    last = if count > 1 { 0 } else { last };
                }
                Turn::Propose(ahead) => {
                    let mut is_right = |_: &usize| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        ((state >> 33) as f64) < share * (1u64 << 31) as f64
                    };
                    let accepted = (0..ahead).take_while(&mut is_right).count();
                    let times = [draft * ahead as f64, 1.0 + more * ahead as f64];
                    pace.record_round(ahead, accepted, Some(times[0]), times[1]);
                    (seconds, tokens, last) = (seconds + times[0] + times[1], tokens + accepted + 1, ahead);
                }
            }
        }
        (seconds / tokens as f64, last)
    }

    #[test]
    fn the_pace_approaches_the_best_one_for_every_draft() {
        for share in [0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99] {
            for (draft, more) in [(0.02, 0.02), (0.1, 0.1), (0.25, 0.1), (0.5, 0.05), (1.5, 0.1)] {
                let costs = Costs { draft, alone: 1.0, extra: more };
                let ahead = costs.best(share, 0..=MAX_AHEAD);
                let steps = 1.0 + (draft + more) * ahead as f64;
                let best = steps / (0..=ahead).map(|power| share.powi(power as i32)).sum::<f64>();
                let (seconds, _) = settled(share, draft, more);
                assert!(seconds < best * 1.1, "{share} {draft} {more}: {seconds} for {best}");
            }
        }
    }

    #[test]
    fn a_good_and_fast_draft_proposes_many_tokens() {
        assert!(settled(0.95, 0.02, 0.02).1 >= 8);
        assert!((1..=8).contains(&settled(0.6, 0.05, 0.05).1));
    }

    #[test]
    fn a_draft_is_probed_again_after_each_back_off() {
        let mut pace = Pace::default();
        pace.record_alone(1, 1.0);
        (0..50).for_each(|_| pace.record_round(4, 0, Some(0.4), 1.1));
        pace.turns = 1;
        let turns: Vec<_> = (0..9).map(|_| pace.turn()).collect();
        let back_offs = [4, 8, 16, 32].map(Turn::Alone);
        assert_eq!(turns.iter().copied().step_by(2).take(4).collect::<Vec<_>>(), back_offs);
        assert!(turns.iter().skip(1).step_by(2).all(|turn| *turn == Turn::Propose(INITIAL_AHEAD)), "{turns:?}");
        (0..4).for_each(|_| pace.record_round(4, 4, Some(0.4), 1.1));
        assert!(matches!(pace.turn(), Turn::Propose(2..)));
    }

    #[test]
    fn the_first_round_does_not_count_as_the_cost_of_a_draft_token() {
        let mut pace = Pace::default();
        pace.record_alone(1, 1.0);
        pace.record_round(4, 1, Some(9.0), 1.1);
        pace.record_round(4, 3, Some(0.4), 1.1);
        pace.record_round(4, 3, None, 1.1);
        assert_eq!(pace.draft.get(), Some(0.1));
    }
}
