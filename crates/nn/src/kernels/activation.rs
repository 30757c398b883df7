//! Elementwise functions, free of calls, so that loops over them vectorize.

use wsd_core::exp;

use super::simd::{Lanes, dispatch};
use crate::activation::Activation;

dispatch! {
    /// Computes `gated[i] = activation(gated[i]) * up[i]`.
    pub(crate) fn gate(gated: &mut [f32], up: &[f32], activation: Activation) = gate_body
}

dispatch! {
    /// Computes `x[i] = activation(x[i])`.
    pub(crate) fn activate(x: &mut [f32], activation: Activation) = activate_body
}

dispatch! {
    /// Computes `cap * tanh(x / cap)` in place.
    pub fn softcap(x: &mut [f32], cap: f32) = softcap_body
}

dispatch! {
    /// Computes `x[i] += y[i]`.
    pub(crate) fn add(x: &mut [f32], y: &[f32]) = add_body
}

#[inline(always)]
fn gate_body<S: Lanes>(_: S, gated: &mut [f32], up: &[f32], activation: Activation) {
    match activation {
        Activation::Silu => map(gated, up, |x| x * sigmoid(x)),
        Activation::GeluTanh => map(gated, up, gelu_tanh),
        Activation::Gelu => map(gated, up, gelu),
        Activation::ClampedSilu => {
            for (gated, up) in gated.iter_mut().zip(up) {
                *gated = clamped_silu(*gated) * (up.clamp(-Activation::BOUND, Activation::BOUND) + 1.0);
            }
        }
    }
}

#[inline(always)]
fn activate_body<S: Lanes>(_: S, x: &mut [f32], activation: Activation) {
    match activation {
        Activation::Silu => x.iter_mut().for_each(|x| *x *= sigmoid(*x)),
        Activation::GeluTanh => x.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
        Activation::Gelu => x.iter_mut().for_each(|x| *x = gelu(*x)),
        Activation::ClampedSilu => x.iter_mut().for_each(|x| *x = clamped_silu(*x)),
    }
}

#[inline(always)]
fn map(gated: &mut [f32], up: &[f32], function: impl Fn(f32) -> f32) {
    for (gated, up) in gated.iter_mut().zip(up) {
        *gated = function(*gated) * up;
    }
}

#[inline(always)]
pub(super) fn softcap_body<S: Lanes>(_: S, x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * tanh(*x / cap);
    }
}

#[inline(always)]
fn add_body<S: Lanes>(_: S, x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn clamped_silu(x: f32) -> f32 {
    let x = x.min(Activation::BOUND);
    x * sigmoid(Activation::STEEPNESS * x)
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// GELU by its tanh approximation (Hendrycks and Gimpel 2016, arXiv 1606.08415): `x * (1 + tanh(u))
/// / 2`, where `(1 + tanh(u)) / 2 = sigmoid(2u)` and `u = sqrt(2 / pi) * (x + 0.044715 * x^3)`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const TWICE_ROOT_2_BY_PI: f32 = 1.595_769;
    x * sigmoid(TWICE_ROOT_2_BY_PI * (x + 0.044_715 * x * x * x))
}

/// GELU: `x * Phi(x)`.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

/// Computes the normal distribution `Phi(x) = (1 + erf(x / sqrt(2))) / 2`, with the error function of
/// Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7), and `exp(-x^2 / 2)`.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = 1.061_405_4 * t - 1.453_152;
    let series = series * t + 1.421_413_8;
    let series = series * t - 0.284_496_72;
    let series = (series * t + 0.254_829_6) * t;
    let bell = exp(-z * z);
    let tail = 0.5 * series * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

#[cfg(test)]
mod tests {
    use super::super::Simd;
    use super::*;

    fn near(value: f32, expected: f64, tolerance: f64) {
        assert!((f64::from(value) - expected).abs() <= tolerance * (1.0 + expected.abs()), "{value} {expected}");
    }

    #[test]
    fn activations_match_their_formulas() {
        for simd in Simd::all() {
            for step in -400..=400 {
                let x = step as f32 / 20.0;
                let wide = f64::from(x);
                let value = |activation| {
                    let mut gated = [x; 19];
                    gate(simd, &mut gated, &[2.0; 19], activation);
                    assert!(gated.iter().all(|value| *value == gated[0]));
                    gated[18] / 2.0
                };
                near(value(Activation::Silu), wide / (1.0 + (-wide).exp()), 1e-6);
                let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
                near(value(Activation::GeluTanh), 0.5 * wide * (1.0 + u.tanh()), 1e-6);
                near(value(Activation::Gelu), wide * normal_cdf(wide), 2e-6);
                let mut capped = [x; 3];
                softcap(simd, &mut capped, 5.0);
                near(capped[2], 5.0 * (wide / 5.0).tanh(), 1e-6);
            }
        }
    }

    /// Returns the normal distribution function, integrated by the trapezoid rule.
    fn normal_cdf(x: f64) -> f64 {
        let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let steps = 2000;
        let width = x / f64::from(steps);
        let inner: f64 = (1..steps).map(|step| density(f64::from(step) * width)).sum();
        0.5 + width * (inner + (density(0.0) + density(x)) / 2.0)
    }
}
