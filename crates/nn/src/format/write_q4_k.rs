//! Writing Q4_K: for each group of 32 the scale and the minimum that leave the least squared error, both then rounded to six
//! bits of what the block of eight groups shares.

use half::f16;

/// Largest quant, and largest scale or minimum of a group.
const MOST: f32 = 15.0;
const MOST_SCALE: f32 = 63.0;
/// Scales that are tried on either side of the one that spreads the quants over all values.
const TRIES: i16 = 10;
/// By how much the tried ranges differ, in quants.
const TRY_STEP: f32 = 0.1;

/// Values are `scale * quant - minimum`; neither is negative.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    scale: f32,
    minimum: f32,
}

impl Line {
    fn quant(self, value: f32) -> f32 {
        if self.scale > 0.0 { ((value + self.minimum) / self.scale).round().clamp(0.0, MOST) } else { 0.0 }
    }

    fn error(self, group: &[f32]) -> f32 {
        group.iter().map(|&value| (self.scale * self.quant(value) - self.minimum - value).powi(2)).sum()
    }

    /// The line of least squares through these quants of these values; `None` where all quants are one.
    fn through(group: &[f32], quants: &[f32]) -> Option<Self> {
        let count = group.len() as f32;
        let sums = group.iter().zip(quants).fold([0.0f32; 4], |[x, q, xq, qq], (&value, &quant)| {
            [x + value, q + quant, xq + value * quant, qq + quant * quant]
        });
        let [x, q, xq, qq] = sums;
        let spread = count * qq - q * q;
        if spread <= 0.0 {
            return None;
        }
        let line = Self { scale: (count * xq - x * q) / spread, minimum: (q * xq - qq * x) / spread };
        // Where the line would begin above zero, the best one through zero.
        let line = if line.minimum < 0.0 { Self { scale: xq / qq, minimum: 0.0 } } else { line };
        (line.scale > 0.0).then_some(line)
    }

    /// The best of the lines that are tried.
    fn fit(group: &[f32]) -> Self {
        let low = group.iter().copied().fold(0.0, f32::min);
        let high = group.iter().copied().fold(low, f32::max);
        let mut best = Self { scale: (high - low) / MOST, minimum: -low };
        let mut least = best.error(group);
        for step in -TRIES..=TRIES {
            let inverse = (MOST + TRY_STEP * f32::from(step)) / (high - low).max(f32::MIN_POSITIVE);
            let quants: Vec<_> = group.iter().map(|value| ((value - low) * inverse).round().clamp(0.0, MOST)).collect();
            if let Some(line) = Self::through(group, &quants) {
                let error = line.error(group);
                if error < least {
                    (best, least) = (line, error);
                }
            }
        }
        best
    }
}

/// One block of 256 values in the layout that [`super::k_blocks::q4_k`] reads.
pub(super) fn write(block: &[f32; 256], bytes: &mut Vec<u8>) {
    let groups = block.as_chunks::<32>().0;
    let lines: Vec<_> = groups.iter().map(|group| Line::fit(group)).collect();
    let shared = |part: fn(&Line) -> f32| f16::from_f32(lines.iter().map(part).fold(0.0, f32::max) / MOST_SCALE);
    let (scale, minimum) = (shared(|line| line.scale), shared(|line| line.minimum));
    let six_bits = |value: f32, unit: f16| match unit.to_f32() {
        0.0 => 0,
        unit => (value / unit).round().clamp(0.0, MOST_SCALE) as u8,
    };
    let (mut packed, mut quants) = ([0u8; 12], [0u8; 128]);
    for (number, (group, line)) in groups.iter().zip(&lines).enumerate() {
        let (own_scale, own_minimum) = (six_bits(line.scale, scale), six_bits(line.minimum, minimum));
        pack(&mut packed, number, own_scale, own_minimum);
        let rounded =
            Line { scale: scale.to_f32() * f32::from(own_scale), minimum: minimum.to_f32() * f32::from(own_minimum) };
        let (place, shift) = (number / 2 * 32, number % 2 * 4);
        for (byte, &value) in quants[place..place + 32].iter_mut().zip(group) {
            *byte |= (rounded.quant(value) as u8) << shift;
        }
    }
    bytes.extend(scale.to_le_bytes());
    bytes.extend(minimum.to_le_bytes());
    bytes.extend(packed);
    bytes.extend(quants);
}

/// Put the six bits of a group's scale and minimum where [`super::scale_and_minimum`] finds them.
fn pack(packed: &mut [u8; 12], group: usize, scale: u8, minimum: u8) {
    if group < 4 {
        packed[group] |= scale;
        packed[group + 4] |= minimum;
    } else {
        packed[group + 4] = (scale & 15) | (minimum << 4);
        packed[group - 4] |= (scale >> 4) << 6;
        packed[group] |= (minimum >> 4) << 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    fn written(values: &[f32; 256]) -> [f32; 256] {
        let mut bytes = Vec::new();
        write(values, &mut bytes);
        let mut out = [0.0; 256];
        Format::Q4_K.dequantize(&bytes, &mut out);
        out
    }

    #[test]
    fn scales_are_packed_as_they_are_read() {
        let mut packed = [0; 12];
        for group in 0..8 {
            pack(&mut packed, group, 63 - group as u8 * 7, group as u8 * 9);
        }
        for group in 0..8 {
            assert_eq!(super::super::scale_and_minimum(&packed, group), [63 - group as u8 * 7, group as u8 * 9]);
        }
    }

    #[test]
    fn the_error_is_less_than_that_of_even_steps() {
        let random = |i: usize| {
            let uniform =
                |salt: usize| ((i * 2 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u32 << 24) as f32;
            (-2.0 * uniform(0).max(1e-7).ln()).sqrt() * (std::f32::consts::TAU * uniform(1)).cos() * 0.02
        };
        let values: [f32; 256] = std::array::from_fn(random);
        let out = written(&values);
        let error: f32 = values.iter().zip(&out).map(|(value, out)| (value - out).powi(2)).sum();
        let even: f32 = values
            .as_chunks::<32>()
            .0
            .iter()
            .map(|group| {
                let low = group.iter().copied().fold(0.0, f32::min);
                let high = group.iter().copied().fold(0.0, f32::max);
                Line { scale: (high - low) / MOST, minimum: -low }.error(group)
            })
            .sum();
        let power: f32 = values.iter().map(|value| value * value).sum();
        assert!(error < even && error < 0.006 * power, "{error} for {even} of {power}");
    }

    #[test]
    fn extremes_stay_finite() {
        assert_eq!(written(&[0.0; 256]), [0.0; 256]);
        for value in [1.0, -1.0, 1e-30, -3e4] {
            for out in written(&[value; 256]) {
                assert!((out - value).abs() <= value.abs() * 0.04 + 1e-7, "{value} became {out}");
            }
        }
    }
}
