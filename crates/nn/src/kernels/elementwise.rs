//! Operations on single rows and their derivatives, for training. A gradient is added to the floats
//! that are there, unless its function says that it sets them.

use wsd_core::exp;

use super::activation::normal;
use super::simd::{LANES, Lanes, dispatch, dot};
use crate::activation::Activation;

dispatch! {
    /// Sets `out = x / sqrt(mean(x^2) + eps) * (weight + offset)` for each row of `weight.len()`
    /// floats, from which a centered norm subtracts its mean first.
    pub fn norm(out: &mut [f32], x: &[f32], norm: Norm<'_>) = norm_body
}

dispatch! {
    /// Adds the gradients of [`norm`], given that of its output.
    pub fn norm_backward(gradients: &mut NormGradients<'_>, x: &[f32], norm: Norm<'_>) = norm_backward_body
}

dispatch! {
    /// Sets `out = activation(gate) * up`; a row of `gates` is a gate of `width` floats and then an
    /// up.
    pub fn gate(out: &mut [f32], gates: &[f32], width: usize, activation: Activation) = gate_body
}

dispatch! {
    /// Replaces gates and ups by their gradients, given the gradient of the output of [`gate`].
    pub fn gate_backward(gates: &mut [f32], output: &[f32], width: usize, activation: Activation) = gate_backward_body
}

dispatch! {
    /// Sets `out = activation(x)`.
    pub fn activate(out: &mut [f32], x: &[f32], activation: Activation) = activate_body
}

dispatch! {
    /// Replaces `x` by its gradient, given that of the output of [`activate`].
    pub fn activate_backward(x: &mut [f32], output: &[f32], activation: Activation) = activate_backward_body
}

dispatch! {
    /// Replaces `row` by its softmax and sets `log_sum[0]` to the logarithm of the sum of
    /// exponentials.
    pub fn softmax(row: &mut [f32], log_sum: &mut [f32; 1]) = softmax_body
}

dispatch! {
    /// Replaces `row` by `e^(row - log_sum)`.
    pub fn exponentials(row: &mut [f32], log_sum: f32) = exponentials_body
}

dispatch! {
    /// Sets `log_sum[0]` to the logarithm of the sum of exponentials. Training sums in single
    /// precision, lane by lane, because the row is in single precision and the gradient needs no
    /// more; the engine's log-probabilities, which are compared with a threshold, are summed in
    /// double precision ([`wsd_core::logprob`]).
    pub fn log_sum_exp(row: &[f32], log_sum: &mut [f32; 1]) = log_sum_exp_body
}

dispatch! {
    /// Sets `scores = probabilities * (scores - mean)`: from the gradient of a softmax's output to
    /// that of its input.
    pub fn softmax_backward(scores: &mut [f32], probabilities: &[f32], mean: f32) = softmax_backward_body
}

dispatch! {
    /// Sets `out[0]` to the dot product of two rows.
    pub fn inner(a: &[f32], b: &[f32], out: &mut [f32; 1]) = inner_body
}

/// The parameters of a norm without bias.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// The weight.
    pub weight: &'a [f32],
    /// A constant added to the weight.
    pub offset: f32,
    /// A constant added to the mean square.
    pub eps: f32,
    /// The mean is subtracted first (LayerNorm); otherwise the norm is an RMS norm.
    pub is_centered: bool,
}

/// The gradients that [`norm_backward`] reads and adds to.
pub struct NormGradients<'a> {
    /// The gradient of the output.
    pub output: &'a [f32],
    /// The gradient of the input, to be added to.
    pub x: &'a mut [f32],
    /// The gradient of the weight, to be added to.
    pub weight: &'a mut [f32],
}

/// Returns the mean that a norm subtracts from a row, and its factor on the rest.
#[inline(always)]
fn moments<S: Lanes, const CENTERED: bool>(simd: S, row: &[f32], eps: f32) -> [f32; 2] {
    let width = row.len() as f32;
    if CENTERED {
        let mean = sum(row, |x| x) / width;
        [mean, 1.0 / (sum(row, |x| (x - mean) * (x - mean)) / width + eps).sqrt()]
    } else {
        [0.0, 1.0 / (dot(simd, row, row) / width + eps).sqrt()]
    }
}

/// Sums terms lane by lane.
#[inline(always)]
fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    for block in row.chunks(LANES) {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += term(*value);
        }
    }
    sums.iter().sum()
}

#[inline(always)]
fn norm_body<S: Lanes>(simd: S, out: &mut [f32], x: &[f32], norm: Norm<'_>) {
    if norm.is_centered { norm_rows::<S, true>(simd, out, x, norm) } else { norm_rows::<S, false>(simd, out, x, norm) }
}

#[inline(always)]
fn norm_rows<S: Lanes, const CENTERED: bool>(simd: S, out: &mut [f32], x: &[f32], norm: Norm<'_>) {
    let Norm { weight, offset, eps, .. } = norm;
    for (out, x) in out.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len())) {
        let [mean, scale] = moments::<S, CENTERED>(simd, x, eps);
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = (x - mean) * scale * (weight + offset);
        }
    }
}

#[inline(always)]
fn norm_backward_body<S: Lanes>(simd: S, gradients: &mut NormGradients<'_>, x: &[f32], norm: Norm<'_>) {
    if norm.is_centered {
        norm_rows_backward::<S, true>(simd, gradients, x, norm);
    } else {
        norm_rows_backward::<S, false>(simd, gradients, x, norm);
    }
}

/// With `s = 1 / sqrt(mean(x^2) + eps)` and `g` the output's gradient times the weight:
/// `dx = s * g - x * s^3 * mean(g * x)`. A centered norm has `x - mean(x)` for `x`, and subtracts
/// `s * mean(g)`.
#[inline(always)]
fn norm_rows_backward<S: Lanes, const CENTERED: bool>(
    simd: S,
    gradients: &mut NormGradients<'_>,
    x: &[f32],
    norm: Norm<'_>,
) {
    let Norm { weight, offset, eps, .. } = norm;
    let width = weight.len();
    let rows = gradients.output.chunks_exact(width).zip(gradients.x.chunks_exact_mut(width));
    for ((output, x_gradient), x) in rows.zip(x.chunks_exact(width)) {
        let [mean, scale] = moments::<S, CENTERED>(simd, x, eps);
        let (mut sums, mut shifts) = ([0.0f32; LANES], [0.0f32; LANES]);
        let blocks = output.chunks(LANES).zip(x.chunks(LANES)).zip(weight.chunks(LANES));
        for ((output, x), weight) in blocks {
            let lanes = sums.iter_mut().zip(&mut shifts);
            for ((((sum, shift), output), x), weight) in lanes.zip(output).zip(x).zip(weight) {
                *sum += output * (weight + offset) * (x - mean);
                if CENTERED {
                    *shift += output * (weight + offset);
                }
            }
        }
        let pull = sums.iter().sum::<f32>() * scale * scale * scale / width as f32;
        let shift = if CENTERED { shifts.iter().sum::<f32>() * scale / width as f32 } else { 0.0 };
        let values = output.iter().zip(x).zip(weight);
        for (((output, x), weight), to) in values.zip(x_gradient.iter_mut()) {
            *to += output * (weight + offset) * scale - (x - mean) * pull - shift;
        }
        for ((output, x), to) in output.iter().zip(x).zip(gradients.weight.iter_mut()) {
            *to += output * (x - mean) * scale;
        }
    }
}

#[inline(always)]
fn gate_body<S: Lanes>(_: S, out: &mut [f32], gates: &[f32], width: usize, activation: Activation) {
    for (out, gates) in out.chunks_exact_mut(width).zip(gates.chunks_exact(2 * width)) {
        let (gate, up) = gates.split_at(width);
        match activation {
            Activation::Silu => map(out, gate, up, |x| silu(x)[0]),
            Activation::GeluTanh => map(out, gate, up, |x| gelu_tanh(x)[0]),
            Activation::Gelu => map(out, gate, up, |x| gelu(x)[0]),
            Activation::ClampedSilu => {
                for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = clamped_silu(*gate)[0] * clamped(*up)[0];
                }
            }
        }
    }
}

#[inline(always)]
fn map(out: &mut [f32], gate: &[f32], up: &[f32], activation: impl Fn(f32) -> f32) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = activation(*gate) * up;
    }
}

#[inline(always)]
fn gate_backward_body<S: Lanes>(_: S, gates: &mut [f32], output: &[f32], width: usize, activation: Activation) {
    for (gates, output) in gates.chunks_exact_mut(2 * width).zip(output.chunks_exact(width)) {
        let (gate, up) = gates.split_at_mut(width);
        match activation {
            Activation::Silu => pull(gate, up, output, silu),
            Activation::GeluTanh => pull(gate, up, output, gelu_tanh),
            Activation::Gelu => pull(gate, up, output, gelu),
            Activation::ClampedSilu => {
                for ((gate, up), output) in gate.iter_mut().zip(up).zip(output) {
                    let ([value, derivative], [factor, slope]) = (clamped_silu(*gate), clamped(*up));
                    *gate = output * factor * derivative;
                    *up = output * value * slope;
                }
            }
        }
    }
}

#[inline(always)]
fn pull(gate: &mut [f32], up: &mut [f32], output: &[f32], activation: impl Fn(f32) -> [f32; 2]) {
    for ((gate, up), output) in gate.iter_mut().zip(up).zip(output) {
        let [value, derivative] = activation(*gate);
        *gate = output * *up * derivative;
        *up = output * value;
    }
}

#[inline(always)]
fn activate_body<S: Lanes>(_: S, out: &mut [f32], x: &[f32], activation: Activation) {
    match activation {
        Activation::Silu => out.iter_mut().zip(x).for_each(|(out, x)| *out = silu(*x)[0]),
        Activation::GeluTanh => out.iter_mut().zip(x).for_each(|(out, x)| *out = gelu_tanh(*x)[0]),
        Activation::Gelu => out.iter_mut().zip(x).for_each(|(out, x)| *out = gelu(*x)[0]),
        Activation::ClampedSilu => out.iter_mut().zip(x).for_each(|(out, x)| *out = clamped_silu(*x)[0]),
    }
}

#[inline(always)]
fn activate_backward_body<S: Lanes>(_: S, x: &mut [f32], output: &[f32], activation: Activation) {
    match activation {
        Activation::Silu => x.iter_mut().zip(output).for_each(|(x, output)| *x = output * silu(*x)[1]),
        Activation::GeluTanh => x.iter_mut().zip(output).for_each(|(x, output)| *x = output * gelu_tanh(*x)[1]),
        Activation::Gelu => x.iter_mut().zip(output).for_each(|(x, output)| *x = output * gelu(*x)[1]),
        Activation::ClampedSilu => x.iter_mut().zip(output).for_each(|(x, output)| *x = output * clamped_silu(*x)[1]),
    }
}

/// The clamped gate of gpt-oss and its derivative.
#[inline(always)]
fn clamped_silu(x: f32) -> [f32; 2] {
    let bounded = x.min(Activation::BOUND);
    let sigmoid = sigmoid(Activation::STEEPNESS * bounded);
    let derivative = sigmoid * (1.0 + Activation::STEEPNESS * bounded * (1.0 - sigmoid));
    [bounded * sigmoid, if x < Activation::BOUND { derivative } else { 0.0 }]
}

/// The other branch of gpt-oss and its derivative.
#[inline(always)]
fn clamped(x: f32) -> [f32; 2] {
    let bounded = x.clamp(-Activation::BOUND, Activation::BOUND);
    [bounded + 1.0, if x == bounded { 1.0 } else { 0.0 }]
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x * sigmoid(x)` and its derivative.
#[inline(always)]
fn silu(x: f32) -> [f32; 2] {
    let sigmoid = sigmoid(x);
    [x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid))]
}

/// `x * sigmoid(2u)` with `u = sqrt(2 / pi) * (x + 0.044715 * x^3)`, and its derivative.
#[inline(always)]
fn gelu_tanh(x: f32) -> [f32; 2] {
    const TWICE_ROOT_2_BY_PI: f32 = 1.595_769;
    let sigmoid = sigmoid(TWICE_ROOT_2_BY_PI * (x + 0.044_715 * x * x * x));
    let inner = TWICE_ROOT_2_BY_PI * (1.0 + 3.0 * 0.044_715 * x * x);
    [x * sigmoid, sigmoid + x * sigmoid * (1.0 - sigmoid) * inner]
}

/// `x * Phi(x)` and its derivative `Phi(x) + x * phi(x)`.
#[inline(always)]
fn gelu(x: f32) -> [f32; 2] {
    const BY_ROOT_2_PI: f32 = 0.398_942_3;
    let (phi, bell) = normal(x);
    [x * phi, phi + x * bell * BY_ROOT_2_PI]
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for block in row.chunks(LANES) {
        for (largest, value) in largest.iter_mut().zip(block) {
            *largest = if *value > *largest { *value } else { *largest };
        }
    }
    largest.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn softmax_body<S: Lanes>(_: S, row: &mut [f32], log_sum: &mut [f32; 1]) {
    let largest = largest(row);
    let mut sums = [0.0f32; LANES];
    for block in row.chunks_mut(LANES) {
        for (sum, value) in sums.iter_mut().zip(block) {
            *value = exp(*value - largest);
            *sum += *value;
        }
    }
    let sum = sums.iter().sum::<f32>();
    let share = 1.0 / sum;
    for value in row {
        *value *= share;
    }
    log_sum[0] = largest + sum.ln();
}

#[inline(always)]
fn exponentials_body<S: Lanes>(_: S, row: &mut [f32], log_sum: f32) {
    for value in row {
        *value = exp(*value - log_sum);
    }
}

#[inline(always)]
fn log_sum_exp_body<S: Lanes>(_: S, row: &[f32], log_sum: &mut [f32; 1]) {
    let largest = largest(row);
    let mut sums = [0.0f32; LANES];
    for block in row.chunks(LANES) {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += exp(*value - largest);
        }
    }
    log_sum[0] = largest + sums.iter().sum::<f32>().ln();
}

#[inline(always)]
fn softmax_backward_body<S: Lanes>(_: S, scores: &mut [f32], probabilities: &[f32], mean: f32) {
    for (score, probability) in scores.iter_mut().zip(probabilities) {
        *score = probability * (*score - mean);
    }
}

#[inline(always)]
fn inner_body<S: Lanes>(simd: S, a: &[f32], b: &[f32], out: &mut [f32; 1]) {
    out[0] = dot(simd, a, b);
}
