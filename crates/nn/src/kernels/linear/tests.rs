use proptest::prelude::*;

use super::super::Simd;
use super::testing::{matrix, noise};
use super::*;
use crate::checkpoint::Tensor;

fn naive(x: &[f32], weight: &Tensor, bias: Option<&[f32]>) -> Vec<(f64, f64)> {
    let (values, columns) = (weight.to_f32(), weight.columns());
    let mut out = Vec::new();
    for x in x.chunks(columns) {
        for (row, weights) in values.chunks(columns).enumerate() {
            let terms = x.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let bias = bias.map_or(0.0, |bias| f64::from(bias[row]));
            out.push((terms.clone().sum::<f64>() + bias, terms.map(f64::abs).sum::<f64>() + bias.abs()));
        }
    }
    out
}

fn check(format: Format, rows: usize, columns: usize, tokens: usize, seed: u64) {
    let columns = columns.next_multiple_of(format.block_values());
    let weight = matrix(format, rows, columns, seed);
    let x = noise(tokens * columns, seed + 1);
    let bias = noise(rows, seed + 2);
    let bias = seed.is_multiple_of(2).then_some(bias.as_slice());
    let expected = naive(&x, &weight, bias);
    for simd in Simd::all() {
        let mut batched = vec![f32::NAN; tokens * rows];
        linear(&Workers::alone(simd), &x, weight.view(), bias, &mut batched);
        for (value, (sum, size)) in batched.iter().zip(&expected) {
            let error = (f64::from(*value) - sum).abs();
            assert!(error <= 1e-6 * size + 1e-12, "{format} {simd:?} {rows}x{columns}: {value} {sum}");
        }
        for (x, batched) in x.chunks(columns).zip(batched.chunks(rows)) {
            let mut alone = vec![f32::NAN; rows];
            linear(&Workers::alone(simd), x, weight.view(), bias, &mut alone);
            assert_eq!(alone, batched, "{format} {simd:?}: a token alone differs from the same in a batch");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn matches_the_formula_alone_and_batched(
        kind in 0..Format::all().count(), rows in 1..40usize, columns in 1..300usize,
        tokens in 1..24usize, seed in 0..1000u64,
    ) {
        let format = Format::all().nth(kind).unwrap();
        check(format, rows, columns, tokens, seed);
    }
}

#[test]
fn threads_do_not_change_results() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for format in [Format::F32, Format::BF16, Format::F16, Format::Q8_0, Format::Q6_K] {
        check(format, 523, 512, 11, 7);
        check(format, 523, 512, 3, 8);
        let weight = matrix(format, 523, 512, 7);
        for tokens in [3, 11] {
            let x = noise(tokens * 512, 8);
            for simd in Simd::all() {
                let [mut alone, mut together] = [vec![f32::NAN; tokens * 523], vec![f32::NAN; tokens * 523]];
                linear(&Workers::alone(simd), &x, weight.view(), None, &mut alone);
                pool.install(|| {
                    Workers::awake(simd, |workers| linear(workers, &x, weight.view(), None, &mut together))
                });
                assert_eq!(together, alone, "{format} {simd:?}");
            }
        }
    }
}

#[test]
fn extreme_values_affect_only_their_own_outputs() {
    let values = [f32::MAX, f32::MIN_POSITIVE, -0.0, 1e-40, f32::INFINITY, f32::NAN];
    for (row, value) in values.into_iter().enumerate() {
        for format in [Format::F32, Format::BF16, Format::F16] {
            let mut weights = vec![0.5; values.len() * 32];
            weights[row * 32 + 3] = value;
            let weight = Tensor::new("w", format, vec![values.len(), 32], format.quantize(&weights).unwrap()).unwrap();
            for simd in Simd::all() {
                let mut out = vec![0.0; 2 * values.len()];
                linear(&Workers::alone(simd), &[0.25; 64], weight.view(), None, &mut out);
                let expected = weight.to_f32()[row * 32 + 3] * 0.25 + 31.0 * 0.125;
                for (index, out) in out.iter().enumerate() {
                    let expected = if index % values.len() == row { expected } else { 4.0 };
                    let same = *out == expected || out.is_nan() && expected.is_nan();
                    assert!(same || (out / expected - 1.0).abs() < 1e-6, "{format} {simd:?} {value}: {out} {expected}");
                }
            }
        }
    }
}

#[test]
fn zero_tokens_are_accepted() {
    linear(&Workers::alone(Simd::detect()), &[], matrix(Format::F32, 4, 16, 1).view(), None, &mut []);
}
