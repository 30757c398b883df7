//! Sixteen lanes in one register of AVX-512.

use std::arch::x86_64::*;

use super::avx2::{PREFETCH_AHEAD, fold, sum_of_four, sums_of_four};
use super::registers::{load, operations, store};
use super::{Avx2, LANES, Lanes, VECTOR_BYTES, with_features};

/// Witness of AVX-512 F, BW, VL and VNNI, of all that [`Avx2`] stands for, and of AVX-512 BF16 if
/// so marked.
///
/// VL makes the lower parts of all 32 registers usable, so that sixteen sums and their operands
/// stay in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512<const BF16: bool>(());

impl Avx512<false> {
    /// Returns a witness if this processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let has_all = Avx2::<false>::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        has_all.then_some(Self(()))
    }
}

impl Avx512<true> {
    /// Returns a witness if this processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        (Avx512::<false>::detect().is_some() && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }
}

impl<const BF16: bool> Avx512<BF16> {
    /// Returns this witness as one of the instructions that both kinds stand for.
    pub(super) fn without_bf16(self) -> Avx512<false> {
        Avx512(())
    }

    /// Returns this witness as one of AVX-512 BF16 if it is marked as such.
    #[inline(always)]
    fn bf16(self) -> Option<Avx512<true>> {
        BF16.then_some(Avx512(()))
    }
}

impl<const BF16: bool> Lanes for Avx512<BF16> {
    const WIDE: bool = true;
    const TILES: bool = true;
    const BIAS: i32 = 128;
    type Floats = __m512;
    type Ints = __m512i;
    type Small = __m512i;
    type Bytes = __m512i;

    operations! { Avx512:
        fn splat(value: f32) -> __m512 {
            _mm512_set1_ps(value)
        }

        fn splat_f16(from: [u8; 2]) -> __m512 {
            _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(u16::from_le_bytes(from).into())))
        }

        fn load(from: &[f32; LANES]) -> __m512 {
            load(from)
        }

        fn load_f32_bytes(from: &[u8; 4 * LANES]) -> __m512 {
            load(from)
        }

        fn load_bf16(from: &[u8; 2 * LANES]) -> __m512 {
            // A bfloat16 is the upper half of a float.
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load(from))))
        }

        fn load_f16(from: &[u8; 2 * LANES]) -> __m512 {
            _mm512_cvtph_ps(load(from))
        }

        fn load_i8(from: &[u8; LANES]) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load(from)))
        }

        fn load_u8(from: &[u8; LANES]) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load(from)))
        }

        fn to_array(floats: __m512) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            store(floats, &mut array);
            array
        }

        fn mul(a: __m512, b: __m512) -> __m512 {
            _mm512_mul_ps(a, b)
        }

        fn mul_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, sum)
        }

        fn sum(floats: __m512) -> f32 {
            sum_of_four(fold_to_four(floats))
        }

        fn sum_four(floats: [__m512; 4]) -> [f32; 4] {
            let [a, b, c, d] = floats;
            sums_of_four([fold_to_four(a), fold_to_four(b), fold_to_four(c), fold_to_four(d)])
        }

        fn splat_i32(value: i32) -> __m512i {
            _mm512_set1_epi32(value)
        }

        fn load_i32(from: &[i32; LANES]) -> __m512i {
            load(from)
        }

        fn to_floats(ints: __m512i) -> __m512 {
            _mm512_cvtepi32_ps(ints)
        }

        fn load_bytes(from: &[u8; VECTOR_BYTES]) -> __m512i {
            _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(PREFETCH_AHEAD).cast());
            load(from)
        }

        fn to_bytes(bytes: __m512i) -> [u8; VECTOR_BYTES] {
            let mut array = [0; VECTOR_BYTES];
            store(bytes, &mut array);
            array
        }

        fn zero_bytes() -> __m512i {
            _mm512_setzero_si512()
        }

        fn shift_and_mask(bytes: __m512i, places: i32, mask: u8) -> __m512i {
            let count = _mm_cvtsi32_si128(places.abs());
            let shifted = if places < 0 { _mm512_srl_epi16(bytes, count) } else { _mm512_sll_epi16(bytes, count) };
            _mm512_and_si512(shifted, _mm512_set1_epi8(mask.cast_signed()))
        }

        fn or(bytes: __m512i, others: __m512i) -> __m512i {
            _mm512_or_si512(bytes, others)
        }

        fn look_up(table: &[u8; 16], indices: __m512i) -> __m512i {
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load(table)), indices)
        }

        fn begin_small(sums: __m512i) -> __m512i {
            sums
        }

        fn dot_small(small: __m512i, weights: __m512i, x: [u8; 4]) -> __m512i {
            _mm512_dpbusd_epi32(small, weights, _mm512_set1_epi32(i32::from_le_bytes(x)))
        }

        fn end_small(_sums: __m512i, small: __m512i) -> __m512i {
            small
        }

        fn dot_biased(sums: __m512i, weights: __m512i, x: [u8; 4]) -> __m512i {
            _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(i32::from_le_bytes(x)))
        }
    }

    #[inline(always)]
    fn dot_bf16(self, sums: __m512, weights: __m512i, x: [u8; 4]) -> __m512 {
        let Some(witness) = self.bf16() else {
            unreachable!("invariant: matrices are stored in tiles of bfloat16 only where there are instructions for it")
        };
        with_features!(Avx512Bf16, witness, fn(sums: __m512, weights: __m512i, x: [u8; 4]) -> __m512 {
            let x = _mm512_set1_epi32(i32::from_le_bytes(x));
            _mm512_dpbf16_ps(sums, bytemuck::must_cast(weights), bytemuck::must_cast(x))
        })
    }
}

/// Adds the halves of sixteen lanes, then the halves of these eight.
#[inline]
#[target_feature(enable = "avx512f")]
fn fold_to_four(lanes: __m512) -> __m128 {
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
    fold(_mm512_castps512_ps256(lanes), high)
}
