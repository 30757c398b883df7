//! The encoder of Q4_K: blocks of 256 values in groups of 32, each with a scale and a minimum.

use half::f16;

/// The number of values in a group.
const GROUP: usize = 32;
/// The largest integer of a value, of four bits.
const MAX_QUANT: f32 = 15.0;
/// The largest integer of a scale or minimum of a group, of six bits.
const MAX_SCALE: f32 = 63.0;
/// The number of scales tried for a group, around the one that spans its values.
const TRIED: i32 = 20;

/// The affine map of a group: `value = scale * integer - minimum`.
#[derive(Clone, Copy, Default)]
struct Fit {
    scale: f32,
    minimum: f32,
}

/// Encodes a block: scale, minimum, `scales[12]`, `quants[128]`, as [`super::blocks::Q4_K`]
/// decodes them.
pub(super) fn write_q4_k(block: &[f32; 256], bytes: &mut Vec<u8>) {
    let groups = block.as_chunks::<GROUP>().0;
    let fits: [Fit; 8] = std::array::from_fn(|group| fit(&groups[group]));
    let of_all = |part: fn(&Fit) -> f32| f16::from_f32(fits.iter().map(part).fold(0.0, f32::max) / MAX_SCALE);
    let (scale, minimum) = (of_all(|fit| fit.scale), of_all(|fit| fit.minimum));
    let six_bits = |value: f32, unit: f16| match unit.to_f32() {
        0.0 => 0,
        unit => (value / unit).round().clamp(0.0, MAX_SCALE) as u8,
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
    value.round().clamp(0.0, MAX_QUANT)
}

/// Finds the scale and minimum with the least weighted squared error; larger values have larger
/// weights. For each of several scales it rounds the values to integers and solves least squares
/// for these.
fn fit(values: &[f32; GROUP]) -> Fit {
    let least = values.iter().copied().fold(0.0, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most <= least || most.is_nan() {
        return Fit { scale: 0.0, minimum: -least };
    }
    let size = (values.iter().map(|value| value * value).sum::<f32>() / GROUP as f32).sqrt();
    let weights = values.map(|value| size + value.abs());
    let (mut best, mut least_loss) = (Fit { scale: (most - least) / MAX_QUANT, minimum: -least }, f32::INFINITY);
    for step in 0..=TRIED {
        let inverse = (MAX_QUANT - 1.0 + 0.1 * step as f32) / (most - least);
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

/// Solves weighted least squares for given integers, with the minimum at least 0. Returns `None` if
/// the system is singular or the scale not positive.
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
    fn the_error_is_that_of_rounding_to_the_nearest() {
        let wave = |i: usize, speed: f32| (i as f32 * speed).sin();
        let uneven: [f32; 256] = std::array::from_fn(|i| wave(i, 0.7) * (1.0 + (i / 32) as f32) + wave(i, 0.013));
        // A group that spans 2s has a step of 2s / 15, and rounding a mean squared error of step^2 / 12.
        let expected: f32 = (1..=8).map(|size| (2.0 * size as f32 / 15.0).powi(2) / 12.0).sum::<f32>() / 8.0;
        assert!(error(&uneven) < 1.3 * expected, "{} {expected}", error(&uneven));
        let positive = uneven.map(|value| value.abs() + 5.0);
        // The offset of a group is never above zero, so that the range is 0 to 14.
        assert!(error(&positive) < 1.3 * (14.0f32 / 15.0).powi(2) / 12.0, "{}", error(&positive));
    }

    #[test]
    fn equal_values_are_kept() {
        for value in [0.0, -1.0, 3.0] {
            assert!(error(&[value; 256]) < 1e-5, "{value}: {}", error(&[value; 256]));
        }
    }

    #[test]
    fn values_that_are_not_finite_do_no_harm() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut bytes = Vec::new();
            write_q4_k(&[bad; 256], &mut bytes);
            assert_eq!(bytes.len(), 144);
        }
    }
}
