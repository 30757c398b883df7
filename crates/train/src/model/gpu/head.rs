//! The output projection over the rows that predict a target, forward and backward.

use wsd_nn::gpu::{Arithmetic, Array, Logits, Matrix, Operand, Output, View};

use super::run::Run;
use crate::error::Result;
use crate::objectives::Needs;

/// The buffers of the output projection; one row per target.
#[derive(Default)]
pub(super) struct Head {
    /// The rows of the shard that predict targets.
    rows: Array<i32>,
    tokens: Array<i32>,
    states: Array<f32>,
    normed: Array<f32>,
    operands: Array<Operand>,
    logits: Array<f32>,
    log_sums: Array<f32>,
    logprobs: Array<f32>,
    /// The gradient with respect to the numbers.
    given: Array<f32>,
    logit_gradients: Array<Operand>,
    targets: usize,
    /// The numbers that were computed last, on the host.
    pub(super) numbers: Vec<f32>,
    needs: Option<Needs>,
}

impl Head {
    /// Computes the numbers that a loss needs; `last` is the output of the last layer.
    pub(super) fn forward(
        &mut self,
        run: Run<'_>,
        targets: &[(usize, u32)],
        last: View<'_, f32>,
        (needs, needs_gradient): (Needs, bool),
    ) -> Result<()> {
        let (arithmetic, hidden) = (run.arithmetic, run.decoder.blueprint.hidden);
        let projection = run.decoder.projection(needs);
        (self.needs, self.targets) = (Some(needs), targets.len());
        let width = if needs.rows() { projection.outputs } else { 1 };
        self.numbers.resize(self.targets * width, 0.0);
        if targets.is_empty() {
            return Ok(());
        }
        let (rows, tokens): (Vec<i32>, Vec<i32>) =
            targets.iter().map(|(row, token)| (*row as i32, *token as i32)).unzip();
        let rows = arithmetic.upload(&mut self.rows, &rows)?;
        arithmetic.upload(&mut self.tokens, &tokens)?;
        let states = arithmetic.sized(&mut self.states, self.targets * hidden)?;
        arithmetic.take_rows(last, rows, states)?;
        let normed = arithmetic.sized(&mut self.normed, self.targets * hidden)?;
        run.norm(&run.decoder.final_norm, (states, normed), None)?;
        let operands = arithmetic.sized(&mut self.operands, self.targets * hidden)?;
        arithmetic.narrow(normed, operands)?;
        let logits = arithmetic.sized(&mut self.logits, self.targets * projection.outputs)?;
        let table = Matrix::dense(run.weights.matrix(&projection.matrix), hidden).transposed();
        let to = Output::set(logits, projection.outputs);
        arithmetic.multiply(projection.scale, Matrix::dense(operands, hidden), table, to)?;
        if needs_gradient {
            arithmetic.sized(&mut self.given, self.targets * width)?;
        }
        if needs == Needs::Rewards {
            return Ok(logits.read(&mut self.numbers)?);
        }
        arithmetic.sized(&mut self.log_sums, self.targets)?;
        arithmetic.sized(&mut self.logprobs, self.targets)?;
        let logprobs = self.logprobs.view().part(0..self.targets);
        arithmetic.logprobs(&self.logits(run, needs), logprobs)?;
        let numbers = if needs.rows() { self.logits.view() } else { logprobs };
        Ok(numbers.read(&mut self.numbers)?)
    }

    /// Takes the gradient with respect to the numbers from `start` on.
    pub(super) fn give(&mut self, arithmetic: &Arithmetic, start: usize, given: &[f32]) -> Result<()> {
        Ok(arithmetic.write(self.given.view().skip(start), given)?)
    }

    /// Sets `to` to the gradient of the last layer's output, and adds those of the projection and the
    /// norm.
    pub(super) fn backward(&mut self, run: Run<'_>, to: View<'_, f32>) -> Result<()> {
        let (arithmetic, hidden) = (run.arithmetic, run.decoder.blueprint.hidden);
        arithmetic.zero(to)?;
        let Some(needs) = self.needs.filter(|_| self.targets > 0) else { return Ok(()) };
        let projection = run.decoder.projection(needs);
        let given = self.given.view();
        let mut array = std::mem::take(&mut self.logit_gradients);
        let gradients = arithmetic.sized(&mut array, self.targets * projection.outputs)?;
        match needs {
            Needs::Rewards => arithmetic.narrow(given.part(0..self.targets), gradients)?,
            _ => arithmetic.logprobs_backward(&self.logits(run, needs), given, gradients)?,
        }
        let (all, gradients) = (0..self.targets * hidden, Matrix::dense(gradients, projection.outputs));
        if projection.trained {
            let states = Matrix::dense(self.operands.view().part(all.clone()), hidden);
            let to = Output::add(run.gradient.part(projection.matrix.clone()), hidden);
            arithmetic.multiply(projection.scale, gradients.transposed(), states, to)?;
        }
        let table = Matrix::dense(run.weights.matrix(&projection.matrix), hidden);
        let [normed, states] = [&self.normed, &self.states].map(|array| array.view().part(all.clone()));
        arithmetic.multiply(projection.scale, gradients, table, Output::set(normed, hidden))?;
        run.norm_backward(&run.decoder.final_norm, states, (normed, normed, false), None)?;
        arithmetic.put_rows(normed, self.rows.view().part(0..self.targets), to)?;
        self.logit_gradients = array;
        Ok(())
    }

    /// The logits with their targets.
    fn logits(&self, run: Run<'_>, needs: Needs) -> Logits<'_> {
        let projection = run.decoder.projection(needs);
        Logits {
            values: self.logits.view().part(0..self.targets * projection.outputs),
            targets: self.tokens.view().part(0..self.targets),
            log_sums: self.log_sums.view().part(0..self.targets),
            is_rows: needs.rows(),
            cap: projection.cap,
        }
    }
}
