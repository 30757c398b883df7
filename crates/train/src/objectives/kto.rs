//! Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv 2402.01306, equation 8): single
//! answers that are labelled as wanted or not.

use wsd_core::{Setting, Values};

use super::preference::sigmoid;
use super::{Loss, LossInput, LossOutput, Measure, Needs, Objective, TargetTokens, Weight};

static BETA: Setting =
    Setting::positive("beta", "Strength of the pull towards the reference model", 1e6).with_default_number(0.1);
static DESIRABLE_WEIGHT: Setting =
    Setting::number("desirable_weight", "Weight of wanted answers", 0.0..=1e6).with_default_number(1.0);
static UNDESIRABLE_WEIGHT: Setting =
    Setting::number("undesirable_weight", "Weight of unwanted answers", 0.0..=1e6).with_default_number(1.0);

pub(super) static OBJECTIVE: Objective = Objective {
    name: "kto",
    about: "Learn from answers that are labelled as wanted or unwanted",
    targets: TargetTokens::Labelled,
    settings: &[&BETA, &DESIRABLE_WEIGHT, &UNDESIRABLE_WEIGHT],
    needs: Needs::TargetsAndReference,
    weight: Weight::ONE,
    make,
};

fn make(values: &Values) -> Box<dyn Loss> {
    let weights = [values.get(&UNDESIRABLE_WEIGHT), values.get(&DESIRABLE_WEIGHT)];
    Box::new(Kto { beta: values.get(&BETA), weights })
}

struct Kto {
    beta: f64,
    /// The weights of unwanted and of wanted answers.
    weights: [f64; 2],
}

impl Loss for Kto {
    /// `1 - sigmoid(beta * (ratio - z))` for a wanted answer and `1 - sigmoid(beta * (z - ratio))`
    /// for an unwanted one, with `z` the divergence from the start over the step, which is a
    /// constant in the gradient.
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let sum: f64 = input.sums().iter().sum();
        let ratio = sum - input.example.reference.first().copied().unwrap_or(sum);
        let is_wanted = input.example.labels.first().is_some_and(|label| *label > 0.5);
        let (sign, weight) = (if is_wanted { 1.0 } else { -1.0 }, self.weights[usize::from(is_wanted)]);
        let share = sigmoid(sign * self.beta * (ratio - input.totals.divergence));
        let one = |name, sum| Measure { name, sum, weight: 1.0 };
        let (reward, logps) =
            if is_wanted { ("rewards/chosen", "logps/chosen") } else { ("rewards/rejected", "logps/rejected") };
        let measures = vec![
            one("loss", weight * (1.0 - share)),
            one("kl", input.totals.divergence),
            one(reward, self.beta * ratio),
            one(logps, sum),
        ];
        let gradient = -sign * weight * self.beta * share * (1.0 - share) / input.totals.examples;
        LossOutput { measures, logprob_gradients: vec![gradient as f32; input.logprobs.len()] }
    }
}
