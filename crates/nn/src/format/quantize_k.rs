//! Writing blocks of 256 values whose groups of 32 have scales and minima of their own.

use half::f16;

/// Values of a group.
const GROUP: usize = 32;
/// Largest number of a value, and of a group's scale.
const LARGEST: [f32; 2] = [15.0, 63.0];
/// Scales that are tried for a group, around the one that spans its values.
const TRIED: i32 = 20;

/// `value = scale * number - minimum`.
#[derive(Clone, Copy, Default)]
struct Fit {
    scale: f32,
    minimum: f32,
}

/// Scale, minimum, `scales[12]`, `quants[128]`, as [`super::k_blocks::q4_k`] reads them.
pub(super) fn write_q4_k(block: &[f32; 256], bytes: &mut Vec<u8>) {
    let groups = block.as_chunks::<GROUP>().0;
    let fits: [Fit; 8] = std::array::from_fn(|group| fit(&groups[group]));
    let of_all = |part: fn(&Fit) -> f32| f16::from_f32(fits.iter().map(part).fold(0.0, f32::max) / LARGEST[1]);
    let (scale, minimum) = (of_all(|fit| fit.scale), of_all(|fit| fit.minimum));
    let six_bits = |value: f32, unit: f16| match unit.to_f32() {
        0.0 => 0,
        unit => (value / unit).round().clamp(0.0, LARGEST[1]) as u8,
    };
    let scales = fits.map(|fit| six_bits(fit.scale, scale));
    let minima = fits.map(|fit| six_bits(fit.minimum, minimum));
    bytes.extend(scale.to_le_bytes());
    bytes.extend(minimum.to_le_bytes());
    bytes.extend((0..4).map(|group| scales[group] | (scales[group + 4] >> 4 << 6)));
    bytes.extend((0..4).map(|group| minima[group] | (minima[group + 4] >> 4 << 6)));
    bytes.extend((4..8).map(|group| (scales[group] & 15) | (minima[group] << 4)));
    let numbers: [[u8; GROUP]; 8] = std::array::from_fn(|group| {
        let (scale, minimum) = (scale.to_f32() * f32::from(scales[group]), minimum.to_f32() * f32::from(minima[group]));
        groups[group].map(|value| if scale == 0.0 { 0 } else { number((value + minimum) / scale) as u8 })
    });
    for [low, high] in numbers.as_chunks::<2>().0 {
        bytes.extend(low.iter().zip(high).map(|(low, high)| low | (high << 4)));
    }
}

fn number(value: f32) -> f32 {
    value.round().clamp(0.0, LARGEST[0])
}

/// The scale and minimum that lose least, larger values weighing more: numbers are given for each of several scales, and the
/// least squares for these numbers are taken.
fn fit(values: &[f32; GROUP]) -> Fit {
    let least = values.iter().copied().fold(0.0, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most <= least || most.is_nan() {
        return Fit { scale: 0.0, minimum: -least };
    }
    let size = (values.iter().map(|value| value * value).sum::<f32>() / GROUP as f32).sqrt();
    let weights = values.map(|value| size + value.abs());
    let (mut best, mut least_loss) = (Fit { scale: (most - least) / LARGEST[0], minimum: -least }, f32::INFINITY);
    for step in 0..=TRIED {
        let inverse = (LARGEST[0] - 1.0 + 0.1 * step as f32) / (most - least);
        let numbers = values.map(|value| number((value - least) * inverse));
        let Some(fit) = least_squares(values, &weights, &numbers) else { continue };
        let loss = |((value, weight), number): ((&f32, &f32), &f32)| {
            weight * (fit.scale * number - fit.minimum - value).powi(2)
        };
        let loss = values.iter().zip(&weights).zip(&numbers).map(loss).sum();
        if loss < least_loss {
            (best, least_loss) = (fit, loss);
        }
    }
    best
}

/// For given numbers; a minimum is not below zero.
fn least_squares(values: &[f32; GROUP], weights: &[f32; GROUP], numbers: &[f32; GROUP]) -> Option<Fit> {
    let [mut w, mut x, mut l, mut ll, mut xl] = [0.0; 5];
    for ((value, weight), number) in values.iter().zip(weights).zip(numbers) {
        w += weight;
        x += weight * value;
        l += weight * number;
        ll += weight * number * number;
        xl += weight * value * number;
    }
    let determinant = w * ll - l * l;
    if determinant <= 0.0 || determinant.is_nan() {
        return None;
    }
    let (scale, minimum) = ((w * xl - x * l) / determinant, (l * xl - ll * x) / determinant);
    let fit = if minimum < 0.0 { Fit { scale: xl / ll, minimum: 0.0 } } else { Fit { scale, minimum } };
    (fit.scale > 0.0).then_some(fit)
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    fn error(values: &[f32; 256]) -> f32 {
        let (mut bytes, mut out) = (Vec::new(), [0.0; 256]);
        write_q4_k(values, &mut bytes);
        Format::Q4_K.dequantize(&bytes, &mut out);
        values.iter().zip(out).map(|(value, out)| (value - out).powi(2)).sum::<f32>() / 256.0
    }

    #[test]
    fn what_is_written_is_read_back_to_the_nearest() {
        let wave = |i: usize, speed: f32| (i as f32 * speed).sin();
        let uneven: [f32; 256] = std::array::from_fn(|i| wave(i, 0.7) * (1.0 + (i / 32) as f32) + wave(i, 0.013));
        // A group of size s has numbers 2s / 15 apart, and rounding to the nearest an error of a twelfth of that squared.
        let expected: f32 = (1..=8).map(|size| (2.0 * size as f32 / 15.0).powi(2) / 12.0).sum::<f32>() / 8.0;
        assert!(error(&uneven) < 1.3 * expected, "{} {expected}", error(&uneven));
        let positive = uneven.map(|value| value.abs() + 5.0);
        // A minimum is never above zero, so that up to 14 are spanned.
        assert!(error(&positive) < 1.3 * (14.0f32 / 15.0).powi(2) / 12.0, "{}", error(&positive));
    }

    #[test]
    fn values_that_are_all_one_are_kept() {
        for value in [0.0, -1.0, 3.0] {
            assert!(error(&[value; 256]) < 1e-5, "{value}: {}", error(&[value; 256]));
        }
    }

    #[test]
    fn what_is_not_finite_does_no_harm() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut bytes = Vec::new();
            write_q4_k(&[bad; 256], &mut bytes);
            assert_eq!(bytes.len(), 144);
        }
    }
}
