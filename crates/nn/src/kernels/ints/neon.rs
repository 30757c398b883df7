//! Products of bytes in four registers of NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::lanes::{Neon, four};
use super::{Ints, LANES, QUADS};

// SAFETY (all blocks below): every AArch64 processor has NEON, and the trait restricts use of `Neon<true>` to code running under
// `dotprod`; pointers come from references to arrays of the size read, and the accesses need no alignment.
impl<const DOT: bool> Ints for Neon<DOT> {
    const OFFSET: i32 = 0;
    type Sums = [int32x4_t; 4];
    type Quads = [uint8x16_t; 4];

    #[inline(always)]
    fn start(value: i32) -> Self::Sums {
        unsafe { [vdupq_n_s32(value); 4] }
    }

    #[inline(always)]
    fn quads(from: &[u8; QUADS]) -> Self::Quads {
        four(|i| unsafe { vld1q_u8(from.as_ptr().add(16 * i)) })
    }

    #[inline(always)]
    fn none() -> Self::Quads {
        unsafe { [vdupq_n_u8(0); 4] }
    }

    #[inline(always)]
    fn low(quads: Self::Quads) -> Self::Quads {
        four(|i| unsafe { vandq_u8(quads[i], vdupq_n_u8(15)) })
    }

    #[inline(always)]
    fn high(quads: Self::Quads) -> Self::Quads {
        four(|i| unsafe { vshrq_n_u8::<4>(quads[i]) })
    }

    #[inline(always)]
    fn moved(quads: Self::Quads, places: i32, mask: u8) -> Self::Quads {
        four(|i| unsafe {
            // A shift to the left by a negative number is one to the right.
            let moved = vshlq_u16(vreinterpretq_u16_u8(quads[i]), vdupq_n_s16(places as i16));
            vandq_u8(vreinterpretq_u8_u16(moved), vdupq_n_u8(mask))
        })
    }

    #[inline(always)]
    fn or(quads: Self::Quads, others: Self::Quads) -> Self::Quads {
        four(|i| unsafe { vorrq_u8(quads[i], others[i]) })
    }

    #[inline(always)]
    fn dot_small(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums {
        let x = unsafe { vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(x))) };
        four(|i| unsafe { dot::<DOT>(sums[i], vreinterpretq_s8_u8(weights[i]), x) })
    }

    #[inline(always)]
    fn dot_offset(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums {
        Self::dot_small(sums, four(|i| unsafe { veorq_u8(weights[i], vdupq_n_u8(128)) }), x)
    }

    #[inline(always)]
    fn dot_bf16(self, weights: Self::Quads, x: [u8; 4]) -> Self {
        let [first, second] = [u32::from_le_bytes(x) << 16, u32::from_le_bytes(x) & 0xffff_0000].map(f32::from_bits);
        Self(four(|i| unsafe {
            let pairs = vreinterpretq_u32_u8(weights[i]);
            let [low, high] = [vshlq_n_u32::<16>(pairs), vandq_u32(pairs, vdupq_n_u32(0xffff_0000))];
            let sums = vfmaq_n_f32(self.0[i], vreinterpretq_f32_u32(low), first);
            vfmaq_n_f32(sums, vreinterpretq_f32_u32(high), second)
        }))
    }

    #[inline(always)]
    fn floats(sums: Self::Sums) -> Self {
        Self(four(|i| unsafe { vcvtq_f32_s32(sums[i]) }))
    }

    #[inline(always)]
    fn load_u8(from: &[u8; LANES]) -> Self {
        unsafe {
            let bytes = vld1q_u8(from.as_ptr());
            let [low, high] = [vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes)];
            let floats = |four| vcvtq_f32_u32(four);
            Self([
                floats(vmovl_u16(vget_low_u16(low))),
                floats(vmovl_high_u16(low)),
                floats(vmovl_u16(vget_low_u16(high))),
                floats(vmovl_high_u16(high)),
            ])
        }
    }
}

/// Adds to each of four sums its four bytes, from -127 to 127, times those of `x`.
///
/// # Safety
/// With `DOT` the processor has `dotprod`.
#[inline(always)]
unsafe fn dot<const DOT: bool>(mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    unsafe {
        if DOT {
            // The intrinsic, `vdotq_s32`, is not in stable Rust.
            asm!(
                "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums, weights = in(vreg) weights, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
            return sums;
        }
        // Two products of bytes from -127 to 127 fit into 16 bits.
        let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
        vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(weights, x)))
    }
}
