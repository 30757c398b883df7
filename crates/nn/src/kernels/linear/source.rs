//! Weight rows as sixteen floats at a time.

use half::f16;

use crate::kernels::lanes::{LANES, Lanes};

/// A weight row in some format.
pub(super) trait Source<'a>: Copy {
    /// From the bytes of a row.
    fn new(row: &'a [u8]) -> Self;
    /// Values `16 * block` to `16 * block + 15`.
    fn lanes<V: Lanes>(&self, block: usize) -> V;
}

/// A row already widened, padded with zeros to whole blocks.
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
    fn lanes<V: Lanes>(&self, block: usize) -> V {
        V::load(&self.0[block])
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
            fn lanes<V: Lanes>(&self, block: usize) -> V {
                V::$load(&self.0[block])
            }
        }
    };
}

plain!(F32, 4, load_f32_bytes);
plain!(Bf16, 2, load_bf16);
plain!(F16, 2, load_f16);

/// Blocks of 32: a half-precision scale, then signed bytes.
#[derive(Clone, Copy)]
pub(super) struct Q8<'a>(&'a [[u8; 34]]);

impl<'a> Source<'a> for Q8<'a> {
    #[inline(always)]
    fn new(row: &'a [u8]) -> Self {
        Self(row.as_chunks().0)
    }

    #[inline(always)]
    fn lanes<V: Lanes>(&self, block: usize) -> V {
        let [low, high, values @ ..] = &self.0[block / 2];
        // `to_f32` asks at each call what the processor can do.
        let scale = f16::from_le_bytes([*low, *high]).to_f32_const();
        V::load_i8(&values.as_chunks().0[block % 2]).mul(V::splat(scale))
    }
}
