//! Distillation from the frozen start model: keeps the answers' distributions where they were.

use wsd_core::Values;

use super::{Loss, LossInput, LossOutput, Measure, Needs, Objective, TargetTokens};

pub(super) static OBJECTIVE: Objective = Objective {
    name: "distill",
    about: "Stay close to the start model's distributions on answers",
    targets: TargetTokens::Answers,
    settings: &[],
    needs: Needs::RowsAndReference,
    make,
};

fn make(_: &Values) -> Box<dyn Loss> {
    Box::new(Distill)
}

/// The forward Kullback-Leibler divergence from the reference's distribution `q` to the model's
/// `p`, `sum over the vocabulary of q * (log q - log p)`, averaged over the targets of the step
/// (Hinton et al. 2015, arXiv 1503.02531, at temperature 1). Its gradient with respect to `log p`
/// is `-q`.
struct Distill;

impl Loss for Distill {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let targets = input.logprobs.len() / input.width.max(1);
        let share = 1.0 / input.totals.targets;
        let mut loss = 0.0;
        let gradient = |(own, reference): (&f32, &f32)| {
            let probability = f64::from(*reference).exp();
            loss += probability * f64::from(reference - own);
            (-probability * share) as f32
        };
        let logprob_gradients = input.logprobs.iter().zip(input.reference).map(gradient).collect();
        LossOutput { measures: vec![Measure { name: "loss", sum: loss, weight: targets as f64 }], logprob_gradients }
    }
}
