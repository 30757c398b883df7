//! AdamW: Loshchilov and Hutter 2019 (arXiv 1711.05101), step by step as `torch.optim.AdamW`.

use rayon::prelude::*;

use super::layout::Layout;
use super::settings::Steps;

/// Weights that a task updates at once.
const CHUNK: usize = 1 << 14;

/// Weights that learn, and what is remembered of their gradients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learner {
    /// The weights.
    pub weights: Vec<f32>,
    /// Running means of gradients.
    pub means: Vec<f32>,
    /// Running means of their squares.
    pub squares: Vec<f32>,
    /// Which weights decay: runs of a length and whether.
    decays: Vec<(usize, bool)>,
}

impl Learner {
    /// Weights that have not learnt yet. Matrices decay; norms and biases do not.
    #[must_use]
    pub fn new(layout: &Layout, weights: Vec<f32>) -> Self {
        let decays = layout.places().iter().map(|place| (place.range.len(), place.is_matrix())).collect();
        let zeros = vec![0.0; weights.len()];
        Self { weights, means: zeros.clone(), squares: zeros, decays }
    }

    /// Change the weights by a gradient; `step` counts from 1. Returns the gradient's norm before clipping.
    pub fn step(&mut self, settings: &Steps, step: usize, rate: f64, gradient: &[f32]) -> f64 {
        let norm = norm(gradient);
        let clip = if settings.max_grad_norm > 0.0 { (settings.max_grad_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let [beta1, beta2] = [settings.adam_beta1, settings.adam_beta2];
        let corrections = [beta1, beta2].map(|beta| 1.0 - beta.powf(step as f64));
        let update = Update {
            clip: clip as f32,
            betas: [beta1 as f32, beta2 as f32],
            step_size: (rate / corrections[0]) as f32,
            root: corrections[1].sqrt() as f32,
            epsilon: settings.adam_epsilon as f32,
        };
        let mut start = 0;
        for &(len, decays) in &self.decays {
            let keep = if decays { 1.0 - rate * settings.weight_decay } else { 1.0 };
            let range = start..start + len;
            start += len;
            let weights = self.weights[range.clone()].par_chunks_mut(CHUNK);
            let means = self.means[range.clone()].par_chunks_mut(CHUNK);
            let squares = self.squares[range.clone()].par_chunks_mut(CHUNK);
            let chunks = weights.zip(means).zip(squares).zip(gradient[range].par_chunks(CHUNK));
            chunks.for_each(|(((weights, means), squares), gradient)| {
                update.apply(weights, [means, squares], gradient, keep as f32);
            });
        }
        norm
    }
}

/// The numbers of one step.
struct Update {
    clip: f32,
    betas: [f32; 2],
    step_size: f32,
    root: f32,
    epsilon: f32,
}

impl Update {
    fn apply(&self, weights: &mut [f32], [means, squares]: [&mut [f32]; 2], gradient: &[f32], keep: f32) {
        let Self { clip, betas: [beta1, beta2], step_size, root, epsilon } = *self;
        let moments = means.iter_mut().zip(squares);
        for ((weight, (mean, square)), gradient) in weights.iter_mut().zip(moments).zip(gradient) {
            let gradient = gradient * clip;
            *mean += (gradient - *mean) * (1.0 - beta1);
            *square = *square * beta2 + gradient * gradient * (1.0 - beta2);
            *weight = *weight * keep - step_size * *mean / (square.sqrt() / root + epsilon);
        }
    }
}

/// The Euclidean norm, in double precision and a fixed order.
fn norm(gradient: &[f32]) -> f64 {
    let square = |chunk: &[f32]| {
        let mut sums = [0.0f64; 8];
        for block in chunk.chunks(8) {
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
        sums.iter().sum::<f64>()
    };
    let sums: Vec<f64> = gradient.par_chunks(CHUNK).map(square).collect();
    sums.iter().sum::<f64>().sqrt()
}
