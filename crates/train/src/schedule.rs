//! The learning rate over time.

use serde::{Deserialize, Serialize};

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Along half a cosine.
    #[default]
    Cosine,
    /// Along a line.
    Linear,
    /// Not at all.
    Constant,
}

/// A learning rate for every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The rate after the warm-up.
    pub peak: f64,
    /// The share of it that is left in the end.
    pub floor: f64,
    /// Steps of the warm-up.
    pub warmup_steps: usize,
    /// Steps in all.
    pub total_steps: usize,
    /// How the rate falls.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of a step, counted from 1. As in transformers, the first step of a warm-up of `n` has `0/n` of the peak;
    /// here `1/(n + 1)`, so that it is not wasted.
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
