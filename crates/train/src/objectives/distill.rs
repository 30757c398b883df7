//! Distillation from the frozen start model: keeps the answers' distributions where they were.
//!
//! On answers that the start model itself has written it is ARBooth's prior distillation (arXiv
//! 2504.02612, weight 0.5), on the data of another objective the self-regularization of OrthSR
//! (arXiv 2407.08374).

use wsd_core::{Setting, Values};

use super::{Loss, LossInput, LossOutput, Measure, Needs, Objective, TargetTokens, Weight};

static DIVERGENCE: Setting = Setting::choice(
    "divergence",
    "Distance from the start model's distributions",
    &[
        ("kl", "Kullback-Leibler divergence from the start model to the trained one"),
        ("hard", "Cross-entropy of the token that the start model finds most likely"),
        ("l1", "Sum of the absolute differences of probabilities"),
    ],
);

pub(super) static OBJECTIVE: Objective = Objective {
    name: "distill",
    about: "Stay close to the start model's distributions on answers",
    targets: TargetTokens::Answers,
    settings: &[&DIVERGENCE],
    needs: Needs::RowsAndReference,
    weight: Weight::ONE,
    make,
};

fn make(values: &Values) -> Box<dyn Loss> {
    Box::new(Distill {
        divergence: match values.get::<&str>(&DIVERGENCE) {
            "hard" => hard,
            "l1" => absolute,
            _ => kullback_leibler,
        },
    })
}

/// A divergence of a row of log-probabilities from those of the reference model: adds its gradient,
/// scaled, to the last argument and returns its value.
type Divergence = fn((&[f32], &[f32]), f64, &mut [f32]) -> f64;

/// The mean of a divergence over the targets of the step.
struct Distill {
    divergence: Divergence,
}

impl Loss for Distill {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let (width, scale) = (input.width.max(1), 1.0 / input.totals.targets);
        let mut logprob_gradients = vec![0.0; input.logprobs.len()];
        let rows = input.logprobs.chunks_exact(width).zip(input.reference.chunks_exact(width));
        let rows = rows.zip(logprob_gradients.chunks_exact_mut(width));
        let loss = rows.map(|(row, gradient)| (self.divergence)(row, scale, gradient)).sum();
        let targets = input.logprobs.len() / width;
        LossOutput { measures: vec![Measure { name: "loss", sum: loss, weight: targets as f64 }], logprob_gradients }
    }
}

/// `sum over the vocabulary of q * (log q - log p)` for the reference's `q` and the model's `p`
/// (Hinton et al. 2015, arXiv 1503.02531, at temperature 1). Its gradient with respect to `log p`
/// is `-q`.
fn kullback_leibler((own, reference): (&[f32], &[f32]), scale: f64, gradient: &mut [f32]) -> f64 {
    let mut sum = 0.0;
    for ((own, reference), gradient) in own.iter().zip(reference).zip(gradient) {
        let probability = f64::from(*reference).exp();
        sum += probability * f64::from(reference - own);
        *gradient = (-probability * scale) as f32;
    }
    sum
}

/// `-log p` of the reference's likeliest token, the first of several.
fn hard((own, reference): (&[f32], &[f32]), scale: f64, gradient: &mut [f32]) -> f64 {
    let mut best = 0;
    for (index, value) in reference.iter().enumerate() {
        if *value > reference[best] {
            best = index;
        }
    }
    gradient[best] = -scale as f32;
    -f64::from(own[best])
}

/// `sum over the vocabulary of |p - q|`, twice the total variation. Its gradient with respect to
/// `log p` is `sign(p - q) * p`.
fn absolute((own, reference): (&[f32], &[f32]), scale: f64, gradient: &mut [f32]) -> f64 {
    let mut sum = 0.0;
    for ((own, reference), gradient) in own.iter().zip(reference).zip(gradient) {
        let (own, reference) = (f64::from(*own).exp(), f64::from(*reference).exp());
        sum += (own - reference).abs();
        let sign = f64::from(u8::from(own > reference)) - f64::from(u8::from(own < reference));
        *gradient = (sign * own * scale) as f32;
    }
    sum
}
