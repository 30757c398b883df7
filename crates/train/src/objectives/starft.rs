//! Distance from the start model on prompts with spurious cues: the regularizer of StarFT (arXiv
//! 2505.13232) carried over from image classifiers to answers.

use wsd_core::Values;

use super::{Loss, LossInput, LossOutput, Measure, Needs, Objective, TargetTokens, Weight};

pub(super) static OBJECTIVE: Objective = Objective {
    name: "starft",
    about: "React to irrelevant cues in prompts no more than the start model",
    targets: TargetTokens::Answers,
    settings: &[],
    needs: Needs::RowsAndReference,
    weight: Weight { start: 0.5, end: 0.0 },
    make,
};

fn make(_: &Values) -> Box<dyn Loss> {
    Box::new(StarFt)
}

/// The Kullback-Leibler divergence from the reference's distribution to the model's, both without
/// the target token: `sum over v != target of q'(v) * (log q'(v) - log p'(v))` with `q'` and `p'`
/// normalized over the other tokens. So the target itself may become likelier at no cost.
struct StarFt;

impl Loss for StarFt {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let (width, scale) = (input.width.max(1), 1.0 / input.totals.targets);
        let mut logprob_gradients = vec![0.0; input.logprobs.len()];
        let rows = input.logprobs.chunks_exact(width).zip(input.reference.chunks_exact(width));
        let rows = rows.zip(logprob_gradients.chunks_exact_mut(width)).zip(input.targets());
        let loss = rows.map(|((row, gradient), target)| divergence(row, target as usize, scale, gradient)).sum();
        let targets = input.logprobs.len() / width;
        LossOutput { measures: vec![Measure { name: "loss", sum: loss, weight: targets as f64 }], logprob_gradients }
    }
}

/// The divergence of one row; sets its gradient `p' - q'`, scaled.
fn divergence((own, reference): (&[f32], &[f32]), target: usize, scale: f64, gradient: &mut [f32]) -> f64 {
    let others = |row: &[f32]| {
        let sum = |row: &[f32]| row.iter().map(|value| f64::from(*value).exp()).sum::<f64>();
        (sum(&row[..target]) + sum(&row[target + 1..])).max(f64::MIN_POSITIVE).ln()
    };
    let (own_sum, reference_sum) = (others(own), others(reference));
    let mut sum = 0.0;
    for (index, ((own, reference), gradient)) in own.iter().zip(reference).zip(gradient).enumerate() {
        if index == target {
            continue;
        }
        let (own, reference) = (f64::from(*own) - own_sum, f64::from(*reference) - reference_sum);
        let probability = reference.exp();
        sum += probability * (reference - own);
        *gradient = ((own.exp() - probability) * scale) as f32;
    }
    sum
}
