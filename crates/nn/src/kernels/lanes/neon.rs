//! Sixteen floats in four registers of NEON.

use std::arch::aarch64::*;

use half::f16;

use super::{LANES, Lanes};

/// With `DOT`, the processor has the instructions for bytes (`dotprod`).
#[derive(Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>(pub(crate) [float32x4_t; 4]);

/// What a function makes of each of the four registers' places.
#[inline(always)]
pub(crate) fn four<T>(make: impl Fn(usize) -> T) -> [T; 4] {
    [make(0), make(1), make(2), make(3)]
}

// SAFETY (all blocks below): every AArch64 processor has NEON; pointers come from references to arrays of the size read or
// written, and the accesses need no alignment.
impl<const DOT: bool> Lanes for Neon<DOT> {
    const WIDE: bool = false;

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { Self([vdupq_n_f32(value); 4]) }
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Self(four(|i| unsafe { vld1q_f32(from.as_ptr().add(4 * i)) }))
    }

    #[inline(always)]
    fn load_f32_bytes(from: &[u8; 4 * LANES]) -> Self {
        Self(four(|i| unsafe { vreinterpretq_f32_u8(vld1q_u8(from.as_ptr().add(16 * i))) }))
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 2 * LANES]) -> Self {
        Self(four(|i| unsafe {
            let bits = vreinterpret_u16_u8(vld1_u8(from.as_ptr().add(8 * i)));
            vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
        }))
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 2 * LANES]) -> Self {
        let mut floats = [0.0; LANES];
        for (float, bytes) in floats.iter_mut().zip(from.as_chunks().0) {
            *float = f16::from_le_bytes(*bytes).to_f32();
        }
        Self::load(&floats)
    }

    #[inline(always)]
    fn load_i8(from: &[u8; LANES]) -> Self {
        unsafe {
            let bytes = vreinterpretq_s8_u8(vld1q_u8(from.as_ptr()));
            let [low, high] = [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)];
            let floats = |four| vcvtq_f32_s32(four);
            Self([
                floats(vmovl_s16(vget_low_s16(low))),
                floats(vmovl_high_s16(low)),
                floats(vmovl_s16(vget_low_s16(high))),
                floats(vmovl_high_s16(high)),
            ])
        }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        for (i, four) in self.0.into_iter().enumerate() {
            unsafe { vst1q_f32(to.as_mut_ptr().add(4 * i), four) }
        }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(four(|i| unsafe { vmulq_f32(self.0[i], other.0[i]) }))
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(four(|i| unsafe { vfmaq_f32(self.0[i], a.0[i], b.0[i]) }))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let [a, b, c, d] = self.0;
            let folded = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            vpadds_f32(vadd_f32(vget_low_f32(folded), vget_high_f32(folded)))
        }
    }
}
