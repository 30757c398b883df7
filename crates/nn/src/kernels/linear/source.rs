//! Weight rows, read as sixteen floats at a time.

use crate::kernels::simd::{LANES, Lanes};

/// Weight row in some format.
pub(super) trait Source<'a>: Copy {
    /// Views the bytes of a row.
    fn new(row: &'a [u8]) -> Self;

    /// Returns the first `blocks` blocks of 16 values.
    ///
    /// # Panics
    /// If the row is shorter.
    fn first(self, blocks: usize) -> Self;

    /// Returns values `16 * block` to `16 * block + 15`.
    ///
    /// # Panics
    /// If the row is shorter.
    fn lanes<S: Lanes>(self, simd: S, block: usize) -> S::Floats;
}

/// Row that is widened already, padded with zeros to whole blocks.
#[derive(Clone, Copy)]
pub(super) struct Widened<'a>(&'a [[f32; LANES]]);

impl<'a> Widened<'a> {
    #[inline(always)]
    pub(super) fn of(row: &'a [f32]) -> Self {
        Self(row.as_chunks().0)
    }
}

impl<'a> Source<'a> for Widened<'a> {
    #[inline(always)]
    fn new(_: &'a [u8]) -> Self {
        Self(&[])
    }

    #[inline(always)]
    fn first(self, blocks: usize) -> Self {
        Self(&self.0[..blocks])
    }

    #[inline(always)]
    fn lanes<S: Lanes>(self, simd: S, block: usize) -> S::Floats {
        simd.load(&self.0[block])
    }
}

macro_rules! plain {
    ($name:ident, $bytes:expr, $load:ident) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name<'a>(&'a [[u8; $bytes * LANES]]);

        impl<'a> Source<'a> for $name<'a> {
            #[inline(always)]
            fn new(row: &'a [u8]) -> Self {
                Self(row.as_chunks().0)
            }

            #[inline(always)]
            fn first(self, blocks: usize) -> Self {
                Self(&self.0[..blocks])
            }

            #[inline(always)]
            fn lanes<S: Lanes>(self, simd: S, block: usize) -> S::Floats {
                simd.$load(&self.0[block])
            }
        }
    };
}

plain!(F32, 4, load_f32_bytes);
plain!(Bf16, 2, load_bf16);
plain!(F16, 2, load_f16);

/// Row of [`Format::Q8_0`](crate::format::Format): blocks of a half-precision scale and 32 signed
/// bytes.
#[derive(Clone, Copy)]
pub(super) struct Q8<'a>(&'a [[u8; 34]]);

impl<'a> Source<'a> for Q8<'a> {
    #[inline(always)]
    fn new(row: &'a [u8]) -> Self {
        Self(row.as_chunks().0)
    }

    #[inline(always)]
    fn first(self, blocks: usize) -> Self {
        Self(&self.0[..blocks.div_ceil(2)])
    }

    #[inline(always)]
    fn lanes<S: Lanes>(self, simd: S, block: usize) -> S::Floats {
        let [low, high, values @ ..] = &self.0[block / 2];
        let scale = widen(u16::from_le_bytes([*low, *high]));
        simd.mul(simd.load_i8(&values.as_chunks().0[block % 2]), simd.splat(scale))
    }
}

/// Converts half to single precision, without branches and without asking the processor for its
/// instructions.
///
/// Shifted to its place in an `f32`, the exponent is 112 too small, as the two biases are 15 and
/// 127. A multiplication by 2^112 corrects it, and normalizes subnormal numbers on the way. In
/// infinities and NaN all bits of the exponent must stay set instead.
#[inline(always)]
fn widen(half: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(half & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * TWO_TO_112).to_bits();
    let bits = if half & 0x7c00 == 0x7c00 { magnitude | 0x7f80_0000 } else { finite };
    f32::from_bits(bits | u32::from(half & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_as_by_the_half_crate() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let widened = widen(bits);
            assert!(widened.to_bits() == expected.to_bits() || widened.is_nan() && expected.is_nan(), "{bits:#x}");
        }
    }
}
