//! Chosen and rejected answers: the quantities that several objectives share.

use super::{LossInput, LossOutput, Measure};

/// The log-probabilities of a chosen answer, at index 0, and of a rejected one, at index 1.
pub(super) struct Sides {
    /// The sums over the targets.
    pub(super) sums: [f64; 2],
    /// The sums minus those under the reference model; 0 where there is no reference.
    pub(super) ratios: [f64; 2],
    /// The numbers of targets, at least 1.
    pub(super) counts: [f64; 2],
}

impl Sides {
    pub(super) fn of(input: &LossInput<'_>) -> Self {
        let (all, example) = (input.sums(), input.example);
        let sums = [0, 1].map(|side| all.get(side).copied().unwrap_or_default());
        let ratio = |side: usize| sums[side] - example.reference.get(side).copied().unwrap_or(sums[side]);
        let count = |side: usize| example.sequences.get(side).map_or(0, |sequence| sequence.targets()).max(1) as f64;
        Self { sums, ratios: [0, 1].map(ratio), counts: [0, 1].map(count) }
    }

    /// The means over the targets.
    pub(super) fn means(&self) -> [f64; 2] {
        [0, 1].map(|side| self.sums[side] / self.counts[side])
    }
}

/// The loss of one preference.
pub(super) struct PreferenceLoss {
    /// The loss without the next-token term.
    pub(super) loss: f64,
    /// Derivatives of that loss with respect to [`Sides::sums`].
    pub(super) slopes: [f64; 2],
    /// The implicit rewards, to report.
    pub(super) rewards: [f64; 2],
    /// The log-probabilities to report: sums, or means for a loss of means.
    pub(super) logps: [f64; 2],
    /// The weight of the next-token loss of the chosen answer.
    pub(super) nll_weight: f64,
}

impl PreferenceLoss {
    /// The measures, named as by TRL, and the gradient.
    pub(super) fn output(&self, input: &LossInput<'_>, sides: &Sides) -> LossOutput {
        let ([chosen, rejected], totals) = (self.rewards, input.totals);
        let one = |name, sum| Measure { name, sum, weight: 1.0 };
        let mut measures = vec![
            one("loss", self.loss),
            one("rewards/chosen", chosen),
            one("rewards/rejected", rejected),
            one("rewards/margins", chosen - rejected),
            one("rewards/accuracies", f64::from(u8::from(chosen > rejected))),
            one("logps/chosen", self.logps[0]),
            one("logps/rejected", self.logps[1]),
        ];
        let targets = input.example.targets();
        if self.nll_weight > 0.0 {
            // The mean over examples of this sum is the mean over targets of the next-token loss.
            measures[0].sum -= self.nll_weight * sides.sums[0] * totals.examples / totals.targets;
            measures.push(Measure { name: "nll_loss", sum: -sides.sums[0], weight: targets as f64 });
        }
        let [chosen, rejected] = self.slopes.map(|slope| slope / totals.examples);
        let mut logprob_gradients = vec![rejected as f32; input.logprobs.len()];
        logprob_gradients[..targets].fill((chosen - self.nll_weight / totals.targets) as f32);
        LossOutput { measures, logprob_gradients }
    }
}

/// `-log sigmoid(margin)` with a share `smoothing` of pairs in the wrong order, and its derivative.
pub(super) fn logistic(margin: f64, smoothing: f64) -> (f64, f64) {
    let loss = -(1.0 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin);
    // d/dm of -log sigmoid(m) is -sigmoid(-m).
    (loss, -(1.0 - smoothing) * sigmoid(-margin) + smoothing * sigmoid(margin))
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}
