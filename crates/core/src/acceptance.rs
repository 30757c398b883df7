//! Acceptance of proposed tokens: the share that the checking model confirms, by what is known of a
//! token when it is proposed.
//!
//! A model's choice at a position is a function of its distribution and of the position's random
//! number, which all levels of a chain share. Given that number, both distributions are points, and
//! one minus their total variation is 1 where the two choices are equal and 0 elsewhere. The mean of
//! these numbers, which every check yields at no cost, is the probability that a proposal is
//! accepted.

/// The knowledge of a proposed token from which its acceptance is estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Hint {
    /// The proposing model's own probability of the token.
    Probability(f64),
    /// The proposing model's probability of a token that is its second choice.
    Second(f64),
    /// The checking model's own probability of the token.
    Checked(f64),
    /// The number of tokens before it that agree with an earlier place of the text.
    Match(usize),
}

/// A row of a table of classes: the least value in the class, and the prior of its acceptance.
type Class = (f64, f64);

const PROBABILITY: [Class; 7] =
    [(0.0, 0.25), (0.3, 0.4), (0.5, 0.6), (0.7, 0.75), (0.85, 0.85), (0.95, 0.92), (0.99, 0.95)];
const CHECKED: [Class; 4] = [(0.0, 0.15), (0.2, 0.35), (0.35, 0.5), (0.5, 0.97)];
const SECOND: [Class; 4] = [(0.0, 0.03), (0.05, 0.08), (0.15, 0.2), (0.3, 0.35)];
const MATCH: [Class; 5] = [(0.0, 0.2), (3.0, 0.35), (4.0, 0.5), (6.0, 0.65), (10.0, 0.8)];
/// Weight of a prior, in tokens.
const PRIOR_WEIGHT: f64 = 3.0;
/// The prior of the mean acceptance of a source, and its weight.
const PRIOR: (f64, f64) = (0.75, 3.0);
/// Decay per observed token of a class, and of the mean over all.
const DECAYS: (f64, f64) = (0.98, 0.98);
/// The most tokens that earlier requests count for at the start of a request.
const INHERITED: f64 = 12.0;

impl Hint {
    fn table(self) -> (&'static [Class], f64, usize) {
        match self {
            Self::Probability(probability) => (&PROBABILITY, probability, 0),
            Self::Second(probability) => (&SECOND, probability, PROBABILITY.len()),
            Self::Checked(probability) => (&CHECKED, probability, 0),
            Self::Match(tokens) => (&MATCH, tokens as f64, 0),
        }
    }

    /// The index of the class, and the prior of its acceptance.
    fn class(self) -> (usize, f64) {
        let (table, value, offset) = self.table();
        let index = table.iter().rposition(|&(least, _)| value >= least).unwrap_or(0);
        (offset + index, table[index].1)
    }
}

/// A share of tokens, with exponential decay.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    accepted: f64,
    seen: f64,
}

impl Share {
    fn add(&mut self, is_accepted: bool, decay: f64) {
        self.accepted = self.accepted * decay + if is_accepted { 1.0 } else { 0.0 };
        self.seen = self.seen * decay + 1.0;
    }

    fn mean(self, prior: f64, weight: f64) -> f64 {
        (self.accepted + prior * weight) / (self.seen + weight)
    }

    fn capped(self, most: f64) -> Self {
        let factor = if self.seen > most { most / self.seen } else { 1.0 };
        Self { accepted: self.accepted * factor, seen: self.seen * factor }
    }
}

/// The acceptance of one source's tokens by one model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acceptance {
    all: Share,
    classes: [Share; PROBABILITY.len() + SECOND.len()],
}

impl Acceptance {
    /// Takes in the verdict on a token whose predecessors were all accepted.
    pub(crate) fn add(&mut self, hint: Hint, is_accepted: bool) {
        let (class, _) = hint.class();
        self.classes[class].add(is_accepted, DECAYS.0);
        if !matches!(hint, Hint::Second(_)) {
            self.all.add(is_accepted, DECAYS.1);
        }
    }

    /// The probability that a token is accepted if its predecessors are.
    pub(crate) fn of(&self, hint: Hint) -> f64 {
        let (class, prior) = hint.class();
        self.classes[class].mean(prior, PRIOR_WEIGHT)
    }

    /// The mean probability over the tokens of a source, its second choices left out.
    pub(crate) fn mean(&self) -> f64 {
        self.all.mean(PRIOR.0, PRIOR.1)
    }

    /// The number of tokens that the mean rests on.
    pub(crate) fn evidence(&self) -> f64 {
        self.all.seen
    }

    /// The same acceptance as the start of a new request, which it may contradict quickly.
    pub(crate) fn inherited(&self) -> Self {
        Self { all: self.all.capped(INHERITED), classes: self.classes.map(|share| share.capped(INHERITED)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_learned_apart() {
        let mut acceptance = Acceptance::default();
        for round in 0..100 {
            acceptance.add(Hint::Probability(0.97), true);
            acceptance.add(Hint::Probability(0.4), round % 4 == 0);
            acceptance.add(Hint::Second(0.2), false);
        }
        assert!(acceptance.of(Hint::Probability(0.96)) > 0.97);
        assert!((acceptance.of(Hint::Probability(0.45)) - 0.25).abs() < 0.1);
        assert!(acceptance.of(Hint::Second(0.25)) < 0.05 && acceptance.of(Hint::Second(0.9)) > 0.3);
        assert!((acceptance.mean() - 0.625).abs() < 0.1 && acceptance.evidence() > 20.0);
        assert!((acceptance.inherited().evidence() - INHERITED).abs() < 1e-9);
    }

    #[test]
    fn priors_grow_with_the_hint() {
        let fresh = Acceptance::default();
        for hints in [
            [Hint::Probability(0.1), Hint::Probability(0.6), Hint::Probability(1.0)],
            [Hint::Match(2), Hint::Match(5), Hint::Match(100)],
            [Hint::Second(0.01), Hint::Second(0.1), Hint::Second(0.5)],
        ] {
            assert!(hints.map(|hint| fresh.of(hint)).is_sorted());
        }
    }
}
