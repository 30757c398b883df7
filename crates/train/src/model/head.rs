//! The output projection over the rows that predict a target, forward and backward.

use std::ops::Range;

use wsd_nn::kernels::dense::{Matrix, Output};
use wsd_nn::kernels::elementwise::{exponentials, log_sum_exp};

use super::buffer::sized;
use super::decoder::Decoder;
use super::logits::uncap;
use crate::objectives::Needs;

/// The buffers of the output projection; one row per target.
#[derive(Default)]
pub(super) struct Head {
    /// Per target, the row of the shard that predicts it, and its token.
    pub(super) targets: Vec<(usize, u32)>,
    states: Vec<f32>,
    normed: Vec<f32>,
    /// The normed states in the space of a factored head, `(targets, rank)`.
    narrow: Vec<f32>,
    /// Logits `(targets, vocabulary)`; log-probabilities where the loss needs whole rows; rewards,
    /// `(targets, 1)`. After [`Head::pull_back`], the gradient with respect to the logits.
    logits: Vec<f32>,
    /// The numbers that were computed last.
    needs: Option<Needs>,
    log_sums: Vec<f32>,
    logprobs: Vec<f32>,
    /// The gradient with respect to the rows of the last layer's output.
    pub(super) state_gradients: Vec<f32>,
}

impl Head {
    /// Computes the numbers that a loss needs.
    pub(super) fn forward(&mut self, decoder: &Decoder, weights: &[f32], last: &[f32], needs: Needs) {
        let (hidden, targets) = (decoder.blueprint.hidden, self.targets.len());
        let projection = decoder.projection(needs);
        self.needs = Some(needs);
        self.states.clear();
        for (row, _) in &self.targets {
            self.states.extend_from_slice(&last[row * hidden..(row + 1) * hidden]);
        }
        let normed = sized(&mut self.normed, targets * hidden);
        decoder.norm(weights, &decoder.final_norm).forward(&self.states, normed);
        let table = projection.table(weights, decoder);
        let states = match &projection.factor {
            Some(factor) => {
                let narrow = sized(&mut self.narrow, targets * table.inputs);
                factor.narrow(weights, normed, narrow);
                narrow
            }
            None => normed,
        };
        let logits = sized(&mut self.logits, targets * projection.outputs);
        table.multiply(states, logits);
        if let Some(kept) = projection.kept() {
            kept.logits(weights, table.scale, &self.normed, logits);
        }
        table.limit(decoder.simd, logits);
        if needs != Needs::Rewards {
            self.normalize(decoder, needs.rows());
        }
    }

    /// Computes the targets' log-probabilities from the logits and, for `rows`, replaces these by
    /// log-probabilities.
    fn normalize(&mut self, decoder: &Decoder, rows: bool) {
        self.log_sums.clear();
        self.logprobs.clear();
        for (row, (_, target)) in self.logits.chunks_exact_mut(decoder.blueprint.vocab).zip(&self.targets) {
            let mut log_sum = [0.0];
            log_sum_exp(decoder.simd, row, &mut log_sum);
            self.log_sums.push(log_sum[0]);
            self.logprobs.push(row[*target as usize] - log_sum[0]);
            if rows {
                row.iter_mut().for_each(|logit| *logit -= log_sum[0]);
            }
        }
    }

    /// The numbers of some targets: whole rows for a `width` above 1.
    pub(super) fn logprobs(&self, targets: Range<usize>, width: usize) -> &[f32] {
        let is_single = self.needs.is_some_and(|needs| !needs.rows() && needs != Needs::Rewards);
        let from = if is_single { &self.logprobs } else { &self.logits };
        &from[targets.start * width..targets.end * width]
    }

    /// Gives away the rows of log-probabilities.
    pub(super) fn take_rows(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.logits)
    }

    /// Replaces the logits of some targets by the gradient with respect to them, given that with
    /// respect to the log-probabilities that [`Head::logprobs`] returned.
    pub(super) fn pull_back(&mut self, decoder: &Decoder, targets: Range<usize>, given: &[f32]) {
        let vocab = decoder.blueprint.vocab;
        if self.needs == Some(Needs::Rewards) {
            self.logits[targets].copy_from_slice(given);
            return;
        }
        let is_normalized = self.needs.is_some_and(Needs::rows);
        for target in targets.clone() {
            let row = &mut self.logits[target * vocab..(target + 1) * vocab];
            let log_sum = self.log_sums[target];
            let own = target - targets.start;
            if is_normalized {
                row_gradients(decoder, row, log_sum, &given[own * vocab..(own + 1) * vocab]);
            } else {
                logit_gradients(decoder, row, log_sum, (self.targets[target].1 as usize, given[own]));
            }
        }
    }

    /// From the gradient with respect to the logits to that with respect to the states; adds those
    /// of the projection and the norm to `gradient`.
    pub(super) fn backward(&mut self, decoder: &Decoder, weights: &[f32], gradient: &mut [f32]) {
        let projection = decoder.projection(self.needs.unwrap_or(Needs::Targets));
        let (hidden, targets) = (decoder.blueprint.hidden, self.targets.len());
        let table = projection.table(weights, decoder);
        if projection.trained {
            let logits = Matrix::dense(&self.logits, projection.outputs).transposed();
            let states = if projection.factor.is_some() { &self.narrow } else { &self.normed };
            let to = Output::add(&mut gradient[projection.matrix.clone()], table.inputs);
            table.precision.multiply(table.scale, logits, Matrix::dense(states, table.inputs), to);
        }
        let output = match &projection.factor {
            Some(factor) => {
                table.backward(&self.logits, &mut self.narrow);
                factor.add_gradient(gradient, &self.normed, &self.narrow);
                let mut output = vec![0.0; targets * hidden];
                factor.widen(weights, &self.narrow, &mut output);
                if let Some(kept) = factor.kept() {
                    let given = (&*self.normed, &*self.logits);
                    kept.logits_backward((weights, gradient), table.scale, given, &mut output);
                }
                self.normed = output;
                &mut self.normed
            }
            None => {
                let output = sized(&mut self.normed, targets * hidden);
                table.backward(&self.logits, output);
                output
            }
        };
        let state_gradients = sized(&mut self.state_gradients, targets * hidden);
        state_gradients.fill(0.0);
        decoder.norm(weights, &decoder.final_norm).backward(&self.states, output, gradient, state_gradients);
    }
}

/// From the gradient `given` with respect to a target's log-probability to that with respect to the
/// logits, `given * (one at the target - softmax)`, in the place of these.
fn logit_gradients(decoder: &Decoder, row: &mut [f32], log_sum: f32, (target, given): (usize, f32)) {
    if given == 0.0 {
        row.fill(0.0);
        return;
    }
    let cap = decoder.blueprint.final_softcap;
    let capped = cap.map(|_| row.to_vec());
    exponentials(decoder.simd, row, log_sum);
    row.iter_mut().for_each(|value| *value *= -given);
    row[target] += given;
    if let (Some(cap), Some(capped)) = (cap, capped) {
        uncap(row, cap, capped.into_iter());
    }
}

/// From the gradient `given` with respect to a row of log-probabilities to that with respect to the
/// logits, `given - softmax * sum(given)`, in the place of the log-probabilities.
fn row_gradients(decoder: &Decoder, row: &mut [f32], log_sum: f32, given: &[f32]) {
    let capped = decoder.blueprint.final_softcap.map(|cap| (cap, row.to_vec()));
    let total = given.iter().copied().map(f64::from).sum::<f64>() as f32;
    exponentials(decoder.simd, row, 0.0);
    row.iter_mut().zip(given).for_each(|(value, given)| *value = given - *value * total);
    if let Some((cap, logprobs)) = capped {
        uncap(row, cap, logprobs.into_iter().map(|logprob| logprob + log_sum));
    }
}
