//! Muon: momentum of a matrix, orthogonalized by Newton-Schulz iterations (Jordan et al. 2024,
//! <https://kellerjordan.github.io/posts/muon/>), operation by operation as `torch.optim.Muon` but
//! in single precision.
//!
//! Embeddings, heads, norms and biases are updated by AdamW. With the step of a matrix scaled as by
//! Liu et al. 2025 (arXiv 2502.16982, equation 4), both take the same learning rates.

use rayon::prelude::*;
use wsd_core::{Setting, Values};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use super::adamw::{AdamW, BETA1, BETA2, EPSILON};
use super::{Optimizer, OptimizerEntry, StepInput, WEIGHT_DECAY};
use crate::layout::{Layout, Place};
use crate::matrix::transposed;

static MOMENTUM: Setting =
    Setting::number("momentum", "Decay of the running mean of a matrix's gradients", 0.0..=0.999_999)
        .with_default_number(0.95);
static NESTEROV: Setting = Setting::flag("nesterov", "Look ahead along the running mean", true);
static NS_STEPS: Setting =
    Setting::integer("ns_steps", "Iterations of the orthogonalization", 1..=99).with_default_integer(5);
static ADJUST_LR: Setting = Setting::choice(
    "adjust_lr_fn",
    "Scale of a matrix's step",
    &[
        ("match_rms_adamw", "0.2 times the root of its longer side, so that AdamW's learning rates fit"),
        ("original", "The root of outputs over inputs, at least 1"),
    ],
);

pub(super) static ENTRY: OptimizerEntry = OptimizerEntry {
    name: "muon",
    about: "Orthogonalized momentum of matrices; AdamW for embeddings, heads and vectors",
    settings: &[&WEIGHT_DECAY, &MOMENTUM, &NESTEROV, &NS_STEPS, &ADJUST_LR, &BETA1, &BETA2, &EPSILON],
    needs_start: false,
    make,
};

fn make(layout: &Layout, values: &Values) -> Box<dyn Optimizer> {
    Box::new(Muon {
        adam: AdamW::new(layout, values),
        weight_decay: values.get(&WEIGHT_DECAY),
        momentum: values.get(&MOMENTUM),
        nesterov: values.get(&NESTEROV),
        iterations: values.get(&NS_STEPS),
        matches_adamw: values.get::<&str>(&ADJUST_LR) == "match_rms_adamw",
    })
}

/// The coefficients of the iteration `a x + (b g + c g g) x` with `g = x x^T`.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// The least norm that a momentum is divided by.
const LEAST_NORM: f64 = 1e-7;
/// Modules whose matrices AdamW updates.
const BY_ADAMW: [&str; 3] = ["embed_tokens.weight", "lm_head.weight", "score.weight"];

struct Muon {
    /// Its first moment holds the momentum of the matrices.
    adam: AdamW,
    weight_decay: f64,
    momentum: f32,
    nesterov: bool,
    iterations: usize,
    matches_adamw: bool,
}

/// Tells whether a tensor's momentum is orthogonalized.
fn is_hidden(place: &Place) -> bool {
    place.is_matrix() && !BY_ADAMW.iter().any(|name| place.name.ends_with(name))
}

impl Muon {
    /// The factor on the learning rate for a matrix of this shape.
    fn scale(&self, shape: &[usize]) -> f64 {
        let [outputs, inputs] = [0, 1].map(|side| shape.get(side).copied().unwrap_or(1).max(1) as f64);
        if self.matches_adamw { 0.2 * outputs.max(inputs).sqrt() } else { (outputs / inputs).max(1.0).sqrt() }
    }

    /// Takes the gradient of a matrix into its momentum and returns the direction of the step.
    fn direction(&mut self, place: &Place, gradient: &[f32]) -> Vec<f32> {
        let momentum = &mut self.adam.first_moment[place.range.clone()];
        let (keep, ahead) = (self.momentum, if self.nesterov { self.momentum } else { 1.0 });
        let step = |(momentum, gradient): (&mut f32, &f32)| {
            *momentum += (gradient - *momentum) * (1.0 - keep);
            gradient + (*momentum - gradient) * ahead
        };
        momentum.iter_mut().zip(&gradient[place.range.clone()]).map(step).collect()
    }
}

impl Optimizer for Muon {
    fn state(&mut self) -> Vec<(&'static str, &mut [f32])> {
        self.adam.state()
    }

    fn step(&mut self, input: StepInput<'_>) {
        let hidden: Vec<&Place> = input.layout.places().iter().filter(|place| is_hidden(place)).collect();
        let directions: Vec<_> = hidden.iter().map(|place| self.direction(place, input.gradient)).collect();
        let iterations = self.iterations;
        let orthogonal =
            |(place, direction): (&&Place, Vec<f32>)| orthogonalized(&direction, place.shape[1], iterations);
        let directions: Vec<_> = hidden.par_iter().zip(directions).map(orthogonal).collect();
        let keep = (1.0 - input.learning_rate * self.weight_decay) as f32;
        for (place, direction) in hidden.iter().zip(directions) {
            let rate = (input.learning_rate * self.scale(&place.shape)) as f32;
            let parameters = input.parameters[place.range.clone()].iter_mut();
            parameters.zip(direction).for_each(|(parameter, step)| *parameter = *parameter * keep - rate * step);
        }
        self.adam.step_where(input, |place| !is_hidden(place));
    }
}

/// A matrix with the singular vectors of `matrix` and singular values near 1.
fn orthogonalized(matrix: &[f32], columns: usize, iterations: usize) -> Vec<f32> {
    let rows = matrix.len() / columns.max(1);
    let is_tall = rows > columns;
    let (short, long) = (rows.min(columns), rows.max(columns));
    let mut x = if is_tall { transposed(matrix, columns) } else { matrix.to_vec() };
    let norm = x.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(LEAST_NORM);
    x.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    let [a, b, c] = COEFFICIENTS;
    let (mut gram, mut next) = (vec![0.0; short * short], vec![0.0; x.len()]);
    for _ in 0..iterations {
        let whole = Matrix::dense(&x, long);
        multiply(1.0, whole, whole.transposed(), Output::set(&mut gram, short));
        let mut update: Vec<f32> = gram.iter().map(|value| b * value).collect();
        let square = Matrix::dense(&gram, short);
        multiply(c, square, square, Output::add(&mut update, short));
        next.iter_mut().zip(&x).for_each(|(next, x)| *next = a * x);
        multiply(1.0, Matrix::dense(&update, short), whole, Output::add(&mut next, long));
        std::mem::swap(&mut x, &mut next);
    }
    if is_tall { transposed(&x, rows) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_values_come_near_one() {
        // Of diagonal matrices the values are on the diagonal.
        let mut matrix = vec![0.0; 12];
        (matrix[0], matrix[5], matrix[10]) = (3.0, -0.5, 0.2);
        for (matrix, columns) in [(matrix.clone(), 4), (transposed(&matrix, 4), 3)] {
            let found = orthogonalized(&matrix, columns, 5);
            for at in 0..3 {
                let (value, sign) = (found[at * columns + at], if at == 1 { -1.0 } else { 1.0 });
                assert!((0.6..1.3).contains(&(value * sign)), "{found:?}");
            }
            assert!(found.iter().filter(|value| value.abs() > 1e-5).count() == 3);
        }
    }

    #[test]
    fn embeddings_heads_and_vectors_are_adamws() {
        let tensors =
            [("model.embed_tokens.weight", vec![2, 2]), ("lm_head.weight", vec![2, 2]), ("norm.weight", vec![4])];
        let layout = Layout::of(tensors.map(|(name, shape)| (name.to_owned(), shape)).to_vec());
        let values = Values::default().with(&WEIGHT_DECAY, 0.1).unwrap();
        let run = |mut optimizer: Box<dyn Optimizer>| {
            let mut parameters = [1.0f32; 12];
            for step in 1..4 {
                let gradient: Vec<f32> = (0..12).map(|at| ((at + step) as f32).sin()).collect();
                let (parameters, layout) = (&mut parameters[..], &layout);
                optimizer.step(StepInput {
                    parameters,
                    gradient: &gradient,
                    start: &[],
                    layout,
                    learning_rate: 0.1,
                    step,
                });
            }
            parameters
        };
        assert_eq!(run(make(&layout, &values)), run(Box::new(AdamW::new(&layout, &values))));
    }
}
