//! A linear auto-encoder of the rows of a table that learns their directions (arXiv 2106.08181).
//!
//! The loss of a batch is `0.9975 / 5` times the mean of `1 - cos(x, y)` plus `0.0025` times the mean
//! of `(|x - y| + 1e-10)^a` over all values, for rows `x` and their images `y`; `a` falls from 1 to 0.1
//! over the first two thirds of the epochs. The learning rate is halved every four epochs. Three
//! things differ from the paper: encoder and decoder begin at the singular vectors and have no
//! biases, which a softmax over a tied head would not see; each row keeps its length, which the
//! cosine does not see but logits do; and the epoch of the largest mean cosine is kept, the start
//! included, in place of that of the least perplexity.

use wsd_core::Values;
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use super::svd::svd;
use super::{Factored, Factorization, Table};
use crate::layout::Layout;
use crate::matrix::transposed;
use crate::optimizers::{OPTIMIZERS, StepInput};
use crate::order::Order;

pub(super) static DIRECTION: Factorization = Factorization {
    name: "direction",
    about: "a linear auto-encoder that learns the directions of rows, whose lengths stay (arXiv 2106.08181)",
    needs_texts: false,
    factor: direction,
};

/// Rows of a step.
const BATCH: usize = 32;
const LEARNING_RATE: f64 = 1e-3;
/// Epochs after which the learning rate is halved.
const HALVING: usize = 4;
/// The factors of the two parts of the loss.
const COSINE: f64 = 0.9975 / 5.0;
const NORM: f64 = 0.0025;

/// Encoder `(width, rank)` and decoder `(rank, width)`, one after the other.
struct Coder<'a> {
    table: &'a Table<'a>,
    parameters: Vec<f32>,
}

impl Coder<'_> {
    fn split(&self) -> (Matrix<'_>, Matrix<'_>) {
        let Table { width, rank, .. } = *self.table;
        let (encoder, decoder) = self.parameters.split_at(width * rank);
        (Matrix::dense(encoder, rank), Matrix::dense(decoder, width))
    }

    /// The codes of rows, `(rows, rank)`, and their images, `(rows, width)`.
    fn images(&self, rows: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let Table { width, rank, .. } = *self.table;
        let (encoder, decoder) = self.split();
        let (mut codes, mut images) = (vec![0.0; rows.len() / width * rank], vec![0.0; rows.len()]);
        multiply(1.0, Matrix::dense(rows, width), encoder, Output::set(&mut codes, rank));
        multiply(1.0, Matrix::dense(&codes, rank), decoder, Output::set(&mut images, width));
        (codes, images)
    }

    /// The gradient of the loss of a batch for the exponent `exponent`.
    fn gradient(&self, rows: &[f32], exponent: f64) -> Vec<f32> {
        let Table { width, rank, .. } = *self.table;
        let (codes, mut images) = self.images(rows);
        let scale = [COSINE / (rows.len() / width) as f64, NORM / rows.len() as f64];
        for (row, image) in rows.chunks_exact(width).zip(images.chunks_exact_mut(width)) {
            loss_gradient(row, image, scale, exponent);
        }
        let (encoder_len, (_, decoder)) = (width * rank, self.split());
        let mut gradient = vec![0.0; self.parameters.len()];
        let (of_encoder, of_decoder) = gradient.split_at_mut(encoder_len);
        let images = Matrix::dense(&images, width);
        multiply(1.0, Matrix::dense(&codes, rank).transposed(), images, Output::set(of_decoder, width));
        let mut of_codes = vec![0.0; codes.len()];
        multiply(1.0, images, decoder.transposed(), Output::set(&mut of_codes, rank));
        let (rows, of_codes) = (Matrix::dense(rows, width), Matrix::dense(&of_codes, rank));
        multiply(1.0, rows.transposed(), of_codes, Output::set(of_encoder, rank));
        gradient
    }

    fn mean_cosine(&self) -> f64 {
        let Table { values, width, .. } = *self.table;
        let (_, images) = self.images(values);
        let rows = values.chunks_exact(width).zip(images.chunks_exact(width));
        rows.map(|(row, image)| cosine(row, image)).sum::<f64>() / (values.len() / width).max(1) as f64
    }
}

/// Replaces the image of a row by the gradient of the loss with respect to it.
fn loss_gradient(row: &[f32], image: &mut [f32], [cosine, norm]: [f64; 2], exponent: f64) {
    let [own, other] = [length(row), length(image)].map(|length| length.max(f64::MIN_POSITIVE));
    let product = dot(row, image) / (own * other);
    for (x, y) in row.iter().zip(image) {
        let (from, to) = (f64::from(*x), f64::from(*y));
        let direction = product * to / (other * other) - from / (own * other);
        let difference = to - from;
        let power = exponent * (difference.abs() + 1e-10).powf(exponent - 1.0);
        let sign = f64::from(u8::from(difference > 0.0)) - f64::from(u8::from(difference < 0.0));
        *y = (cosine * direction + norm * power * sign) as f32;
    }
}

fn direction(table: &Table<'_>, report: &mut dyn FnMut(usize, usize)) -> Factored {
    let start = svd(table);
    let Table { values, width, rank, epochs, seed, .. } = *table;
    let mut parameters = start.factor.clone();
    parameters.extend(transposed(&start.factor, rank));
    let mut coder = Coder { table, parameters };
    let (mut best, mut best_cosine) = (coder.parameters.clone(), coder.mean_cosine());
    let layout = Layout::of(vec![("encoder".into(), vec![width, rank]), ("decoder".into(), vec![rank, width])]);
    let mut adam = (OPTIMIZERS[0].make)(&layout, &Values::default());
    let count = values.len() / width;
    let (mut order, mut step) = (Order::new(seed, count), 0);
    // At full rank the start is the table itself.
    for epoch in 0..if rank < width { epochs } else { 0 } {
        let exponent = 1.0 - 0.9 * (1.5 * epoch as f64 / epochs as f64).min(1.0);
        let learning_rate = LEARNING_RATE * 0.5f64.powi((epoch / HALVING) as i32);
        for places in order.take(epoch * count..(epoch + 1) * count).chunks(BATCH) {
            let rows: Vec<f32> = places.iter().flat_map(|place| &values[place * width..][..width]).copied().collect();
            let gradient = coder.gradient(&rows, exponent);
            step += 1;
            let parameters = &mut coder.parameters;
            adam.step(StepInput { parameters, gradient: &gradient, start: &[], layout: &layout, learning_rate, step });
        }
        let cosine = coder.mean_cosine();
        if cosine > best_cosine {
            (best, best_cosine) = (coder.parameters.clone(), cosine);
        }
        report(epoch + 1, epochs);
    }
    coder.parameters = best;
    let (mut rows, images) = coder.images(values);
    for ((code, row), image) in
        rows.chunks_exact_mut(rank).zip(values.chunks_exact(width)).zip(images.chunks_exact(width))
    {
        let factor = length(row) / length(image).max(f64::MIN_POSITIVE);
        code.iter_mut().for_each(|value| *value *= factor as f32);
    }
    Factored::new(rows, transposed(&coder.parameters[width * rank..], width))
}

/// `rows` times the transpose of `factor`, `(width, rank)`.
pub(super) fn product(rows: &[f32], factor: &[f32], width: usize) -> Vec<f32> {
    let rank = factor.len() / width;
    let mut out = vec![0.0; rows.len() / rank * width];
    let factor = Matrix::dense(factor, rank).transposed();
    multiply(1.0, Matrix::dense(rows, rank), factor, Output::set(&mut out, width));
    out
}

/// The cosine of two vectors; 1 if both are zero, 0 if one is.
pub(super) fn cosine(one: &[f32], other: &[f32]) -> f64 {
    match length(one) * length(other) {
        0.0 => f64::from(u8::from(length(one) == length(other))),
        lengths => dot(one, other) / lengths,
    }
}

fn dot(one: &[f32], other: &[f32]) -> f64 {
    one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn length(vector: &[f32]) -> f64 {
    dot(vector, vector).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(row: &[f32], image: &[f32], [cos, norm]: [f64; 2], exponent: f64) -> f64 {
        let powers = row.iter().zip(image).map(|(x, y)| (f64::from(x - y).abs() + 1e-10).powf(exponent));
        cos * (1.0 - cosine(row, image)) + norm * powers.sum::<f64>()
    }

    #[test]
    fn the_gradient_is_the_difference_of_the_loss() {
        let (row, image, scale) = ([0.5f32, -1.0, 2.0], [0.8f32, -0.2, 1.0], [0.7, 0.3]);
        for exponent in [1.0, 0.4] {
            let mut gradient = image;
            loss_gradient(&row, &mut gradient, scale, exponent);
            for at in 0..3 {
                let moved = |by: f32| {
                    let mut moved = image;
                    moved[at] += by;
                    loss(&row, &moved, scale, exponent)
                };
                let difference = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                assert!((difference - f64::from(gradient[at])).abs() < 1e-3, "{exponent}: {difference}");
            }
        }
    }

    /// The cosine does not see the length of a row, and the norm part does.
    #[test]
    fn scaled_rows_have_the_same_cosine() {
        let (row, image) = ([1.0f32, 2.0, -1.0], [0.5f32, 1.5, 0.0]);
        assert!((cosine(&row, &image) - cosine(&row.map(|x| 7.0 * x), &image)).abs() < 1e-9);
        assert_eq!([cosine(&[0.0; 2], &[0.0; 2]), cosine(&[0.0; 2], &[1.0; 2])], [1.0, 0.0]);
    }
}
