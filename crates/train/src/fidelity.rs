//! Distance of a model from another of the same vocabulary on texts.

use serde::Serialize;

use crate::error::Result;
use crate::example::Example;
use crate::metrics::Means;
use crate::model::{Pass, TrainableModel};
use crate::objectives::{Loss, LossInput, LossOutput, Measure, Needs, Totals};

/// The means of a model and of its original over tokens of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Fidelity {
    /// The perplexity of the model.
    pub perplexity: f64,
    /// The perplexity of the original.
    pub original: f64,
    /// The Kullback-Leibler divergence from the original to the model, in nats per token.
    pub divergence: f64,
}

/// Examples of a pass.
const PASS: usize = 32;

/// Measures a model of `weights` beside its original of weights `reference`, which may be of another
/// blueprint ([`TrainableModel::with_teacher`]). Calls `on_pass` with the number of further examples
/// that are measured.
///
/// # Errors
/// Those of [`TrainableModel::pass`].
pub fn fidelity(
    model: &mut TrainableModel,
    [weights, reference]: [&[f32]; 2],
    examples: &[Example],
    mut on_pass: impl FnMut(usize),
) -> Result<Fidelity> {
    let examples: Vec<_> = examples.iter().collect();
    let (totals, needs, loss) = (Totals::of(&examples), Needs::RowsAndReference, &Closeness);
    let mut means = Means::default();
    for examples in examples.chunks(PASS) {
        let pass = Pass { weights, parameters: &[], reference, examples, totals, loss, needs, weight: 1.0 };
        means.add(&model.pass(&pass, None)?);
        on_pass(examples.len());
    }
    let mean = |name| means.get(name).unwrap_or_default();
    Ok(Fidelity { perplexity: mean("own").exp(), original: mean("original").exp(), divergence: mean("divergence") })
}

/// A pseudo-loss of the rows of both models.
struct Closeness;

impl Loss for Closeness {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let width = input.width.max(1);
        let rows = input.logprobs.chunks_exact(width).zip(input.reference.chunks_exact(width));
        let (mut own_sum, mut original, mut divergence, mut tokens) = (0.0, 0.0, 0.0, 0.0);
        for ((own, reference), target) in rows.zip(input.targets()) {
            own_sum -= f64::from(own[target as usize]);
            original -= f64::from(reference[target as usize]);
            let term = |(own, reference): (&f32, &f32)| f64::from(*reference).exp() * f64::from(reference - own);
            divergence += own.iter().zip(reference).map(term).sum::<f64>();
            tokens += 1.0;
        }
        let mean = |name, sum| Measure { name, sum, weight: tokens };
        let measures = vec![mean("own", own_sum), mean("original", original), mean("divergence", divergence)];
        LossOutput { measures, ..LossOutput::default() }
    }
}
