//! Examples that a thread runs at once: from tokens to log-probabilities, and back to the gradient.

use std::ops::Range;

use super::Model;
use super::layer::{Kept, LayerRun, Room, sized};
use crate::model::{Example, Grade, Graded};
use wsd_nn::kernels::dense::{Matrix, multiply};
use wsd_nn::kernels::elementwise::{NormGradients, exponentials, log_sum_exp, norm, norm_backward};
use wsd_nn::kernels::softcap;

/// A sequence of the shard.
pub(super) struct Text {
    /// Its tokens, as rows of what the shard computes.
    pub(super) rows: Range<usize>,
    /// It is longer than [`wsd_nn::arch::Blueprint::is_long`] allows for short ones.
    pub(super) long: bool,
}

/// What a thread keeps from shard to shard: its sum of gradients, and room.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) gradient: Vec<f32>,
    /// The input of each layer, and the output of the last.
    states: Vec<Vec<f32>>,
    kept: Vec<Kept>,
    room: Room,
    head: Head,
}

/// Rows that predict a learned token.
#[derive(Default)]
struct Head {
    /// The row of the shard, and the token it is to predict.
    targets: Vec<(usize, u32)>,
    states: Vec<f32>,
    normed: Vec<f32>,
    logits: Vec<f32>,
    log_sums: Vec<f32>,
    logprobs: Vec<f32>,
    slopes: Vec<f32>,
}

impl Worker {
    /// Grade the examples and, where the model `learns`, add to the gradient.
    pub(super) fn run(
        &mut self,
        model: &Model,
        weights: &[f32],
        examples: &[&Example],
        grade: &Grade<'_>,
        learns: bool,
    ) -> Vec<Graded> {
        let (tokens, texts) = self.lay_out(model, examples);
        self.forward(model, weights, &tokens, &texts, learns);
        self.head.forward(model, weights, &self.states[model.layers.len()]);
        let graded = self.grade(examples, grade);
        if learns {
            let slopes = self.head_backward(model, weights, &graded, tokens.len());
            self.backward(model, weights, &tokens, &texts, slopes);
        }
        graded
    }

    /// All tokens, the texts they are of, and into the head what is to be predicted.
    fn lay_out(&mut self, model: &Model, examples: &[&Example]) -> (Vec<u32>, Vec<Text>) {
        let (mut tokens, mut texts) = (Vec::new(), Vec::new());
        self.head.targets.clear();
        for sequence in examples.iter().flat_map(|example| &example.sequences) {
            let start = tokens.len();
            tokens.extend_from_slice(&sequence.tokens);
            texts.push(Text { rows: start..tokens.len(), long: model.plan.is_long(sequence.tokens.len()) });
            let target = |position: usize| (start + position - 1, sequence.tokens[position]);
            self.head.targets.extend(sequence.positions().map(target));
        }
        (tokens, texts)
    }

    fn forward(&mut self, model: &Model, weights: &[f32], tokens: &[u32], texts: &[Text], learns: bool) {
        let (hidden, layers) = (model.plan.hidden, model.layers.len());
        self.states.resize_with(layers + 1, Vec::new);
        self.kept.resize_with(if learns && !model.recompute { layers.max(1) } else { 1 }, Kept::default);
        let embedding = &weights[model.embedding.clone()];
        let rows = sized(&mut self.states[0], tokens.len() * hidden).chunks_exact_mut(hidden);
        for (row, token) in rows.zip(tokens) {
            let from = &embedding[*token as usize * hidden..][..hidden];
            row.iter_mut().zip(from).for_each(|(to, from)| *to = from * model.plan.embedding_scale);
        }
        for index in 0..layers {
            let (before, after) = self.states.split_at_mut(index + 1);
            let kept = index % self.kept.len();
            let run = LayerRun { model, index, weights, texts };
            run.forward(&before[index], &mut self.kept[kept], &mut after[0], &mut self.room);
        }
    }

    fn grade(&self, examples: &[&Example], grade: &Grade<'_>) -> Vec<Graded> {
        let mut rest = self.head.logprobs.as_slice();
        let mut grade = |example: &&Example| {
            let mut take = |targets: usize| {
                let (own, others) = rest.split_at(targets);
                rest = others;
                own
            };
            let own: Vec<_> = example.sequences.iter().map(|sequence| take(sequence.targets())).collect();
            grade(example, &own)
        };
        examples.iter().map(&mut grade).collect()
    }

    /// The slopes of the last layer's output.
    fn head_backward(&mut self, model: &Model, weights: &[f32], graded: &[Graded], tokens: usize) -> Vec<f32> {
        let hidden = model.plan.hidden;
        let given: Vec<f32> = graded.iter().flat_map(|graded| graded.slopes.iter().copied()).collect();
        self.head.backward(model, weights, &given, &mut self.gradient);
        let mut slopes = vec![0.0; tokens * hidden];
        for ((row, _), from) in self.head.targets.iter().zip(self.head.slopes.chunks_exact(hidden)) {
            slopes[row * hidden..(row + 1) * hidden].copy_from_slice(from);
        }
        slopes
    }

    fn backward(&mut self, model: &Model, weights: &[f32], tokens: &[u32], texts: &[Text], mut slopes: Vec<f32>) {
        let Self { gradient, states, kept, room, .. } = self;
        for index in (0..model.layers.len()).rev() {
            let run = LayerRun { model, index, weights, texts };
            let own = index % kept.len();
            let (before, after) = states.split_at_mut(index + 1);
            if model.recompute {
                run.forward(&before[index], &mut kept[own], &mut after[0], room);
            }
            run.backward(&before[index], &mut kept[own], gradient, &mut slopes, room);
        }
        if model.trained[0] {
            let (hidden, gradient) = (model.plan.hidden, &mut gradient[model.embedding.clone()]);
            for (token, slopes) in tokens.iter().zip(slopes.chunks_exact(hidden)) {
                let to = gradient[*token as usize * hidden..][..hidden].iter_mut();
                to.zip(slopes).for_each(|(to, slope)| *to += slope * model.plan.embedding_scale);
            }
        }
    }
}

impl Head {
    fn forward(&mut self, model: &Model, weights: &[f32], last: &[f32]) {
        let (plan, rows) = (&model.plan, self.targets.len());
        let (hidden, vocab) = (plan.hidden, plan.vocab);
        self.states.clear();
        for (row, _) in &self.targets {
            self.states.extend_from_slice(&last[row * hidden..(row + 1) * hidden]);
        }
        let normed = sized(&mut self.normed, rows * hidden);
        let weight = &weights[model.final_norm.clone()];
        norm(model.simd, normed, &self.states, weight, plan.norms.offset, plan.norms.eps);
        let head = Matrix::dense(&weights[model.head.clone()], hidden).transposed();
        let logits = sized(&mut self.logits, rows * vocab);
        multiply(1.0, Matrix::dense(normed, hidden), head, 0.0, logits, vocab);
        if let Some(cap) = plan.final_softcap {
            softcap(model.simd, logits, cap);
        }
        self.log_sums.clear();
        self.logprobs.clear();
        for (row, (_, target)) in logits.chunks_exact(vocab).zip(&self.targets) {
            let mut log_sum = [0.0];
            log_sum_exp(model.simd, row, &mut log_sum);
            self.log_sums.push(log_sum[0]);
            self.logprobs.push(row[*target as usize] - log_sum[0]);
        }
    }

    /// From the slopes of log-probabilities to those of the rows. Uses up the logits.
    fn backward(&mut self, model: &Model, weights: &[f32], given: &[f32], gradient: &mut [f32]) {
        let (plan, rows) = (&model.plan, self.targets.len());
        let (hidden, vocab) = (plan.hidden, plan.vocab);
        let logits = self.logits.chunks_exact_mut(vocab).zip(&self.log_sums);
        for (((row, log_sum), (_, target)), given) in logits.zip(&self.targets).zip(given) {
            logit_slopes(model, row, *log_sum, *target as usize, *given);
        }
        let logits = Matrix::dense(&self.logits, vocab);
        if model.trained[1] {
            let to = &mut gradient[model.head.clone()];
            multiply(1.0, logits.transposed(), Matrix::dense(&self.normed, hidden), 1.0, to, hidden);
        }
        let head = Matrix::dense(&weights[model.head.clone()], hidden);
        let output = sized(&mut self.normed, rows * hidden);
        multiply(1.0, logits, head, 0.0, output, hidden);
        let slopes = sized(&mut self.slopes, rows * hidden);
        slopes.fill(0.0);
        let mut gradients = NormGradients { output, x: slopes, weight: &mut gradient[model.final_norm.clone()] };
        let weight = &weights[model.final_norm.clone()];
        norm_backward(model.simd, &mut gradients, &self.states, weight, plan.norms.offset, plan.norms.eps);
    }
}

/// From (capped) logits to the slopes of the logits: `given * (one at the target - softmax)`.
fn logit_slopes(model: &Model, row: &mut [f32], log_sum: f32, target: usize, given: f32) {
    if given == 0.0 {
        row.fill(0.0);
        return;
    }
    let cap = model.plan.final_softcap;
    let capped = cap.map(|_| row.to_vec());
    exponentials(model.simd, row, log_sum);
    row.iter_mut().for_each(|value| *value *= -given);
    row[target] += given;
    if let (Some(cap), Some(capped)) = (cap, capped) {
        row.iter_mut().zip(capped).for_each(|(slope, capped)| *slope *= 1.0 - (capped / cap).powi(2));
    }
}
