//! Products with the weights of a layer, forward and backward.

use wsd_nn::gpu::{Array, Matrix, Operand, Output, Rows, View};

use super::run::Run;
use crate::adapters::LowRank;
use crate::error::Result;
use crate::model::places::Linear;

/// Buffers of products.
#[derive(Default)]
pub(super) struct LinearScratch {
    /// The gradient of the output.
    output: Array<Operand>,
    /// Rows of the rank of a change.
    narrow: Array<f32>,
    /// The same, to be multiplied with.
    factor: Array<Operand>,
}

impl Run<'_> {
    /// Sets `out = x * weight^T + bias`.
    pub(super) fn linear(
        &self,
        linear: &Linear,
        x: View<'_, Operand>,
        out: View<'_, f32>,
        scratch: &mut LinearScratch,
    ) -> Result<()> {
        let weight = Matrix::dense(self.weights.matrix(&linear.weight), linear.inputs);
        let x = Matrix::dense(x, linear.inputs);
        self.arithmetic.multiply(1.0, x, weight.transposed(), Output::set(out, linear.outputs))?;
        for (outputs, change) in self.changes(linear) {
            let narrow = self.narrowed(change, x, scratch)?;
            let to = Output::add(out.skip(outputs.start), linear.outputs);
            self.arithmetic.multiply(change.scale, narrow, self.factor(change, false).transposed(), to)?;
        }
        if let Some(bias) = &linear.bias {
            self.arithmetic.add_bias(out, self.weights.vector(bias))?;
        }
        Ok(())
    }

    /// Adds the gradients of what is trained and sets that of the input `x`, given that of the output.
    pub(super) fn linear_backward(
        &self,
        linear: &Linear,
        (x, output): (View<'_, Operand>, View<'_, f32>),
        x_gradient: View<'_, f32>,
        scratch: &mut LinearScratch,
    ) -> Result<()> {
        let arithmetic = self.arithmetic;
        let mut array = std::mem::take(&mut scratch.output);
        let operand = arithmetic.sized(&mut array, output.len())?;
        arithmetic.narrow(output, operand)?;
        let (x, given) = (Matrix::dense(x, linear.inputs), Matrix::dense(operand, linear.outputs));
        if linear.trains_weight {
            let to = Output::add(self.gradient.part(linear.weight.clone()), linear.inputs);
            arithmetic.multiply(1.0, given.transposed(), x, to)?;
        }
        if let Some(bias) = linear.bias.as_ref().filter(|_| linear.trains_bias) {
            let rows = Rows::dense(output.len(), linear.outputs);
            arithmetic.sum_columns(rows, output, None, self.gradient.part(bias.clone()))?;
        }
        let weight = Matrix::dense(self.weights.matrix(&linear.weight), linear.inputs);
        arithmetic.multiply(1.0, given, weight, Output::set(x_gradient, linear.inputs))?;
        for (outputs, change) in self.changes(linear) {
            let own = Matrix::new(operand.skip(outputs.start), self.tokens(), outputs.len(), linear.outputs);
            self.change_backward(change, (x, own), Output::add(x_gradient, linear.inputs), scratch)?;
        }
        scratch.output = array;
        Ok(())
    }

    /// Adds the gradients of the factors of a low-rank change, given inputs `x` and the gradient of the
    /// outputs, and the gradient of the inputs to `to`.
    fn change_backward(
        &self,
        change: &LowRank,
        (x, output): (Matrix<'_>, Matrix<'_>),
        to: Output<'_>,
        scratch: &mut LinearScratch,
    ) -> Result<()> {
        let (arithmetic, LowRank { a, b, rank, scale }) = (self.arithmetic, change);
        let [to_a, to_b] = [a, b].map(|range| self.gradient.part(range.clone()));
        let narrow = self.narrowed(change, x, scratch)?;
        arithmetic.multiply(*scale, output.transposed(), narrow, Output::add(to_b, *rank))?;
        let narrow = self.times(output, (self.factor(change, false), *rank), scratch)?;
        arithmetic.multiply(*scale, narrow.transposed(), x, Output::add(to_a, a.len() / rank))?;
        Ok(arithmetic.multiply(*scale, narrow, self.factor(change, true), to)?)
    }

    /// The low-rank changes of a product.
    fn changes<'l>(&self, linear: &'l Linear) -> &'l [(std::ops::Range<usize>, LowRank)] {
        if self.parameters.is_some() { &linear.changes } else { &[] }
    }

    /// The factor `A`, `(rank, inputs)`, or `B`, `(outputs, rank)`.
    fn factor(&self, change: &LowRank, is_a: bool) -> Matrix<'_> {
        let range = if is_a { &change.a } else { &change.b };
        let columns = if is_a { range.len() / change.rank } else { change.rank };
        Matrix::dense(self.parameters.unwrap_or_default().part(range.clone()), columns)
    }

    /// The inputs of a change in the space of its rank, `x * A^T`.
    fn narrowed<'s>(&self, change: &LowRank, x: Matrix<'_>, scratch: &'s mut LinearScratch) -> Result<Matrix<'s>> {
        self.times(x, (self.factor(change, true).transposed(), change.rank), scratch)
    }

    /// The product of rows with a matrix of `columns`, to be multiplied with.
    fn times<'s>(
        &self,
        rows: Matrix<'_>,
        (matrix, columns): (Matrix<'_>, usize),
        scratch: &'s mut LinearScratch,
    ) -> Result<Matrix<'s>> {
        let narrow = self.sized(&mut scratch.narrow, columns)?;
        self.arithmetic.multiply(1.0, rows, matrix, Output::set(narrow, columns))?;
        let factor = self.sized(&mut scratch.factor, columns)?;
        self.arithmetic.narrow(narrow, factor)?;
        Ok(Matrix::dense(factor, columns))
    }
}
