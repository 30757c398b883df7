//! Profiles: step times of an engine and the acceptance of proposals by it, measured from request to
//! request.
//!
//! A check of `n` tokens of one sequence is modelled as `first + further * (n - 1)` seconds. Both
//! numbers follow from all measured checks by least squares with exponential decay. Weak priors tie
//! the first number to the time of decoding, which is without the cost of a question per step, and
//! the second number to the first, as long as the checks had one length.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::acceptance::Acceptance;

/// Decay of older measurements per step.
const DECAY: f64 = 0.98;
/// The prior of `further / first`, and its weight in squared tokens.
const SLOPE: (f64, f64) = (0.06, 6.0);
/// The weight of the time of decoding in the fit of checks, in steps.
const DECODING_WEIGHT: f64 = 2.0;
/// The most tokens of a step that counts as a check; longer ones are prefills.
const LONGEST_CHECK: usize = 32;
/// The least number of tokens of a prefill.
const PREFILL: usize = LONGEST_CHECK + 1;
/// The most that a measurement may exceed the expected time; the rest is taken for a disturbance.
const LARGEST_FACTOR: f64 = 2.0;
/// The least remaining weight of single-token steps at which their time counts as known.
const KNOWN: f64 = 0.15;

/// Times of steps over a few tokens of one sequence, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTime {
    /// The time of decoding a token.
    pub alone: f64,
    /// The time of a check of one token.
    pub first: f64,
    /// The time of each further token in the same step.
    pub further: f64,
}

impl StepTime {
    /// Times of an engine without a cost per question.
    #[must_use]
    pub const fn new(first: f64, further: f64) -> Self {
        Self { alone: first, first, further }
    }

    /// The time of a check of `tokens` tokens, at least one.
    #[must_use]
    pub fn at(self, tokens: usize) -> f64 {
        self.first + self.further * tokens.saturating_sub(1) as f64
    }
}

/// Step times of an engine and the acceptance of what was proposed to it. Clones share their
/// content.
///
/// ```
/// use wsd_core::Profile;
///
/// let profile = Profile::default();
/// assert_eq!(profile.step_time(), None);
/// profile.record(1, 0.020);
/// profile.record(9, 0.028);
/// let time = profile.step_time().unwrap();
/// assert!((time.at(5) - 0.024).abs() < 0.001);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Profile {
    times: Arc<Mutex<Times>>,
    acceptance: Arc<Mutex<BTreeMap<String, Acceptance>>>,
}

#[derive(Debug, Default)]
struct Times {
    /// Times that no measurement changes.
    fixed: Option<StepTime>,
    decoding: Decoding,
    checks: Checks,
    /// Seconds per token of long steps.
    prefill: Option<f64>,
}

/// The mean time of decoding a token. Its weight also decays with every check.
#[derive(Debug, Default)]
struct Decoding {
    seconds: f64,
    weight: f64,
}

/// Sums of the least-squares fit: of the checks, and of products of further tokens and seconds.
#[derive(Debug, Default)]
struct Checks {
    ones: f64,
    further: f64,
    further_squared: f64,
    seconds: f64,
    further_seconds: f64,
}

impl Profile {
    /// A profile with given times that measurements do not change, for simulations.
    #[must_use]
    pub fn fixed(time: StepTime) -> Self {
        let times = Times { fixed: Some(time), prefill: Some(time.further), ..Times::default() };
        Self { times: Arc::new(Mutex::new(times)), acceptance: Arc::default() }
    }

    /// A profile that shares the step times, and begins an acceptance of its own: step times tell about
    /// the machine, acceptance about the texts of the requests that it was measured on.
    #[must_use]
    pub fn scoped(&self) -> Self {
        Self { times: self.times.clone(), acceptance: Arc::default() }
    }

    /// Takes in a step over `tokens` tokens of one sequence that took `seconds`. Returns the seconds
    /// to account for, which differ in a fixed profile.
    pub fn record(&self, tokens: usize, seconds: f64) -> f64 {
        lock(&self.times).record(tokens, seconds, 1.0)
    }

    /// Takes in the writing of `tokens` tokens after `lacking` ones that had to be computed first.
    /// Returns the seconds to account for.
    pub(crate) fn record_writing(&self, lacking: usize, tokens: usize, seconds: f64) -> f64 {
        let (mut times, further) = (lock(&self.times), tokens.saturating_sub(1) as f64);
        if let Some(time) = times.fixed {
            return time.alone + time.at(lacking) - time.first + time.alone * further;
        }
        if lacking <= 2 {
            let count = further + 1.0;
            times.record(1, seconds / count, count.min(4.0));
        } else if lacking >= PREFILL || tokens <= 1 {
            let decoding = times.fit().map_or(0.0, |time| time.alone * further);
            times.record(lacking, (seconds - decoding).max(0.0), 1.0);
        }
        seconds
    }

    /// The fitted times; `None` before the first measurement.
    #[must_use]
    pub fn step_time(&self) -> Option<StepTime> {
        lock(&self.times).fit()
    }

    /// The measured seconds per token of prefills; `None` before the first measurement.
    #[must_use]
    pub fn prefill_time(&self) -> Option<f64> {
        lock(&self.times).prefill
    }

    /// Tells whether steps over one token were measured not long ago.
    pub(crate) fn knows_single_steps(&self) -> bool {
        let times = lock(&self.times);
        times.fixed.is_some() || times.decoding.weight >= KNOWN
    }

    /// The acceptance of proposals by the source of this name.
    pub(crate) fn acceptance(&self, source: &str) -> Acceptance {
        lock(&self.acceptance).get(source).cloned().unwrap_or_default()
    }

    /// Changes the acceptance of proposals by the source of this name.
    pub(crate) fn update_acceptance(&self, source: &str, change: impl FnOnce(&mut Acceptance)) {
        change(lock(&self.acceptance).entry(source.to_owned()).or_default());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Times {
    fn record(&mut self, tokens: usize, seconds: f64, weight: f64) -> f64 {
        if let Some(time) = self.fixed {
            return if tokens <= 1 { time.alone } else { time.at(tokens) };
        }
        if tokens > LONGEST_CHECK {
            let newest = seconds / tokens as f64;
            self.prefill = Some(self.prefill.map_or(newest, |mean| f64::midpoint(mean, newest)));
            return seconds;
        }
        let is_known = self.decoding.weight + self.checks.ones > 4.0;
        let known = self.fit().filter(|_| is_known).map(|time| if tokens <= 1 { time.alone } else { time.at(tokens) });
        let value = known.map_or(seconds, |expected| seconds.min(LARGEST_FACTOR * expected));
        let decay = DECAY.powf(weight);
        self.decoding.seconds *= decay;
        self.decoding.weight *= decay;
        if tokens <= 1 {
            self.decoding.seconds += value * weight;
            self.decoding.weight += weight;
        } else {
            self.checks.add((tokens - 1) as f64, value, weight);
        }
        seconds
    }

    fn fit(&self) -> Option<StepTime> {
        if self.fixed.is_some() {
            return self.fixed;
        }
        let Decoding { seconds, weight } = self.decoding;
        let alone = (weight > 0.0).then(|| seconds / weight);
        let (first, further) = self.checks.fit(alone)?;
        Some(StepTime { alone: alone.unwrap_or(first), first, further })
    }
}

impl Checks {
    fn add(&mut self, further: f64, seconds: f64, weight: f64) {
        for (sum, term) in [
            (&mut self.ones, 1.0),
            (&mut self.further, further),
            (&mut self.further_squared, further * further),
            (&mut self.seconds, seconds),
            (&mut self.further_seconds, further * seconds),
        ] {
            *sum = *sum * DECAY.powf(weight) + term * weight;
        }
    }

    /// Solves for the times of the first and of each further token. The priors add
    /// `slope_weight * (further - slope * first)^2` and `decoding_weight * (first - alone)^2` to the
    /// sum of squares.
    fn fit(&self, alone: Option<f64>) -> Option<(f64, f64)> {
        let (slope, weight) = SLOPE;
        let ones = self.ones + alone.map_or(0.0, |_| DECODING_WEIGHT);
        let seconds = self.seconds + alone.map_or(0.0, |alone| alone * DECODING_WEIGHT);
        if ones == 0.0 {
            return None;
        }
        let (aa, ab) = (ones + weight * slope * slope, self.further - weight * slope);
        let bb = self.further_squared + weight;
        let determinant = aa * bb - ab * ab;
        let first = (seconds * bb - self.further_seconds * ab) / determinant;
        let further = (self.further_seconds * aa - seconds * ab) / determinant;
        if further >= 0.0 && first > 0.0 {
            return Some((first, further));
        }
        // Noise hides the slope, in either direction.
        let first = seconds / ones / (1.0 + slope * self.further / ones);
        Some((first, if further < 0.0 { 0.0 } else { slope * first }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_fitted_through_noise() {
        let profile = Profile::default();
        for round in 0..200usize {
            let tokens = 1 + round * 7 % 9;
            let noise = 1.0 + 0.1 * ((round * 37 % 11) as f64 / 5.0 - 1.0);
            profile.record(tokens, (0.020 + 0.001 * (tokens - 1) as f64) * noise);
        }
        profile.record(1, 9.0);
        let time = profile.step_time().unwrap();
        assert!((time.first - 0.020).abs() < 0.003 && (time.further - 0.001).abs() < 0.0005, "{time:?}");
    }

    #[test]
    fn steps_of_one_length_leave_the_slope_to_the_prior() {
        let profile = Profile::default();
        profile.record_writing(1, 10, 0.2);
        let time = profile.step_time().unwrap();
        assert!((time.first - 0.02).abs() < 1e-9 && (time.further - SLOPE.0 * 0.02).abs() < 1e-9, "{time:?}");
        assert!((time.alone - 0.02).abs() < 1e-9);
        assert!(profile.knows_single_steps());
        (0..200).for_each(|_| _ = profile.record(5, 0.03));
        assert!(!profile.knows_single_steps(), "they are long ago");
    }

    #[test]
    fn the_cost_of_questions_belongs_to_checks_alone() {
        let profile = Profile::default();
        for tokens in 2..40usize {
            profile.record_writing(1, 16, 16.0 * 0.001);
            profile.record(tokens % 7 + 2, 0.0015 + 0.0001 * (tokens % 7 + 1) as f64);
        }
        let time = profile.step_time().unwrap();
        assert!((time.alone - 0.001).abs() < 1e-6 && (time.first - 0.0015).abs() < 2e-4, "{time:?}");
    }

    #[test]
    fn prefills_do_not_count_as_checks() {
        let profile = Profile::default();
        profile.record(500, 1.0);
        profile.record_writing(500, 1, 1.0);
        assert_eq!((profile.step_time(), profile.prefill_time()), (None, Some(0.002)));
    }
}
