//! Lookahead: the number of tokens that the draft proposes per round, chosen by measured costs.
//!
//! With acceptance rate `a`, a round of `k` proposed tokens yields `(1 - a^(k+1)) / (1 - a)` tokens
//! on average (arXiv 2211.17192, equation 1) and costs `k` steps of the draft and one step of the
//! base over `k + 1` tokens. All costs are measured; the `k` with the least time per token is taken.
//! `k = 0` means that speculation does not pay, and the base decodes alone for a while (back-off).

use std::ops::RangeInclusive;

/// Maximum number of tokens proposed per round.
pub(super) const MAX_PROPOSED: usize = 16;
/// Maximum number of tokens proposed before all costs are measured, and in the probe after a
/// back-off.
const INITIAL_PROPOSED: usize = 4;
/// Length of the first and of the longest back-off, in tokens; each is twice as long as the one
/// before.
const BACK_OFF: RangeInclusive<usize> = 4..=64;
/// Number of actions from one measurement of the base decoding a single token to the next.
const MEASURE_INTERVAL: usize = 16;
/// Decay of the exponential moving averages.
const DECAY: f64 = 0.9;

/// The next action of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The base decodes this many tokens alone.
    DecodeAlone(usize),
    /// The draft proposes this many tokens.
    Propose(usize),
}

/// Costs and acceptance measured so far.
#[derive(Debug, Default)]
pub(super) struct Lookahead {
    /// Number of actions chosen so far.
    actions: usize,
    /// Number of proposed tokens up to the first rejected one, with exponential decay per round.
    proposed: f64,
    /// Number of accepted tokens, with the same decay.
    accepted: f64,
    /// Seconds of the draft per token.
    draft: Average,
    /// Seconds of the base per token when it decodes alone.
    alone: Average,
    /// Seconds of the base per check of a proposal.
    check: Average,
    /// Number of tokens per check.
    checked_tokens: Average,
    /// Number of back-offs minus the rounds since then that were expected to pay, at least 0: the
    /// exponent of the next back-off's length.
    back_offs: u32,
    /// True right after a back-off, which is followed by a probe.
    probes_next: bool,
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

impl Lookahead {
    /// Chooses the next action.
    pub(super) fn next_action(&mut self) -> Action {
        self.actions += 1;
        if self.actions % MEASURE_INTERVAL == 1 {
            return Action::DecodeAlone(1);
        }
        let Some(costs) = self.costs() else { return Action::Propose(INITIAL_PROPOSED) };
        // One accepted and one rejected token are added as a prior.
        let acceptance = (self.accepted + 1.0) / (self.proposed + 2.0);
        let probes_next = std::mem::take(&mut self.probes_next);
        match costs.best_count(acceptance, 0..=MAX_PROPOSED) {
            // A back-off is always followed by one probe, of the length that would pay if every
            // token were accepted. Without it a draft that was bad for a while would never be tried
            // again.
            0 if probes_next => Action::Propose(costs.best_count(1.0, 1..=INITIAL_PROPOSED)),
            0 => Action::DecodeAlone(self.back_off()),
            count => {
                self.back_offs = self.back_offs.saturating_sub(1);
                Action::Propose(count)
            }
        }
    }

    /// Starts a back-off; returns its length in tokens.
    fn back_off(&mut self) -> usize {
        let length = BACK_OFF.start().saturating_mul(1 << self.back_offs.min(16)).min(*BACK_OFF.end());
        self.probes_next = true;
        self.back_offs += 1;
        length
    }

    /// Records tokens that the base decoded alone.
    pub(super) fn record_alone(&mut self, tokens: usize, seconds: f64) {
        if tokens > 0 {
            self.alone.add(seconds / tokens as f64);
        }
    }

    /// Records a round of `proposed` tokens. `draft_seconds` is `None` if the draft's time includes
    /// more than its own steps, such as a long prefill.
    pub(super) fn record_round(
        &mut self,
        proposed: usize,
        accepted: usize,
        draft_seconds: Option<f64>,
        check_seconds: f64,
    ) {
        self.proposed = self.proposed * DECAY + proposed.min(accepted + 1) as f64;
        self.accepted = self.accepted * DECAY + accepted as f64;
        // The first round is not counted, because it may include a prefill of the prompt.
        if let Some(seconds) = draft_seconds.filter(|_| self.check.get().is_some()) {
            self.draft.add(seconds / proposed.max(1) as f64);
        }
        self.check.add(check_seconds);
        self.checked_tokens.add((proposed + 1) as f64);
    }

    /// Returns the costs; `None` until every part of them has been measured.
    fn costs(&self) -> Option<Costs> {
        let (draft, alone) = (self.draft.get()?, self.alone.get()?);
        let (check, checked_tokens) = (self.check.get()?, self.checked_tokens.get()?);
        Some(Costs { draft, alone, extra: ((check - alone) / (checked_tokens - 1.0).max(1.0)).max(0.0) })
    }
}

/// Costs in seconds per token.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// Cost of a token that the draft generates.
    draft: f64,
    /// Cost of a step of the base over one token.
    alone: f64,
    /// Cost of each further token in the same step of the base.
    extra: f64,
}

impl Costs {
    /// Returns the number of proposed tokens within `counts` that takes the least time per token of
    /// the answer at this acceptance rate.
    fn best_count(self, acceptance: f64, counts: RangeInclusive<usize>) -> usize {
        let per_token = |count: usize| {
            let tokens = (0..=count).map(|power| acceptance.powi(power as i32)).sum::<f64>();
            (self.alone + (self.draft + self.extra) * count as f64) / tokens
        };
        counts.min_by(|a, b| per_token(*a).total_cmp(&per_token(*b))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates an answer of 20,000 tokens. The base confirms each proposed token with probability
    /// `share`; a step of the draft takes `draft` seconds, a step of the base 1 second and `more`
    /// for each further token. Returns the seconds per token and the last number of proposed tokens.
    fn simulated(share: f64, draft: f64, more: f64) -> (f64, usize) {
        let (mut lookahead, mut seconds, mut tokens, mut last) = (Lookahead::default(), 0.0, 0, 0);
        let mut state = 1u64;
        while tokens < 20_000 {
            match lookahead.next_action() {
                Action::DecodeAlone(count) => {
                    lookahead.record_alone(count, count as f64);
                    (seconds, tokens) = (seconds + count as f64, tokens + count);
                    last = if count > 1 { 0 } else { last };
                }
                Action::Propose(ahead) => {
                    let mut is_right = |_: &usize| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        ((state >> 33) as f64) < share * (1u64 << 31) as f64
                    };
                    let accepted = (0..ahead).take_while(&mut is_right).count();
                    let times = [draft * ahead as f64, 1.0 + more * ahead as f64];
                    lookahead.record_round(ahead, accepted, Some(times[0]), times[1]);
                    (seconds, tokens, last) = (seconds + times[0] + times[1], tokens + accepted + 1, ahead);
                }
            }
        }
        (seconds / tokens as f64, last)
    }

    #[test]
    fn the_lookahead_approaches_the_best_one_for_every_draft() {
        for share in [0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99] {
            for (draft, more) in [(0.02, 0.02), (0.1, 0.1), (0.25, 0.1), (0.5, 0.05), (1.5, 0.1)] {
                let costs = Costs { draft, alone: 1.0, extra: more };
                let ahead = costs.best_count(share, 0..=MAX_PROPOSED);
                let steps = 1.0 + (draft + more) * ahead as f64;
                let best = steps / (0..=ahead).map(|power| share.powi(power as i32)).sum::<f64>();
                let (seconds, _) = simulated(share, draft, more);
                assert!(seconds < best * 1.1, "{share} {draft} {more}: {seconds} for {best}");
            }
        }
    }

    #[test]
    fn a_good_and_fast_draft_proposes_many_tokens() {
        assert!(simulated(0.95, 0.02, 0.02).1 >= 8);
        assert!((1..=8).contains(&simulated(0.6, 0.05, 0.05).1));
    }

    #[test]
    fn a_draft_is_probed_again_after_each_back_off() {
        let mut lookahead = Lookahead::default();
        lookahead.record_alone(1, 1.0);
        (0..50).for_each(|_| lookahead.record_round(4, 0, Some(0.4), 1.1));
        lookahead.actions = 1;
        let actions: Vec<_> = (0..9).map(|_| lookahead.next_action()).collect();
        let back_offs = [4, 8, 16, 32].map(Action::DecodeAlone);
        assert_eq!(actions.iter().copied().step_by(2).take(4).collect::<Vec<_>>(), back_offs);
        assert!(
            actions.iter().skip(1).step_by(2).all(|action| *action == Action::Propose(INITIAL_PROPOSED)),
            "{actions:?}"
        );
        (0..4).for_each(|_| lookahead.record_round(4, 4, Some(0.4), 1.1));
        assert!(matches!(lookahead.next_action(), Action::Propose(2..)));
    }

    #[test]
    fn the_first_round_does_not_count_as_the_cost_of_a_draft_token() {
        let mut lookahead = Lookahead::default();
        lookahead.record_alone(1, 1.0);
        lookahead.record_round(4, 1, Some(9.0), 1.1);
        lookahead.record_round(4, 3, Some(0.4), 1.1);
        lookahead.record_round(4, 3, None, 1.1);
        assert_eq!(lookahead.draft.get(), Some(0.1));
    }
}
