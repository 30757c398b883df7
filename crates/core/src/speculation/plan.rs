//! Plans: the source and the number of the next proposals, chosen by measured costs.
//!
//! A round that checks `n` proposed tokens yields `1 + p_1 + ... + p_n` tokens on average, where
//! `p_i` is the probability that the first `i` are accepted (arXiv 2211.17192, equation 1, for
//! `p_i = a^i`). It costs the proposal and a step over `n + 1` tokens. With the least known time per
//! token `t` as the worth of a token, the round of the largest `t * tokens - cost` is taken; decoding
//! one token alone is always among the candidates.
//!
//! The estimates may be wrong, so the loss is bounded: seconds that rounds took beyond decoding the
//! same tokens alone are a debt, and a round is taken only if the debt stays within a small share of
//! the time of the answer even if every proposal is wrong. Gains make longer proposals possible. Of a
//! prefill only the part is a debt that the evidence on its model does not vouch for: a model whose
//! tokens were accepted before may lose the rest if they no longer are.

use std::ops::RangeInclusive;

use crate::StepTime;

/// The most tokens proposed per round.
pub(super) const MAX_PROPOSED: usize = 15;
/// The most tokens proposed by a probe.
const PROBED: usize = 3;
/// The acceptance that probes hope for.
const HOPE: f64 = 0.95;
/// The share of the time of an answer that may be lost.
const LOSS: f64 = 0.025;
/// The least number of tokens that an answer is expected to go on for, if its limit allows.
const EXPECTED: usize = 64;
/// The advantage over decoding alone from which a round is taken, as a share of a step.
const MARGIN: f64 = 0.02;
/// Evidence of this many tokens halves the risk of a prefill.
const DOUBT: f64 = 4.0;
/// Length of the first and of the longest pause between probes, in tokens; each is twice as long as
/// the one before.
const BACK_OFF: RangeInclusive<usize> = 16..=256;
/// The least duration of decoding alone, in seconds, which keeps the cost of asking negligible, and the
/// most tokens for its sake.
const ALONE_SECONDS: f64 = 0.01;
const ALONE_TOKENS: usize = 64;
/// The share of the rest of an answer that the prefill for a trial of a model may take if there is
/// evidence on it.
const TRIAL_PREFILL: f64 = 0.01;
/// Rounds between two trials of a model that is not the best by present estimates: where it is within
/// their error, and where it may have become better.
const TRIALS: (usize, usize) = (6, 96);
/// The standard deviation of one observation of an acceptance.
const DEVIATION: f64 = 0.5;

/// Proposals that a source can make.
#[derive(Clone, Debug, Default)]
pub(super) struct Offer {
    /// The probabilities that the first token, the first two, and so on are accepted.
    pub(super) paths: Vec<f64>,
    /// Seconds per proposed token.
    pub(super) per_token: f64,
    /// Seconds before the first token.
    pub(super) once: f64,
    /// Seconds of a prefill that later rounds need not repeat.
    pub(super) prefill: f64,
    /// Number of tokens that the probabilities rest on.
    pub(super) evidence: f64,
    /// True for a model, which can make an offer in every round.
    pub(super) is_model: bool,
}

impl Offer {
    /// Seconds of a round of `count` proposals beside the prefill.
    fn cost(&self, time: StepTime, count: usize) -> f64 {
        self.once + self.per_token * count as f64 + time.at(count + 1)
    }

    /// The expected number of tokens of a round of `count` proposals.
    fn gain(&self, count: usize) -> f64 {
        1.0 + self.paths.iter().take(count).sum::<f64>()
    }

    /// The least seconds per token over all lengths up to `most`.
    fn best_ratio(&self, time: StepTime, most: usize) -> f64 {
        let counts = 1..=most.min(self.paths.len());
        counts.map(|count| self.cost(time, count) / self.gain(count)).fold(f64::INFINITY, f64::min)
    }

    /// The same offer with another acceptance.
    fn with_acceptance(&self, rate: f64) -> Self {
        Self { paths: powers(rate.min(HOPE), self.paths.len()), ..self.clone() }
    }

    /// Seconds of the prefill that would be lost if the proposals were wrong, by what is known of them.
    fn risk(&self) -> f64 {
        let doubt = DOUBT / (DOUBT + self.evidence);
        self.prefill * doubt * doubt
    }

    /// The acceptance of the first token plus the error of its estimate.
    fn upper_acceptance(&self) -> f64 {
        self.paths.first().map_or(0.0, |mean| mean + DEVIATION / (1.0 + self.evidence).sqrt())
    }
}

/// The first `count` powers of an acceptance rate.
pub(super) fn powers(rate: f64, count: usize) -> Vec<f64> {
    (1..=count as i32).map(|power| rate.powi(power)).collect()
}

/// The least seconds per token that a model needs, alone or with proposals of `models`.
pub(super) fn pace<'a>(time: StepTime, models: impl IntoIterator<Item = &'a Offer>) -> f64 {
    models.into_iter().map(|offer| offer.best_ratio(time, MAX_PROPOSED)).fold(time.alone, f64::min)
}

/// The next action of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    /// Decoding alone, of this many tokens.
    Alone(usize),
    /// A check of proposals.
    Propose(Request),
}

/// A request for proposals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Request {
    /// Index of the offer.
    pub(super) offer: usize,
    /// The number of tokens that is expected to pay best.
    pub(super) count: usize,
    /// The most tokens that may be proposed.
    pub(super) most: usize,
    /// Seconds that an accepted token is worth.
    pub(super) worth: f64,
    /// Seconds of a prefill that is expected to pay: they are no debt, which would keep it from paying.
    pub(super) invested: f64,
}

/// The account of one answer, and the pauses between probes.
#[derive(Debug, Default)]
pub(super) struct Planner {
    /// True if the loss is not bounded, as for a model whose own text nobody reads.
    pub(super) is_unbounded: bool,
    /// Seconds spent so far.
    seconds: f64,
    /// Tokens written so far.
    tokens: usize,
    /// Seconds lost so far, negative for a gain.
    debt: f64,
    rounds: usize,
    /// Tokens to decode alone before the next probe.
    pause: usize,
    back_offs: u32,
}

impl Planner {
    /// Takes in seconds that speculation does not change, such as a prefill.
    pub(super) fn spend(&mut self, seconds: f64) {
        self.seconds += seconds;
    }

    /// Takes in tokens decoded alone.
    pub(super) fn record_alone(&mut self, tokens: usize, seconds: f64) {
        self.seconds += seconds;
        self.tokens += tokens;
        self.pause = self.pause.saturating_sub(tokens);
    }

    /// Takes in a round of proposals. `alone` is the time of decoding one token alone.
    pub(super) fn record_round(&mut self, request: Request, tokens: usize, seconds: f64, alone: f64) {
        self.seconds += seconds;
        self.tokens += tokens;
        self.debt += (seconds - request.invested).max(0.0) - alone * tokens as f64;
    }

    /// Chooses what to do next, with `remaining` tokens left to write.
    pub(super) fn choose(&mut self, time: StepTime, offers: &[Offer], remaining: usize) -> Action {
        let Some(most) = remaining.checked_sub(1).filter(|&most| most > 0 && !offers.is_empty()) else {
            return Action::Alone(1.min(remaining));
        };
        self.rounds += 1;
        let worth = pace(time, offers.iter().filter(|offer| offer.is_model));
        let least = worth - time.alone * (1.0 - MARGIN);
        let mut best: Option<(f64, Request)> = None;
        for (index, offer) in offers.iter().enumerate() {
            let counts = (1..=most.min(offer.paths.len()).min(MAX_PROPOSED))
                .take_while(|&count| self.allows(time, offer, count, remaining));
            let valued = counts.map(|count| {
                let gain = offer.gain(count);
                let prefill = offer.prefill * (gain / remaining as f64).min(1.0);
                (count, worth * gain - offer.cost(time, count) - prefill)
            });
            let valued: Vec<_> = valued.collect();
            let Some(&(most, _)) = valued.last() else { continue };
            let Some(&(count, value)) = valued.iter().max_by(|one, other| one.1.total_cmp(&other.1)) else { continue };
            if value > best.map_or(least, |(value, _)| value) {
                let invested = offer.prefill - offer.risk();
                best = Some((value, Request { offer: index, count, most, worth, invested }));
            }
        }
        if let Some(trial) = self.trial(time, offers, worth, remaining) {
            return trial;
        }
        match best {
            Some((_, request)) => {
                self.back_offs = self.back_offs.saturating_sub(1);
                Action::Propose(request)
            }
            None => self
                .probe(time, offers, worth, remaining)
                .unwrap_or_else(|| Action::Alone(self.alone(time, offers, remaining))),
        }
    }

    /// Tells whether a round of `count` proposals keeps the loss within its bound if all are wrong.
    fn allows(&self, time: StepTime, offer: &Offer, count: usize, remaining: usize) -> bool {
        if self.is_unbounded {
            return true;
        }
        let expected = remaining.min(EXPECTED.max(self.tokens));
        let allowed = LOSS * (self.seconds + time.alone * expected as f64);
        self.debt + offer.cost(time, count) - time.alone + offer.risk() <= allowed
    }

    /// A round of the model of which least is known, now and then, if it could be the best.
    fn trial(&self, time: StepTime, offers: &[Offer], worth: f64, remaining: usize) -> Option<Action> {
        let models = offers.iter().enumerate().filter(|(_, offer)| offer.is_model);
        if models.clone().count() < 2 || self.pause > 0 {
            return None;
        }
        let (index, offer) = models.min_by(|(_, one), (_, other)| one.evidence.total_cmp(&other.evidence))?;
        let pays = |rate| offer.with_acceptance(rate).best_ratio(time, PROBED) < worth;
        let is_cheap = offer.prefill <= TRIAL_PREFILL * worth * remaining as f64;
        let is_due = self.rounds.is_multiple_of(TRIALS.0) && pays(offer.upper_acceptance())
            || self.rounds.is_multiple_of(TRIALS.1) && pays(HOPE);
        let count = PROBED.min(remaining - 1);
        let is_worth_it = is_cheap || offer.evidence < DOUBT;
        let request = Request { offer: index, count, most: count, worth, invested: 0.0 };
        (is_due && is_worth_it && self.allows(time, offer, count, remaining)).then_some(Action::Propose(request))
    }

    /// A short round of the model that would pay best if its tokens were accepted, unless there is a
    /// pause. Without probes a model that was bad for a while would never be tried again.
    fn probe(&mut self, time: StepTime, offers: &[Offer], worth: f64, remaining: usize) -> Option<Action> {
        if self.pause > 0 {
            return None;
        }
        let models = offers.iter().enumerate().filter(|(_, offer)| offer.is_model);
        let hoped = models.map(|(index, offer)| (index, offer, offer.with_acceptance(HOPE).best_ratio(time, PROBED)));
        let (index, offer, ratio) = hoped.min_by(|one, other| one.2.total_cmp(&other.2))?;
        let fits = |count: &usize| self.allows(time, offer, *count, remaining);
        let count = (1..=PROBED.min(remaining - 1)).rev().find(fits).filter(|_| ratio < time.alone)?;
        self.pause = BACK_OFF.start().saturating_mul(1 << self.back_offs.min(8)).min(*BACK_OFF.end());
        self.back_offs += 1;
        Some(Action::Propose(Request { offer: index, count, most: count, worth, invested: 0.0 }))
    }

    /// The number of tokens to decode alone: until the next probe, if no text may offer something earlier.
    pub(super) fn alone(&self, time: StepTime, offers: &[Offer], remaining: usize) -> usize {
        let least = (ALONE_SECONDS / time.alone.max(f64::MIN_POSITIVE)).ceil() as usize;
        let waits = offers.iter().all(|offer| offer.is_model) && self.pause > 0;
        let count = if waits { self.pause } else { least.min(ALONE_TOKENS) };
        count.clamp(1, remaining.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptance::{Acceptance, Hint};

    /// A simulated answer: the share of proposals that are right, seconds per proposed token, and
    /// seconds per further token in a step of 1 second.
    #[derive(Clone, Copy)]
    struct Case {
        share: f64,
        draft: f64,
        further: f64,
    }

    /// Simulates an answer of `length` tokens; returns its seconds per token.
    fn simulated(case: Case, length: usize, acceptance: &mut Acceptance) -> f64 {
        let time = StepTime::new(1.0, case.further);
        let (mut planner, mut seconds, mut tokens, mut state) = (Planner::default(), 0.0, 0, 1u64);
        while tokens < length {
            let offer = Offer {
                paths: powers(acceptance.mean(), MAX_PROPOSED),
                per_token: case.draft,
                evidence: acceptance.evidence(),
                is_model: true,
                ..Offer::default()
            };
            match planner.choose(time, &[offer], length - tokens) {
                Action::Alone(count) => {
                    planner.record_alone(count, count as f64);
                    (seconds, tokens) = (seconds + count as f64, tokens + count);
                }
                Action::Propose(request) => {
                    assert!(request.count <= request.most && request.most < length - tokens);
                    let mut accepted = 0;
                    for _ in 0..request.count {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let is_right = ((state >> 33) as f64) < case.share * (1u64 << 31) as f64;
                        acceptance.add(Hint::Probability(0.9), is_right);
                        if !is_right {
                            break;
                        }
                        accepted += 1;
                    }
                    let took = case.draft * request.count as f64 + time.at(request.count + 1);
                    planner.record_round(request, accepted + 1, took, 1.0);
                    (seconds, tokens) = (seconds + took, tokens + accepted + 1);
                }
            }
        }
        seconds / tokens as f64
    }

    fn cases() -> impl Iterator<Item = Case> {
        let shares = [0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99];
        let costs = [(0.02, 0.02), (0.1, 0.1), (0.25, 0.1), (0.35, 0.04), (0.5, 0.05), (1.5, 0.1)];
        shares.into_iter().flat_map(move |share| costs.map(|(draft, further)| Case { share, draft, further }))
    }

    #[test]
    fn long_answers_take_nearly_the_least_time() {
        for case in cases() {
            let time = StepTime::new(1.0, case.further);
            let offer = Offer { paths: powers(case.share, MAX_PROPOSED), per_token: case.draft, ..Offer::default() };
            let best = pace(time, [&offer]);
            let Case { share, draft, further } = case;
            let seconds = simulated(case, 20_000, &mut Acceptance::default());
            assert!(seconds < best * 1.07, "{share} {draft} {further}: {seconds} for {best}");
        }
    }

    #[test]
    fn no_answer_is_three_percent_slower_than_without_speculation() {
        for case in cases() {
            for length in [1, 2, 5, 16, 40, 128, 256, 1000] {
                let mut acceptance = Acceptance::default();
                for request in 0..4 {
                    let seconds = simulated(case, length, &mut acceptance);
                    let Case { share, draft, further } = case;
                    assert!(seconds <= 1.03, "{share} {draft} {further}, {length} tokens, {request}: {seconds}");
                    acceptance = acceptance.inherited();
                }
            }
        }
    }

    #[test]
    fn a_model_that_became_good_is_found_again() {
        let mut acceptance = Acceptance::default();
        (0..60).for_each(|_| acceptance.add(Hint::Probability(0.9), false));
        let case = Case { share: 0.95, draft: 0.1, further: 0.05 };
        assert!(simulated(case, 1500, &mut acceptance) < 0.5);
    }

    #[test]
    fn text_at_hand_precedes_a_model_where_it_is_as_likely() {
        let time = StepTime::new(1.0, 0.04);
        let model = Offer {
            paths: powers(0.8, MAX_PROPOSED),
            per_token: 0.2,
            evidence: 30.0,
            is_model: true,
            ..Offer::default()
        };
        let text = |rate| Offer { paths: powers(rate, MAX_PROPOSED), evidence: 30.0, ..Offer::default() };
        let chosen = |rate| match Planner::default().choose(time, &[model.clone(), text(rate)], 200) {
            Action::Propose(request) => request.offer,
            Action::Alone(_) => usize::MAX,
        };
        assert_eq!([chosen(0.8), chosen(0.2)], [1, 0]);
    }

    #[test]
    fn decoding_alone_lasts_until_the_next_probe() {
        let time = StepTime::new(1.0, 0.1);
        let bad = Offer { paths: powers(0.01, 5), per_token: 0.1, evidence: 30.0, is_model: true, ..Offer::default() };
        let mut planner = Planner::default();
        planner.spend(100.0);
        let Action::Propose(probe) = planner.choose(time, std::slice::from_ref(&bad), 900) else { panic!() };
        planner.record_round(probe, 1, 1.0 + 0.2 * probe.count as f64, 1.0);
        assert_eq!(planner.choose(time, std::slice::from_ref(&bad), 900), Action::Alone(16));
        assert_eq!(planner.choose(time, &[bad, Offer::default()], 900), Action::Alone(1), "a text may offer more");
    }
}
