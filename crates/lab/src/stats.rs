//! Statistics of samples: means, quantiles, bootstrap intervals.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// Number of bootstrap resamples.
const ROUNDS: usize = 2000;

/// A statistic with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The point estimate.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The arithmetic mean; `None` if there are no values.
///
/// ```
/// assert_eq!(wsd_lab::stats::mean(&[1.0, 2.0, 6.0]), Some(3.0));
/// ```
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The quantile at `share` in `[0, 1]`, linearly interpolated between order statistics (numpy's
/// default); `None` if there are no values.
///
/// ```
/// assert_eq!(wsd_lab::stats::quantile(&[3.0, 1.0, 4.0, 1.0, 5.0], 0.9), Some(4.6));
/// ```
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

/// The median; `None` if there are no values.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The standard error of the mean; `None` for fewer than two values.
#[must_use]
pub fn standard_error(values: &[f64]) -> Option<f64> {
    let center = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64 / values.len() as f64).sqrt())
}

/// A statistic of groups of values with its percentile bootstrap interval (Efron and Tibshirani, An
/// Introduction to the Bootstrap, chapter 13): each group is resampled from itself with
/// replacement. The random seed is fixed. `None` if there is no group or a group is empty.
#[must_use]
pub fn bootstrap<T: Copy>(groups: &[Vec<T>], statistic: impl Fn(&[Vec<T>]) -> f64) -> Option<Estimate> {
    if groups.is_empty() || groups.iter().any(Vec::is_empty) {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut below = |limit: usize| ((u128::from(rng.next_u64()) * limit as u128) >> 64) as usize;
    let mut drawn = groups.to_vec();
    let statistics: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            for (group, drawn) in groups.iter().zip(&mut drawn) {
                drawn.iter_mut().for_each(|value| *value = group[below(group.len())]);
            }
            statistic(&drawn)
        })
        .collect();
    let end = |share| quantile(&statistics, share);
    Some(Estimate { value: statistic(groups), low: end(0.025)?, high: end(0.975)? })
}

/// The unweighted mean of the groups' means, with its interval; `None` if there is no group or a
/// group is empty.
///
/// ```
/// let estimate = wsd_lab::stats::mean_of_means(&[vec![1.0, 0.0], vec![1.0]]).unwrap();
/// assert_eq!(estimate.value, 0.75);
/// assert!(estimate.low <= estimate.value && estimate.value <= estimate.high);
/// ```
#[must_use]
pub fn mean_of_means(groups: &[Vec<f64>]) -> Option<Estimate> {
    bootstrap(groups, |groups| groups.iter().filter_map(|group| mean(group)).sum::<f64>() / groups.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_equal_numpy() {
        // numpy.quantile([3, 1, 4, 1, 5], [0, .25, .5, .9, 1])
        let values = [3.0, 1.0, 4.0, 1.0, 5.0];
        let got = [0.0, 0.25, 0.5, 0.9, 1.0].map(|share| quantile(&values, share).unwrap());
        assert_eq!(got, [1.0, 1.0, 3.0, 4.6, 5.0]);
        assert_eq!((median(&[]), median(&[2.0]), median(&[1.0, 2.0])), (None, Some(2.0), Some(1.5)));
    }

    #[test]
    fn the_standard_error_equals_a_textbook_example() {
        // The sample standard deviation of 2, 4, 4, 4, 5, 5, 7, 9 is 2.1381.
        let error = standard_error(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert!((error - 2.138_09 / 8_f64.sqrt()).abs() < 1e-5);
        assert_eq!(standard_error(&[1.0]), None);
    }

    #[test]
    fn the_bootstrap_of_a_share_is_near_the_normal_interval() {
        let passes: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i % 4 == 0))).collect();
        let got = mean_of_means(&[passes]).unwrap();
        let half = 1.96 * (0.25_f64 * 0.75 / 400.0).sqrt();
        assert_eq!(got.value, 0.25);
        assert!((got.low - (0.25 - half)).abs() < 0.006 && (got.high - (0.25 + half)).abs() < 0.006, "{got:?}");
    }

    #[test]
    fn groups_have_equal_weight_and_resampling_is_deterministic() {
        let groups = [vec![1.0; 3], vec![0.0; 300]];
        let got = mean_of_means(&groups).unwrap();
        assert_eq!((got.value, got.low, got.high), (0.5, 0.5, 0.5));
        let groups = [vec![1.0, 2.0, 5.0], vec![0.0, 3.0]];
        assert_eq!(mean_of_means(&groups), mean_of_means(&groups));
        assert_eq!(mean_of_means(&[vec![]]), None);
    }
}
