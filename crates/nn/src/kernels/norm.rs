//! RMS norm (Zhang and Sennrich 2019, arXiv 1910.07467) and LayerNorm (Ba et al. 2016, arXiv
//! 1607.06450).

use super::simd::{LANES, Lanes, dispatch, dot};

dispatch! {
    /// Computes `x / sqrt(mean(x^2) + eps) * weight` in place, for each row of `weight.len()`
    /// values of `x`.
    pub(crate) fn rms_norm(x: &mut [f32], weight: &[f32], eps: f32) = body
}

/// Subtracts from each row of `width` values of `x` its mean: LayerNorm is the RMS norm of the
/// result.
pub(crate) fn center(x: &mut [f32], width: usize) {
    for row in x.chunks_exact_mut(width.max(1)) {
        let mean = (row.iter().copied().map(f64::from).sum::<f64>() / width as f64) as f32;
        row.iter_mut().for_each(|x| *x -= mean);
    }
}

#[inline(always)]
fn body<S: Lanes>(simd: S, x: &mut [f32], weight: &[f32], eps: f32) {
    for row in x.chunks_exact_mut(weight.len().max(1)) {
        let mean = dot(simd, row, row) / weight.len() as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        let (blocks, tail) = row.as_chunks_mut::<LANES>();
        let (weights, weights_tail) = weight.as_chunks::<LANES>();
        for (block, weights) in blocks.iter_mut().zip(weights) {
            for (x, weight) in block.iter_mut().zip(weights) {
                *x = *x * scale * weight;
            }
        }
        for (x, weight) in tail.iter_mut().zip(weights_tail) {
            *x = *x * scale * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Simd;
    use super::*;

    #[test]
    fn a_centered_row_has_the_mean_0() {
        let mut x = [1.0, 2.0, 6.0, -4.0, 0.0, 1.0];
        center(&mut x, 3);
        assert_eq!(x, [-2.0, -1.0, 3.0, -3.0, 1.0, 2.0]);
    }

    #[test]
    fn matches_the_formula_on_every_instruction_set() {
        for width in [1, 7, 16, 64, 83] {
            let x: Vec<f32> = (0..2 * width).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
            let weight: Vec<f32> = (0..width).map(|i| 1.0 + 0.1 * i as f32).collect();
            for simd in Simd::all() {
                let mut normed = x.clone();
                rms_norm(simd, &mut normed, &weight, 1e-5);
                for (index, value) in normed.iter().enumerate() {
                    let row = &x[index / width * width..][..width];
                    let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                    let expected = f64::from(x[index]) / (mean + 1e-5).sqrt() * f64::from(weight[index % width]);
                    assert!((f64::from(*value) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{simd:?} {width}");
                }
            }
        }
    }
}
