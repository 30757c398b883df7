use half::bf16;
use proptest::prelude::*;

use super::super::linear::testing::{matrix, noise};
use super::super::{Workers, linear};
use super::multiply::{Product, multiply};
use super::*;
use crate::checkpoint::Tensor;
use crate::format::Format;

/// Returns the formats that are packed.
fn formats() -> impl Iterator<Item = Format> {
    Format::writable().filter(|format| *format != Format::F32)
}

/// Returns `x` after the quantization that the format's products take.
fn after_quantization(quantization: Quantization, x: &[f32]) -> Vec<f32> {
    match quantization {
        Quantization::Bf16 => return x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
        Quantization::F32 => return x.to_vec(),
        Quantization::Int8 => {}
    }
    let mut int8 = Panels::<Int8Group>::default();
    int8.quantize(&Workers::alone(Simd::detect()), x, x.len());
    let groups = int8.panel::<1>(0).as_flattened();
    let float = |group: &Int8Group, value: &u8| f32::from(value.cast_signed()) * group.scale;
    groups.iter().flat_map(|group| group.values.as_flattened().iter().map(move |value| float(group, value))).collect()
}

/// Returns the product, or `None` if this processor has no tiles of the format.
fn product(simd: Simd, x: &[f32], weight: &Tensor, bias: Option<&[f32]>) -> Option<Vec<f32>> {
    product_by(&Workers::alone(simd), x, weight, bias)
}

fn product_by(workers: &Workers<'_>, x: &[f32], weight: &Tensor, bias: Option<&[f32]>) -> Option<Vec<f32>> {
    let simd = workers.simd();
    let packed = Packed::try_new(weight.view(), simd).unwrap()?;
    let mut out = vec![f32::NAN; x.len() / weight.columns() * weight.rows()];
    let (mut int8, mut halves) = (Panels::<Int8Group>::default(), Panels::<Bf16Group>::default());
    let mut floats = Panels::<F32Group>::default();
    let quantized = match packed.quantization() {
        Quantization::Int8 => {
            int8.quantize(workers, x, weight.columns());
            Quantized::Int8(&int8)
        }
        Quantization::Bf16 => {
            halves.quantize(workers, x, weight.columns());
            Quantized::Bf16(&halves)
        }
        Quantization::F32 => {
            floats.quantize(workers, x, weight.columns());
            Quantized::F32(&floats)
        }
    };
    multiply(workers, quantized, &mut [Product { weight: &packed, bias, out: &mut out }]);
    Some(out)
}

/// Compares with [`linear`] on the same quantized activations, alone and in a batch, on every
/// instruction set.
fn check(format: Format, rows: usize, columns: usize, tokens: usize, seed: u64) {
    let columns = columns.next_multiple_of(format.block_values().max(4));
    let weight = matrix(format, rows, columns, seed);
    let x: Vec<f32> =
        noise(tokens * columns, seed + 1).iter().enumerate().map(|(i, x)| x * (1 + i / 40 % 9) as f32).collect();
    let bias = noise(rows, seed + 2);
    let bias = seed.is_multiple_of(2).then_some(bias.as_slice());
    let sizes = magnitudes(&x, &weight);
    for simd in Simd::all() {
        let Some(batched) = product(simd, &x, &weight, bias) else { continue };
        let packed = Packed::try_new(weight.view(), simd).unwrap().unwrap();
        let quantized = after_quantization(packed.quantization(), &x);
        let mut expected = vec![0.0; batched.len()];
        linear(&Workers::alone(simd), &quantized, weight.view(), bias, &mut expected);
        for (index, (value, expected)) in batched.iter().zip(&expected).enumerate() {
            let error = f64::from(value - expected).abs();
            assert!(error <= 2e-6 * (sizes[index] + 1.0), "{format} {simd:?} {rows}x{columns}: {value}, {expected}");
        }
        for (x, batched) in x.chunks(columns).zip(batched.chunks(rows)) {
            let alone = product(simd, x, &weight, bias).unwrap();
            assert_eq!(alone, batched, "{format} {simd:?}: a token alone differs from the same in a batch");
        }
    }
}

/// Returns the sums of the magnitudes of all terms, `(tokens, rows)`.
fn magnitudes(x: &[f32], weight: &Tensor) -> Vec<f64> {
    let (values, columns) = (weight.to_f32(), weight.columns());
    let term = |(x, w): (&f32, &f32)| f64::from(x * w).abs();
    let sum = |x: &[f32], row: &[f32]| x.iter().zip(row).map(term).sum();
    x.chunks(columns).flat_map(|x| values.chunks(columns).map(move |row| sum(x, row)).collect::<Vec<_>>()).collect()
}

#[test]
fn tiles_give_bytes_the_sums_of_lanes() {
    let (rows, columns, tokens) = (37, 768, 45);
    let x = noise(tokens * columns, 5);
    for format in formats() {
        let weight = matrix(format, rows, columns, 6);
        for simd in Simd::all().into_iter().filter(|simd| simd.tiles.is_some()) {
            let lanes = Simd { tiles: None, ..simd };
            if quantization_for(format, simd) == Some(Quantization::Int8) {
                assert_eq!(product(simd, &x, &weight, None), product(lanes, &x, &weight, None), "{format} {simd:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn matches_linear_alone_and_batched(
        kind in 0..15usize, rows in 1..50usize, columns in 1..700usize, tokens in 1..20usize, seed in 0..1000u64,
    ) {
        check(formats().nth(kind).unwrap(), rows, columns, tokens, seed);
    }
}

#[test]
fn threads_do_not_change_results() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for format in formats() {
        check(format, 531, 768, 13, 7);
        let (weight, x) = (matrix(format, 531, 768, 7), noise(13 * 768, 8));
        for simd in Simd::all() {
            let alone = product(simd, &x, &weight, None);
            let together = pool.install(|| Workers::awake(simd, |workers| product_by(workers, &x, &weight, None)));
            assert_eq!(together, alone, "{format} {simd:?}");
        }
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    // Bytes of -128, which no quantizer writes, and 4-bit to 6-bit numbers at both ends of their
    // range, against the largest activations.
    for (format, block) in [
        (Format::Q8_0, [[0, 0x3c].to_vec(), vec![0x80; 32]].concat()),
        (Format::Q4_0, [[0, 0x3c].to_vec(), vec![0xff; 16]].concat()),
        (Format::Q4_1, [[0, 0x3c, 0, 0x3c].to_vec(), vec![0xff; 16]].concat()),
        (Format::Q5_0, [[0, 0x3c].to_vec(), vec![0xff; 20]].concat()),
        (Format::Q5_1, [[0, 0x3c, 0, 0x3c].to_vec(), vec![0xff; 20]].concat()),
        (Format::Q2_K, [vec![0xff; 80], [0, 0x3c, 0, 0x3c].to_vec()].concat()),
        (Format::Q3_K, [vec![0xff; 108], [0, 0x3c].to_vec()].concat()),
        (Format::Q4_K, [[0, 0x3c, 0, 0x3c].to_vec(), vec![0xff; 140]].concat()),
        (Format::Q5_K, [[0, 0x3c, 0, 0x3c].to_vec(), vec![0xff; 172]].concat()),
        (Format::Q6_K, [vec![0xff; 192], vec![0x7f; 16], [0, 0x3c].to_vec()].concat()),
        (Format::Q6_K, [vec![0; 192], vec![0x80; 16], [0, 0x3c].to_vec()].concat()),
    ] {
        let columns = 2 * format.block_values();
        let weight = Tensor::new("w", format, vec![1, columns], [block.clone(), block].concat()).unwrap();
        for sign in [1.0, -1.0] {
            let x = vec![sign * 127.0; columns];
            let expected: f32 = weight.to_f32().iter().map(|w| w * sign * 127.0).sum();
            for simd in Simd::all() {
                let out = product(simd, &x, &weight, None).unwrap();
                assert!((out[0] - expected).abs() <= 1e-5 * expected.abs(), "{format} {simd:?}: {out:?}, {expected}");
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_so_and_touch_no_other_token() {
    for format in formats() {
        let weight = matrix(format, 5, 256, 3);
        for simd in Simd::all() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = noise(3 * 256, 1);
                let Some(good) = product(simd, &x, &weight, None) else { continue };
                x[256 + 40] = bad;
                let out = product(simd, &x, &weight, None).unwrap();
                assert!(
                    out[5..10].iter().all(|value| !value.is_finite()),
                    "{format} {simd:?} {bad}: {:?}",
                    &out[5..10]
                );
                assert_eq!((&out[..5], &out[10..]), (&good[..5], &good[10..]));
            }
        }
    }
}

#[test]
fn zero_tokens_are_accepted() {
    for format in formats() {
        let out = product(Simd::detect(), &[], &matrix(format, 5, 256, 3), None);
        assert!(out.is_none_or(|out| out.is_empty()));
    }
}

#[test]
fn tiny_and_huge_activations_keep_their_magnitude() {
    for format in formats() {
        let weight = matrix(format, 3, 256, 4);
        for size in [1e-36f32, 1e-20, 1e20] {
            let x: Vec<f32> = noise(256, 2).iter().map(|x| x * size).collect();
            for simd in Simd::all() {
                let Some(out) = product(simd, &x, &weight, None) else { continue };
                let unit = product(simd, &noise(256, 2), &weight, None).unwrap();
                for (out, unit) in out.iter().zip(unit) {
                    assert!(
                        (out / size - unit).abs() <= 2e-2 * (1.0 + unit.abs()) || size < 1e-30,
                        "{format} {size}: {out} {unit}"
                    );
                }
            }
        }
    }
}

#[test]
fn matrices_that_share_their_input_are_multiplied_together() {
    let simd = Simd::detect();
    let x = noise(3 * 64, 9);
    let weights = [17, 200, 4].map(|rows| matrix(Format::Q8_0, rows, 64, rows as u64));
    let packed = weights.each_ref().map(|weight| Packed::try_new(weight.view(), simd).unwrap().unwrap());
    let mut outs = weights.each_ref().map(|weight| vec![f32::NAN; 3 * weight.rows()]);
    let workers = Workers::alone(simd);
    let mut int8 = Panels::<Int8Group>::default();
    int8.quantize(&workers, &x, 64);
    let mut products: Vec<_> =
        packed.iter().zip(&mut outs).map(|(weight, out)| Product { weight, bias: None, out }).collect();
    multiply(&workers, Quantized::Int8(&int8), &mut products);
    for (weight, out) in weights.iter().zip(outs) {
        assert_eq!(product(simd, &x, weight, None).unwrap(), out);
    }
}
