//! Sixteen lanes in four registers of NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::registers::{load, operations, parts, parts_mut, store};
use super::{LANES, Lanes, VECTOR_BYTES, with_features};

/// Witness of NEON, and of `dotprod`, the dot products of bytes, if so marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neon<const DOT: bool>(());

impl Neon<false> {
    /// Returns a witness: every AArch64 processor has NEON.
    pub(super) fn detect() -> Self {
        Self(())
    }
}

impl Neon<true> {
    /// Returns a witness if this processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }
}

impl<const DOT: bool> Neon<DOT> {
    /// Returns this witness as one of `dotprod` if it is marked as such.
    #[inline(always)]
    fn dot(self) -> Option<Neon<true>> {
        DOT.then_some(Neon(()))
    }
}

impl<const DOT: bool> Lanes for Neon<DOT> {
    const WIDE: bool = false;
    const TILES: bool = false;
    const BIAS: i32 = 0;
    type Floats = [float32x4_t; 4];
    type Ints = [int32x4_t; 4];
    type Small = [int32x4_t; 4];
    type Bytes = [uint8x16_t; 4];

    operations! { Neon:
        fn splat(value: f32) -> [float32x4_t; 4] {
            [vdupq_n_f32(value); 4]
        }

        fn load(from: &[f32; LANES]) -> [float32x4_t; 4] {
            let parts = parts::<[f32; 4], _, 4>(from);
            four(|i| load(&parts[i]))
        }

        fn load_f32_bytes(from: &[u8; 4 * LANES]) -> [float32x4_t; 4] {
            let parts = parts::<[u8; 16], _, 4>(from);
            four(|i| load(&parts[i]))
        }

        fn load_bf16(from: &[u8; 2 * LANES]) -> [float32x4_t; 4] {
            // A bfloat16 is the upper half of a float.
            let parts = parts::<[u8; 8], _, 4>(from);
            four(|i| vreinterpretq_f32_u32(vshll_n_u16::<16>(load(&parts[i]))))
        }

        fn load_i8(from: &[u8; LANES]) -> [float32x4_t; 4] {
            let bytes = load::<int8x16_t, _>(from);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }

        fn load_u8(from: &[u8; LANES]) -> [float32x4_t; 4] {
            let bytes = load::<uint8x16_t, _>(from);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                vcvtq_f32_u32(vmovl_high_u16(low)),
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                vcvtq_f32_u32(vmovl_high_u16(high)),
            ]
        }

        fn to_array(floats: [float32x4_t; 4]) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            for (part, floats) in parts_mut::<[f32; 4], _, 4>(&mut array).iter_mut().zip(floats) {
                store(floats, part);
            }
            array
        }

        fn mul(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
            four(|i| vmulq_f32(a[i], b[i]))
        }

        fn mul_add(a: [float32x4_t; 4], b: [float32x4_t; 4], sum: [float32x4_t; 4]) -> [float32x4_t; 4] {
            four(|i| vfmaq_f32(sum[i], a[i], b[i]))
        }

        fn sum(floats: [float32x4_t; 4]) -> f32 {
            let [a, b, c, d] = floats;
            let folded = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            vpadds_f32(vadd_f32(vget_low_f32(folded), vget_high_f32(folded)))
        }

        fn splat_i32(value: i32) -> [int32x4_t; 4] {
            [vdupq_n_s32(value); 4]
        }

        fn to_floats(ints: [int32x4_t; 4]) -> [float32x4_t; 4] {
            four(|i| vcvtq_f32_s32(ints[i]))
        }

        fn load_i32(from: &[i32; LANES]) -> [int32x4_t; 4] {
            let parts = parts::<[i32; 4], _, 4>(from);
            four(|i| load(&parts[i]))
        }

        fn to_bytes(bytes: [uint8x16_t; 4]) -> [u8; VECTOR_BYTES] {
            let mut array = [0; VECTOR_BYTES];
            for (part, bytes) in parts_mut::<[u8; 16], _, 4>(&mut array).iter_mut().zip(bytes) {
                store(bytes, part);
            }
            array
        }

        fn load_bytes(from: &[u8; VECTOR_BYTES]) -> [uint8x16_t; 4] {
            let parts = parts::<[u8; 16], _, 4>(from);
            four(|i| load(&parts[i]))
        }

        fn zero_bytes() -> [uint8x16_t; 4] {
            [vdupq_n_u8(0); 4]
        }

        fn shift_and_mask(bytes: [uint8x16_t; 4], places: i32, mask: u8) -> [uint8x16_t; 4] {
            // A shift to the left by a negative number is one to the right.
            let places = vdupq_n_s16(places as i16);
            four(|i| {
                let shifted = vshlq_u16(vreinterpretq_u16_u8(bytes[i]), places);
                vandq_u8(vreinterpretq_u8_u16(shifted), vdupq_n_u8(mask))
            })
        }

        fn or(bytes: [uint8x16_t; 4], others: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
            four(|i| vorrq_u8(bytes[i], others[i]))
        }

        fn look_up(table: &[u8; 16], indices: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
            let table = load(table);
            four(|i| vqtbl1q_u8(table, indices[i]))
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> [float32x4_t; 4] {
        let mut floats = [0.0; LANES];
        for (float, bytes) in floats.iter_mut().zip(from.as_chunks().0) {
            *float = f16::from_le_bytes(*bytes).to_f32();
        }
        self.load(&floats)
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
    fn dot_small(self, sums: [int32x4_t; 4], weights: [uint8x16_t; 4], x: [u8; 4]) -> [int32x4_t; 4] {
        if let Some(witness) = self.dot() {
            return with_features!(
                NeonDot, witness, fn(sums: [int32x4_t; 4], weights: [uint8x16_t; 4], x: [u8; 4]) -> [int32x4_t; 4] {
                    let x = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(x)));
                    four(|i| sdot(sums[i], vreinterpretq_s8_u8(weights[i]), x))
                }
            );
        }
        with_features!(
            Neon, self, fn(sums: [int32x4_t; 4], weights: [uint8x16_t; 4], x: [u8; 4]) -> [int32x4_t; 4] {
                let x = vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(x)));
                four(|i| {
                    // Two products of bytes from -127 to 127 fit into 16 bits.
                    let weights = vreinterpretq_s8_u8(weights[i]);
                    let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
                    vpadalq_s16(sums[i], vpaddq_s16(low, vmull_high_s8(weights, x)))
                })
            }
        )
    }

    #[inline(always)]
    fn dot_biased(self, sums: [int32x4_t; 4], weights: [uint8x16_t; 4], x: [u8; 4]) -> [int32x4_t; 4] {
        let weights = with_features!(Neon, self, fn(weights: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
            four(|i| veorq_u8(weights[i], vdupq_n_u8(128)))
        });
        self.dot_small(sums, weights, x)
    }
}

/// Calls a function for the place of each of four registers.
#[inline(always)]
fn four<T>(make: impl Fn(usize) -> T) -> [T; 4] {
    [make(0), make(1), make(2), make(3)]
}

/// Adds to each of four sums its four bytes of `weights` times those of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // The intrinsic, `vdotq_s32`, is not in stable Rust. SAFETY: the instruction computes from its
    // register operands alone and belongs to `dotprod`, which this function is compiled under.
    #[allow(unsafe_code)]
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums, weights = in(vreg) weights, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
