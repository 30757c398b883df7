//! Learning rate schedules.

use serde::{Deserialize, Serialize};

/// The decay of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Half a period of a cosine.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
    /// No decay.
    Constant,
}

/// A learning rate for every step: a linear warm-up, then a decay.
///
/// ```
/// use wsd_train::{Decay, Schedule};
/// let schedule = Schedule { peak: 1.0, floor: 0.0, warmup_steps: 1, total_steps: 5, decay: Decay::Linear };
/// assert_eq!([1, 2, 3, 4, 5].map(|step| schedule.rate(step)), [0.5, 1.0, 0.75, 0.5, 0.25]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The learning rate after the warm-up.
    pub peak: f64,
    /// The share of the peak that remains at the end, from 0 to 1.
    pub floor: f64,
    /// The number of warm-up steps.
    pub warmup_steps: usize,
    /// The total number of steps.
    pub total_steps: usize,
    /// The decay after the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// Describes a warm-up that lasts as long as the run, or longer.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self { warmup_steps, total_steps, .. } = self;
        (warmup_steps >= total_steps).then(|| {
            let reached = self.rate(*total_steps);
            format!(
                "the warm-up of {warmup_steps} steps is not over when the run of {total_steps} steps ends: the \
                 learning rate reaches {reached:.3e} of `learning_rate` = {:.3e}\n  hint: lower `warmup_steps` or \
                 `warmup_ratio`, or train for more steps",
                self.peak
            )
        })
    }

    /// The learning rate of a step, counted from 1. In transformers the first step of a warm-up of
    /// `n` steps has a rate of 0 and changes nothing; here it has `1 / (n + 1)` of the peak.
    #[must_use]
    pub fn rate(&self, step: usize) -> f64 {
        if step <= self.warmup_steps {
            return self.peak * step as f64 / (self.warmup_steps + 1) as f64;
        }
        let falling = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - 1 - self.warmup_steps) as f64 / falling as f64).min(1.0);
        let left = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Decay::Linear => 1.0 - done,
            Decay::Constant => 1.0,
        };
        self.peak * (self.floor + (1.0 - self.floor) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_beyond_the_run_is_reported() {
        let schedule =
            |warmup_steps| Schedule { peak: 1e-3, floor: 0.0, warmup_steps, total_steps: 20, decay: Decay::Cosine };
        assert_eq!(schedule(19).warning(), None);
        let warning = schedule(99).warning().unwrap();
        assert!(warning.contains("warm-up of 99 steps") && warning.contains("reaches 2.000e-4 of"), "{warning}");
    }

    #[test]
    fn rates_rise_and_fall() {
        let schedule = |decay| Schedule { peak: 1.0, floor: 0.1, warmup_steps: 3, total_steps: 13, decay };
        let rates = |decay| (1..=13).map(|step| schedule(decay).rate(step)).collect::<Vec<_>>();
        for decay in [Decay::Cosine, Decay::Linear, Decay::Constant] {
            let rates = rates(decay);
            assert_eq!(rates[..4], [0.25, 0.5, 0.75, 1.0]);
            assert!(rates[4..].windows(2).all(|pair| pair[1] <= pair[0] && pair[1] >= 0.1));
        }
        assert!((rates(Decay::Cosine)[8] - 0.55).abs() < 1e-12 && (rates(Decay::Linear)[8] - 0.55).abs() < 1e-12);
    }
}
