//! Number formats of the keys and values in a KV cache.

use std::fmt::{self, Display, Formatter};

use bytemuck::{Pod, Zeroable};
use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use super::simd::{LANES, Lanes};

/// The number format of cached keys and values.
///
/// On a CPU a row, the key or the value of one position and head, is stored in chunks of sixteen
/// numbers; the last one is padded with zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvFormat {
    /// Single precision, 32 bits a number.
    F32,
    /// Half precision, 16 bits a number. Magnitudes above 65,504 become 65,504.
    #[default]
    F16,
    /// The first half of single precision: its range with 8 bits of digits.
    BF16,
    /// Signed bytes with a half-precision scale: for sixteen of them on a CPU, 9 bits a number, for
    /// 32 on a GPU.
    Q8_0,
}

impl KvFormat {
    /// All formats, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::BF16, Self::Q8_0];

    /// Returns the name in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Finds a format by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Returns the bytes of a row of `width` numbers on a CPU.
    #[must_use]
    pub fn row_bytes(self, width: usize) -> usize {
        let chunk = match self {
            Self::F32 => size_of::<F32Chunk>(),
            Self::F16 => size_of::<F16Chunk>(),
            Self::BF16 => size_of::<BF16Chunk>(),
            Self::Q8_0 => size_of::<Q8Chunk>(),
        };
        width.div_ceil(LANES) * chunk
    }

    /// Appends a row to `rows`.
    pub(crate) fn append(self, row: &[f32], rows: &mut Vec<u8>) {
        match self {
            Self::F32 => append::<F32Chunk>(row, rows),
            Self::F16 => append::<F16Chunk>(row, rows),
            Self::BF16 => append::<BF16Chunk>(row, rows),
            Self::Q8_0 => append::<Q8Chunk>(row, rows),
        }
    }
}

impl Display for KvFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn append<C: Chunk>(row: &[f32], rows: &mut Vec<u8>) {
    for numbers in row.chunks(LANES) {
        let mut padded = [0.0; LANES];
        padded[..numbers.len()].copy_from_slice(numbers);
        rows.extend_from_slice(bytemuck::bytes_of(&C::store(&padded)));
    }
}

/// Sixteen stored numbers, at any address.
pub(crate) trait Chunk: Pod {
    /// Rounds numbers.
    fn store(numbers: &[f32; LANES]) -> Self;
    /// Loads the numbers.
    fn load<S: Lanes>(&self, simd: S) -> S::Floats;
}

/// A chunk of [`KvFormat::F32`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct F32Chunk([u8; 4 * LANES]);

/// A chunk of [`KvFormat::F16`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct F16Chunk([u8; 2 * LANES]);

/// A chunk of [`KvFormat::BF16`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct BF16Chunk([u8; 2 * LANES]);

/// A chunk of [`KvFormat::Q8_0`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q8Chunk {
    scale: [u8; 2],
    numbers: [u8; LANES],
}

impl Chunk for F32Chunk {
    fn store(numbers: &[f32; LANES]) -> Self {
        Self(bytemuck::must_cast(numbers.map(f32::to_le_bytes)))
    }

    #[inline(always)]
    fn load<S: Lanes>(&self, simd: S) -> S::Floats {
        simd.load_f32_bytes(&self.0)
    }
}

impl Chunk for F16Chunk {
    fn store(numbers: &[f32; LANES]) -> Self {
        let largest = f16::MAX.to_f32();
        let mut halves = [f16::ZERO; LANES];
        halves.convert_from_f32_slice(&numbers.map(|number| number.clamp(-largest, largest)));
        Self(bytemuck::must_cast(halves.map(f16::to_le_bytes)))
    }

    #[inline(always)]
    fn load<S: Lanes>(&self, simd: S) -> S::Floats {
        simd.load_f16(&self.0)
    }
}

impl Chunk for BF16Chunk {
    fn store(numbers: &[f32; LANES]) -> Self {
        Self(bytemuck::must_cast(numbers.map(|number| bf16::from_f32(number).to_le_bytes())))
    }

    #[inline(always)]
    fn load<S: Lanes>(&self, simd: S) -> S::Floats {
        simd.load_bf16(&self.0)
    }
}

impl Chunk for Q8Chunk {
    fn store(numbers: &[f32; LANES]) -> Self {
        let largest = numbers.iter().fold(0.0_f32, |largest, number| match number.abs() {
            // NaN is the largest of all, so that it reaches the scale.
            number if number > largest || number.is_nan() => number,
            _ => largest,
        });
        let scale = f16::from_f32(largest / 127.0);
        let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        let round = |number: f32| (number * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
        Self { scale: scale.to_le_bytes(), numbers: numbers.map(|number| round(number).cast_unsigned()) }
    }

    #[inline(always)]
    fn load<S: Lanes>(&self, simd: S) -> S::Floats {
        simd.mul(simd.load_i8(&self.numbers), simd.splat_f16(self.scale))
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;
    use super::*;

    fn round_trip<C: Chunk>(numbers: [f32; LANES]) -> [f32; LANES] {
        Portable.to_array(C::store(&numbers).load(Portable))
    }

    #[test]
    fn rounding_errors_are_those_of_the_format() {
        let numbers: [f32; LANES] = std::array::from_fn(|index| (index as f32 * 12.9898).sin() * 3.0);
        assert_eq!(round_trip::<F32Chunk>(numbers), numbers);
        for (number, half) in numbers.iter().zip(round_trip::<F16Chunk>(numbers)) {
            assert!((number - half).abs() <= number.abs() / 2048.0, "{number} {half}");
        }
        for (number, half) in numbers.iter().zip(round_trip::<BF16Chunk>(numbers)) {
            assert!((number - half).abs() <= number.abs() / 256.0, "{number} {half}");
        }
        for (number, byte) in numbers.iter().zip(round_trip::<Q8Chunk>(numbers)) {
            assert!((number - byte).abs() <= 3.0 / 127.0 * 0.51, "{number} {byte}");
        }
    }

    #[test]
    fn extremes_stay_finite_and_nan_stays_visible() {
        let large = [1e6; LANES];
        assert_eq!(round_trip::<F16Chunk>(large), [65504.0; LANES]);
        assert!((round_trip::<Q8Chunk>(large)[0] - 1e6).abs() < 1e3);
        assert_eq!(round_trip::<Q8Chunk>([0.0; LANES]), [0.0; LANES]);
        let mut broken = [1.0; LANES];
        broken[3] = f32::NAN;
        assert!(round_trip::<F16Chunk>(broken)[3].is_nan() && round_trip::<BF16Chunk>(broken)[3].is_nan());
        assert!(round_trip::<Q8Chunk>(broken)[3].is_nan());
    }

    #[test]
    fn rows_are_padded_to_whole_chunks() {
        for format in KvFormat::ALL {
            let mut rows = Vec::new();
            format.append(&[1.0; 20], &mut rows);
            assert_eq!(rows.len(), format.row_bytes(20), "{format}");
            assert_eq!(KvFormat::parse(&format.name().to_uppercase()), Some(format));
        }
        assert_eq!(KvFormat::Q8_0.row_bytes(64), 72);
    }
}
