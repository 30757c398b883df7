//! Sixteen lanes in two registers of AVX2.

use std::arch::x86_64::*;

use super::registers::{load, operations, parts, parts_mut, store};
use super::{LANES, Lanes, VECTOR_BYTES, with_features};

/// Distance in bytes at which [`Lanes::load_bytes`] prefetches on x86-64: an eighth of a
/// first-level cache.
pub(super) const PREFETCH_AHEAD: usize = 4 << 10;

/// Witness of AVX2, FMA and F16C, and of AVX-VNNI, the dot products of bytes, if so marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2<const VNNI: bool>(());

impl Avx2<false> {
    /// Returns a witness if this processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let has_all =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has_all.then_some(Self(()))
    }
}

impl Avx2<true> {
    /// Returns a witness if this processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        (Avx2::<false>::detect().is_some() && is_x86_feature_detected!("avxvnni")).then_some(Self(()))
    }
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// Returns this witness as one of the instructions that both kinds stand for.
    pub(super) fn without_vnni(self) -> Avx2<false> {
        Avx2(())
    }

    /// Returns this witness as one of AVX-VNNI if it is marked as such.
    #[inline(always)]
    fn vnni(self) -> Option<Avx2<true>> {
        VNNI.then_some(Avx2(()))
    }
}

/// Adds to each sum four unsigned bytes of `weights` times the four signed bytes of `x`.
#[inline(always)]
fn dot(vnni: Avx2<true>, sums: [__m256i; 2], weights: [__m256i; 2], x: [u8; 4]) -> [__m256i; 2] {
    with_features!(Avx2Vnni, vnni, fn(sums: [__m256i; 2], weights: [__m256i; 2], x: [u8; 4]) -> [__m256i; 2] {
        let x = _mm256_set1_epi32(i32::from_le_bytes(x));
        [
            _mm256_dpbusd_avx_epi32(sums[0], weights[0], x),
            _mm256_dpbusd_avx_epi32(sums[1], weights[1], x),
        ]
    })
}

impl<const VNNI: bool> Lanes for Avx2<VNNI> {
    const WIDE: bool = false;
    const TILES: bool = false;
    const BIAS: i32 = if VNNI { 128 } else { 0 };
    type Floats = [__m256; 2];
    type Ints = [__m256i; 2];
    type Small = [__m256i; 2];
    type Bytes = [__m256i; 2];

    operations! { Avx2:
        fn splat(value: f32) -> [__m256; 2] {
            [_mm256_set1_ps(value); 2]
        }

        fn splat_f16(from: [u8; 2]) -> [__m256; 2] {
            [_mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(u16::from_le_bytes(from).into()))); 2]
        }

        fn load(from: &[f32; LANES]) -> [__m256; 2] {
            let [low, high] = parts::<[f32; 8], _, 2>(from);
            [load(low), load(high)]
        }

        fn load_f32_bytes(from: &[u8; 4 * LANES]) -> [__m256; 2] {
            let [low, high] = parts::<[u8; 32], _, 2>(from);
            [load(low), load(high)]
        }

        fn load_bf16(from: &[u8; 2 * LANES]) -> [__m256; 2] {
            // A bfloat16 is the upper half of a float.
            let widen = |half: &[u8; 16]| _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load(half)));
            let [low, high] = parts(from);
            [_mm256_castsi256_ps(widen(low)), _mm256_castsi256_ps(widen(high))]
        }

        fn load_f16(from: &[u8; 2 * LANES]) -> [__m256; 2] {
            let [low, high] = parts::<[u8; 16], _, 2>(from);
            [_mm256_cvtph_ps(load(low)), _mm256_cvtph_ps(load(high))]
        }

        fn load_i8(from: &[u8; LANES]) -> [__m256; 2] {
            let widen = |half: &[u8; 8]| _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*half)));
            let [low, high] = parts(from);
            [_mm256_cvtepi32_ps(widen(low)), _mm256_cvtepi32_ps(widen(high))]
        }

        fn load_u8(from: &[u8; LANES]) -> [__m256; 2] {
            let widen = |half: &[u8; 8]| _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*half)));
            let [low, high] = parts(from);
            [_mm256_cvtepi32_ps(widen(low)), _mm256_cvtepi32_ps(widen(high))]
        }

        fn to_array(floats: [__m256; 2]) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            let [low, high] = parts_mut::<[f32; 8], _, 2>(&mut array);
            store(floats[0], low);
            store(floats[1], high);
            array
        }

        fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
        }

        fn mul_add(a: [__m256; 2], b: [__m256; 2], sum: [__m256; 2]) -> [__m256; 2] {
            [_mm256_fmadd_ps(a[0], b[0], sum[0]), _mm256_fmadd_ps(a[1], b[1], sum[1])]
        }

        fn sum(floats: [__m256; 2]) -> f32 {
            sum_of_four(fold(floats[0], floats[1]))
        }

        fn sum_four(floats: [[__m256; 2]; 4]) -> [f32; 4] {
            let [a, b, c, d] = floats;
            sums_of_four([fold(a[0], a[1]), fold(b[0], b[1]), fold(c[0], c[1]), fold(d[0], d[1])])
        }

        fn splat_i32(value: i32) -> [__m256i; 2] {
            [_mm256_set1_epi32(value); 2]
        }

        fn load_i32(from: &[i32; LANES]) -> [__m256i; 2] {
            let [low, high] = parts::<[i32; 8], _, 2>(from);
            [load(low), load(high)]
        }

        fn to_floats(ints: [__m256i; 2]) -> [__m256; 2] {
            [_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])]
        }

        fn load_bytes(from: &[u8; VECTOR_BYTES]) -> [__m256i; 2] {
            _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(PREFETCH_AHEAD).cast());
            let [low, high] = parts::<[u8; 32], _, 2>(from);
            [load(low), load(high)]
        }

        fn to_bytes(bytes: [__m256i; 2]) -> [u8; VECTOR_BYTES] {
            let mut array = [0; VECTOR_BYTES];
            let [low, high] = parts_mut::<[u8; 32], _, 2>(&mut array);
            store(bytes[0], low);
            store(bytes[1], high);
            array
        }

        fn zero_bytes() -> [__m256i; 2] {
            [_mm256_setzero_si256(); 2]
        }

        fn shift_and_mask(bytes: [__m256i; 2], places: i32, mask: u8) -> [__m256i; 2] {
            let shift = |half| {
                let count = _mm_cvtsi32_si128(places.abs());
                let shifted = if places < 0 { _mm256_srl_epi16(half, count) } else { _mm256_sll_epi16(half, count) };
                _mm256_and_si256(shifted, _mm256_set1_epi8(mask.cast_signed()))
            };
            [shift(bytes[0]), shift(bytes[1])]
        }

        fn or(bytes: [__m256i; 2], others: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_or_si256(bytes[0], others[0]), _mm256_or_si256(bytes[1], others[1])]
        }

        fn look_up(table: &[u8; 16], indices: [__m256i; 2]) -> [__m256i; 2] {
            let table = _mm256_broadcastsi128_si256(load(table));
            [_mm256_shuffle_epi8(table, indices[0]), _mm256_shuffle_epi8(table, indices[1])]
        }
    }

    #[inline(always)]
    fn begin_small(self, sums: [__m256i; 2]) -> [__m256i; 2] {
        if VNNI {
            return sums;
        }
        with_features!(Avx2, self, fn() -> [__m256i; 2] { [_mm256_setzero_si256(); 2] })
    }

    #[inline(always)]
    fn dot_small(self, small: [__m256i; 2], weights: [__m256i; 2], x: [u8; 4]) -> [__m256i; 2] {
        if let Some(vnni) = self.vnni() {
            return dot(vnni, small, weights, x);
        }
        with_features!(Avx2, self, fn(small: [__m256i; 2], weights: [__m256i; 2], x: [u8; 4]) -> [__m256i; 2] {
            let x = _mm256_set1_epi32(i32::from_le_bytes(x));
            let add = |sums, weights| _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, x));
            [add(small[0], weights[0]), add(small[1], weights[1])]
        })
    }

    #[inline(always)]
    fn end_small(self, sums: [__m256i; 2], small: [__m256i; 2]) -> [__m256i; 2] {
        if VNNI {
            return small;
        }
        with_features!(Avx2, self, fn(sums: [__m256i; 2], small: [__m256i; 2]) -> [__m256i; 2] {
            let add = |sum, pairs| _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            [add(sums[0], small[0]), add(sums[1], small[1])]
        })
    }

    #[inline(always)]
    fn dot_biased(self, sums: [__m256i; 2], weights: [__m256i; 2], x: [u8; 4]) -> [__m256i; 2] {
        if let Some(vnni) = self.vnni() {
            return dot(vnni, sums, weights, x);
        }
        with_features!(Avx2, self, fn(sums: [__m256i; 2], weights: [__m256i; 2], x: [u8; 4]) -> [__m256i; 2] {
            // `maddubs` multiplies unsigned by signed bytes and adds pairs of products, saturating
            // at 16 bits. Its unsigned operand is the magnitude of the weight; the weight's sign
            // goes to the input. Two products of bytes from -127 to 127 fit into 16 bits, so
            // nothing saturates.
            let x = _mm256_set1_epi32(i32::from_le_bytes(x));
            let add = |sum, weights| {
                let weights = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights));
                _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            };
            [add(sums[0], weights[0]), add(sums[1], weights[1])]
        })
    }
}

/// Adds the halves of sixteen lanes, then the halves of these eight.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn fold(low: __m256, high: __m256) -> __m128 {
    let eight = _mm256_add_ps(low, high);
    _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight))
}

/// Adds the halves of four lanes, then both of these.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn sum_of_four(lanes: __m128) -> f32 {
    let two = _mm_add_ps(lanes, _mm_movehl_ps(lanes, lanes));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Returns [`sum_of_four`] of each. The lanes are transposed on the way, so that two additions fold
/// all of them: lane by lane the same additions.
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn sums_of_four([a, b, c, d]: [__m128; 4]) -> [f32; 4] {
    let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    let all = _mm_add_ps(_mm_shuffle_ps::<0b10_00_10_00>(ab, cd), _mm_shuffle_ps::<0b11_01_11_01>(ab, cd));
    let mut sums = [0.0; 4];
    store(all, &mut sums);
    sums
}
