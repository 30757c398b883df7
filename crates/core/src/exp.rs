//! The exponential function in a form that compilers vectorize.

/// Returns `e^x` with a relative error of about 1e-7. Arguments are clamped to -87..=87; NaN gives
/// NaN.
///
/// The argument is reduced to `e^x = 2^n * e^r` with `|r| <= ln(2) / 2`; `e^r` is its Taylor
/// polynomial of degree 7.
///
/// ```
/// assert!((wsd_core::exp(1.0) - std::f32::consts::E).abs() < 1e-6);
/// ```
#[must_use]
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// `1.5 * 2^23`. The sum of this and a small number has no bits for a fraction, so it is
    /// rounded to a whole number, which ends up in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    /// `ln 2` as a sum of two parts, the first with so few bits that its product with `n` is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // `clamp` would compile to branches, which prevent vectorization.
    let x = if x > 87.0 { 87.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    series * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_single_precision() {
        for step in -8700..=8700 {
            let x = step as f32 / 100.0;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() <= 3e-7 * expected, "{x}: {} {expected}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(f32::INFINITY).is_finite() && exp(f32::NAN).is_nan());
    }
}
