//! Profiles: step times of an engine and the acceptance of proposals by it, measured from request to
//! request.
//!
//! A step over `n` tokens of one sequence is modelled as `first + further * (n - 1)` seconds. Both
//! numbers follow from all measured steps by least squares with exponential decay. As long as the
//! steps had one length, a weak prior ties the second number to the first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::speculation::Acceptance;

/// Decay of older measurements per step.
const DECAY: f64 = 0.98;
/// The prior of `further / first`, and its weight in squared tokens.
const SLOPE: (f64, f64) = (0.06, 6.0);
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
    /// The time of a step over one token.
    pub first: f64,
    /// The time of each further token in the same step.
    pub further: f64,
}

impl StepTime {
    /// The time of a step over `tokens` tokens, at least one.
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

/// Sums of the least-squares fit: of the weights, and of products of further tokens and seconds.
#[derive(Debug, Default)]
struct Times {
    /// Times that no measurement changes.
    fixed: Option<StepTime>,
    ones: f64,
    further: f64,
    further_squared: f64,
    seconds: f64,
    further_seconds: f64,
    /// Weight of the steps over one token among `ones`.
    singles: f64,
    /// Seconds per token of long steps.
    prefill: Option<f64>,
}

impl Profile {
    /// A profile with given times that measurements do not change, for simulations.
    #[must_use]
    pub fn fixed(time: StepTime) -> Self {
        let times = Times { fixed: Some(time), singles: 1.0, prefill: Some(time.further), ..Times::default() };
        Self { times: Arc::new(Mutex::new(times)), acceptance: Arc::default() }
    }

    /// A profile that shares the step times and keeps an acceptance of its own, for requests that
    /// must not learn from each other.
    #[must_use]
    pub fn scoped(&self) -> Self {
        Self { times: self.times.clone(), acceptance: Arc::default() }
    }

    /// Takes in a step over `tokens` tokens of one sequence that took `seconds`. Returns the seconds
    /// to account for, which differ in a fixed profile.
    pub fn record(&self, tokens: usize, seconds: f64) -> f64 {
        lock(&self.times).record(tokens, seconds, 1.0)
    }

    /// Takes in `tokens` steps over one token each that took `seconds` together. Returns the seconds
    /// to account for.
    pub fn record_decoding(&self, tokens: usize, seconds: f64) -> f64 {
        let count = tokens.max(1) as f64;
        lock(&self.times).record(1, seconds / count, count.min(4.0)) * tokens as f64
    }

    /// Takes in the writing of `tokens` tokens after `lacking` ones that had to be computed first.
    /// Returns the seconds to account for.
    pub(crate) fn record_writing(&self, lacking: usize, tokens: usize, seconds: f64) -> f64 {
        let mut times = lock(&self.times);
        if let Some(time) = times.fixed {
            return time.at(lacking) + time.first * (tokens - 1) as f64;
        }
        let count = tokens as f64;
        match (lacking, tokens) {
            (_, 1) | (PREFILL.., _) => times.record(lacking, seconds, 1.0),
            (0..=2, _) => times.record(1, seconds / count, count.min(4.0)) * count,
            _ => seconds,
        }
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
        lock(&self.times).singles >= KNOWN
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
            return time.at(tokens);
        }
        if tokens > LONGEST_CHECK {
            let newest = seconds / tokens as f64;
            self.prefill = Some(self.prefill.map_or(newest, |mean| f64::midpoint(mean, newest)));
            return seconds;
        }
        let known = self.fit().filter(|_| self.ones > 4.0);
        let value = known.map_or(seconds, |time| seconds.min(LARGEST_FACTOR * time.at(tokens)));
        let (further, decay) = (tokens.saturating_sub(1) as f64, DECAY.powf(weight));
        for (sum, term) in [
            (&mut self.ones, 1.0),
            (&mut self.further, further),
            (&mut self.further_squared, further * further),
            (&mut self.seconds, value),
            (&mut self.further_seconds, further * value),
            (&mut self.singles, if tokens <= 1 { 1.0 } else { 0.0 }),
        ] {
            *sum = *sum * decay + term * weight;
        }
        seconds
    }

    /// Solves for the two times. The prior adds `weight * (further - slope * first)^2` to the sum of
    /// squares.
    fn fit(&self) -> Option<StepTime> {
        if self.fixed.is_some() || self.ones == 0.0 {
            return self.fixed;
        }
        let (slope, weight) = SLOPE;
        let (aa, ab) = (self.ones + weight * slope * slope, self.further - weight * slope);
        let bb = self.further_squared + weight;
        let determinant = aa * bb - ab * ab;
        let first = (self.seconds * bb - self.further_seconds * ab) / determinant;
        let further = (self.further_seconds * aa - self.seconds * ab) / determinant;
        let mean = self.seconds / self.ones;
        if further < 0.0 || first <= 0.0 || !first.is_finite() {
            // Noise hides the slope, in either direction.
            let first = mean / (1.0 + slope * self.further / self.ones);
            return Some(StepTime { first, further: if further < 0.0 { 0.0 } else { slope * first } });
        }
        Some(StepTime { first, further })
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
        profile.record_decoding(10, 0.2);
        let time = profile.step_time().unwrap();
        assert!((time.first - 0.02).abs() < 1e-9 && (time.further - SLOPE.0 * 0.02).abs() < 1e-9, "{time:?}");
        assert!(profile.knows_single_steps());
        (0..200).for_each(|_| _ = profile.record(5, 0.03));
        assert!(!profile.knows_single_steps(), "they are long ago");
    }

    #[test]
    fn prefills_do_not_count_as_checks() {
        let profile = Profile::default();
        profile.record(500, 1.0);
        assert_eq!((profile.step_time(), profile.prefill_time()), (None, Some(0.002)));
    }
}
