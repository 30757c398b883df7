//! Sixteen lanes in plain Rust, auto-vectorized by the compiler.

use half::f16;

use super::{LANES, Lanes, VECTOR_BYTES};

/// Witness of no instruction set: every processor runs these operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portable;

impl Lanes for Portable {
    const WIDE: bool = false;
    const TILES: bool = true;
    const BIAS: i32 = 0;
    type Floats = [f32; LANES];
    type Ints = [i32; LANES];
    type Small = [i32; LANES];
    type Bytes = [u8; VECTOR_BYTES];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Floats {
        *from
    }

    #[inline(always)]
    fn load_f32_bytes(self, from: &[u8; 4 * LANES]) -> Self::Floats {
        each(from.as_chunks().0, f32::from_le_bytes)
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Self::Floats {
        each(from.as_chunks().0, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::Floats {
        each(from.as_chunks().0, |bytes| f16::from_le_bytes(bytes).to_f32())
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Self::Floats {
        each(from.as_chunks().0, |[byte]: [u8; 1]| f32::from(byte.cast_signed()))
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::Floats {
        from.map(f32::from)
    }

    #[inline(always)]
    fn to_array(self, floats: Self::Floats) -> [f32; LANES] {
        floats
    }

    #[inline(always)]
    fn mul(self, mut a: Self::Floats, b: Self::Floats) -> Self::Floats {
        for (a, b) in a.iter_mut().zip(b) {
            *a *= b;
        }
        a
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, mut sum: Self::Floats) -> Self::Floats {
        for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
            // Without the instruction, a fused multiplication is a slow call.
            *sum = if cfg!(target_arch = "aarch64") { a.mul_add(b, *sum) } else { *sum + a * b };
        }
        sum
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> Self::Ints {
        [value; LANES]
    }

    #[inline(always)]
    fn load_i32(self, from: &[i32; LANES]) -> Self::Ints {
        *from
    }

    #[inline(always)]
    fn to_floats(self, ints: Self::Ints) -> Self::Floats {
        ints.map(|int| int as f32)
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; VECTOR_BYTES]) -> Self::Bytes {
        *from
    }

    #[inline(always)]
    fn to_bytes(self, bytes: Self::Bytes) -> [u8; VECTOR_BYTES] {
        bytes
    }

    #[inline(always)]
    fn zero_bytes(self) -> Self::Bytes {
        [0; VECTOR_BYTES]
    }

    #[inline(always)]
    fn shift_and_mask(self, mut bytes: Self::Bytes, places: i32, mask: u8) -> Self::Bytes {
        for pair in bytes.as_chunks_mut::<2>().0 {
            let bits = u16::from_le_bytes(*pair);
            let shifted = if places < 0 { bits >> -places } else { bits << places };
            *pair = (shifted & u16::from_le_bytes([mask; 2])).to_le_bytes();
        }
        bytes
    }

    #[inline(always)]
    fn or(self, mut bytes: Self::Bytes, others: Self::Bytes) -> Self::Bytes {
        for (byte, other) in bytes.iter_mut().zip(others) {
            *byte |= other;
        }
        bytes
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], indices: Self::Bytes) -> Self::Bytes {
        indices.map(|index| table[usize::from(index)])
    }

    #[inline(always)]
    fn begin_small(self, sums: Self::Ints) -> Self::Small {
        sums
    }

    #[inline(always)]
    fn end_small(self, _: Self::Ints, small: Self::Small) -> Self::Ints {
        small
    }

    #[inline(always)]
    fn dot_small(self, small: Self::Small, weights: Self::Bytes, x: [u8; 4]) -> Self::Small {
        dot(small, weights, x, 0)
    }

    #[inline(always)]
    fn dot_biased(self, sums: Self::Ints, weights: Self::Bytes, x: [u8; 4]) -> Self::Ints {
        dot(sums, weights, x, 128)
    }
}

/// Converts sixteen numbers to floats.
#[inline(always)]
fn each<const BYTES: usize>(from: &[[u8; BYTES]], read: impl Fn([u8; BYTES]) -> f32) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (lane, bytes) in lanes.iter_mut().zip(from) {
        *lane = read(*bytes);
    }
    lanes
}

/// Adds to each row's sum its four bytes, less `zero`, times the four signed bytes of `x`.
#[inline(always)]
fn dot(mut sums: [i32; LANES], weights: [u8; VECTOR_BYTES], x: [u8; 4], zero: i32) -> [i32; LANES] {
    for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
        for (weight, x) in weights.iter().zip(x) {
            *sum += (i32::from(*weight) - zero) * i32::from(x.cast_signed());
        }
    }
    sums
}
