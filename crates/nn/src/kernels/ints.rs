//! Products of bytes, sixteen sums at a time: what quantised weights are multiplied with.

use half::bf16;

use super::lanes::{LANES, Lanes, Portable};

/// How far ahead of what is multiplied memory is asked for: an eighth of a first-level cache.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4 << 10;
/// Bytes of four inputs for each of sixteen rows.
pub(crate) const QUADS: usize = 4 * LANES;

/// Sixteen whole numbers beside [`Lanes`]' sixteen floats; the same restriction on their use.
pub(crate) trait Ints: Lanes {
    /// What [`Ints::dot_offset`] leaves in a sum for every unit of the inputs' sum.
    const OFFSET: i32;
    /// Sixteen sums.
    type Sums: Copy;
    /// [`QUADS`] bytes.
    type Quads: Copy;

    fn start(value: i32) -> Self::Sums;
    /// The bytes, and a word to the processor that those a little further on are wanted soon.
    fn quads(from: &[u8; QUADS]) -> Self::Quads;
    /// Zeros.
    fn none() -> Self::Quads;
    /// The low four bits of each byte.
    fn low(quads: Self::Quads) -> Self::Quads;
    /// The high four bits of each byte.
    fn high(quads: Self::Quads) -> Self::Quads;
    /// Each pair of bytes moved `places` bits up, or down where negative, and of each byte what `mask` leaves.
    fn moved(quads: Self::Quads, places: i32, mask: u8) -> Self::Quads;
    /// The bits of both.
    fn or(quads: Self::Quads, others: Self::Quads) -> Self::Quads;
    /// Adds to each row's sum its four bytes, of at most 63, times the four signed bytes of `x`.
    fn dot_small(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums;
    /// The same for bytes from 1 to 255, which stand for 128 less, plus [`Ints::OFFSET`] times the bytes of `x`.
    fn dot_offset(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums;
    /// Adds to each row's sum its two bfloat16 times the two of `x`.
    fn dot_bf16(self, weights: Self::Quads, x: [u8; 4]) -> Self;
    fn floats(sums: Self::Sums) -> Self;
    fn load_u8(from: &[u8; LANES]) -> Self;
}

impl Ints for Portable {
    const OFFSET: i32 = 0;
    type Sums = [i32; LANES];
    type Quads = [u8; QUADS];

    #[inline(always)]
    fn start(value: i32) -> Self::Sums {
        [value; LANES]
    }

    #[inline(always)]
    fn quads(from: &[u8; QUADS]) -> Self::Quads {
        *from
    }

    #[inline(always)]
    fn none() -> Self::Quads {
        [0; QUADS]
    }

    #[inline(always)]
    fn low(quads: Self::Quads) -> Self::Quads {
        quads.map(|byte| byte & 15)
    }

    #[inline(always)]
    fn high(quads: Self::Quads) -> Self::Quads {
        quads.map(|byte| byte >> 4)
    }

    #[inline(always)]
    fn moved(mut quads: Self::Quads, places: i32, mask: u8) -> Self::Quads {
        for pair in quads.as_chunks_mut::<2>().0 {
            let bits = u16::from_le_bytes(*pair);
            let moved = if places < 0 { bits >> -places } else { bits << places };
            *pair = (moved & u16::from_le_bytes([mask; 2])).to_le_bytes();
        }
        quads
    }

    #[inline(always)]
    fn or(mut quads: Self::Quads, others: Self::Quads) -> Self::Quads {
        for (byte, other) in quads.iter_mut().zip(others) {
            *byte |= other;
        }
        quads
    }

    #[inline(always)]
    fn dot_small(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums {
        dot(sums, weights, x, 0)
    }

    #[inline(always)]
    fn dot_offset(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums {
        dot(sums, weights, x, 128)
    }

    #[inline(always)]
    fn dot_bf16(self, weights: Self::Quads, x: [u8; 4]) -> Self {
        let pair = |bytes: [u8; 4]| [0, 2].map(|i| bf16::from_le_bytes([bytes[i], bytes[i + 1]]).to_f32());
        let [x0, x1] = pair(x);
        let mut pairs = [[0.0; LANES]; 2];
        for (row, quad) in weights.as_chunks::<4>().0.iter().enumerate() {
            [pairs[0][row], pairs[1][row]] = pair(*quad);
        }
        self.mul_add(Self::load(&pairs[0]), Self::splat(x0)).mul_add(Self::load(&pairs[1]), Self::splat(x1))
    }

    #[inline(always)]
    fn floats(sums: Self::Sums) -> Self {
        Self::load(&sums.map(|sum| sum as f32))
    }

    #[inline(always)]
    fn load_u8(from: &[u8; LANES]) -> Self {
        Self::load(&from.map(f32::from))
    }
}

#[inline(always)]
fn dot(mut sums: [i32; LANES], weights: [u8; QUADS], x: [u8; 4], zero: i32) -> [i32; LANES] {
    for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
        for (weight, x) in weights.iter().zip(x) {
            *sum += (i32::from(*weight) - zero) * i32::from(x.cast_signed());
        }
    }
    sums
}

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
mod neon;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::super::lanes::{Avx2, Avx512};
    use super::{AHEAD, Ints, LANES, QUADS};

    // SAFETY (all blocks below): the trait restricts use to code running under AVX2, FMA and F16C; pointers come from
    // references to arrays of the size read, and the accesses need no alignment.
    impl Ints for Avx2 {
        const OFFSET: i32 = 0;
        type Sums = [__m256i; 2];
        type Quads = [__m256i; 2];

        #[inline(always)]
        fn start(value: i32) -> Self::Sums {
            unsafe { [_mm256_set1_epi32(value); 2] }
        }

        #[inline(always)]
        fn quads(from: &[u8; QUADS]) -> Self::Quads {
            let start = from.as_ptr().cast::<__m256i>();
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(AHEAD).cast());
                [_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))]
            }
        }

        #[inline(always)]
        fn none() -> Self::Quads {
            unsafe { [_mm256_setzero_si256(); 2] }
        }

        #[inline(always)]
        fn low(quads: Self::Quads) -> Self::Quads {
            quads.map(|half| unsafe { _mm256_and_si256(half, _mm256_set1_epi8(15)) })
        }

        #[inline(always)]
        fn high(quads: Self::Quads) -> Self::Quads {
            quads.map(|half| unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(half), _mm256_set1_epi8(15)) })
        }

        #[inline(always)]
        fn moved(quads: Self::Quads, places: i32, mask: u8) -> Self::Quads {
            quads.map(|half| unsafe {
                let count = _mm_cvtsi32_si128(places.abs());
                let moved = if places < 0 { _mm256_srl_epi16(half, count) } else { _mm256_sll_epi16(half, count) };
                _mm256_and_si256(moved, _mm256_set1_epi8(mask.cast_signed()))
            })
        }

        #[inline(always)]
        fn or(quads: Self::Quads, others: Self::Quads) -> Self::Quads {
            unsafe { [_mm256_or_si256(quads[0], others[0]), _mm256_or_si256(quads[1], others[1])] }
        }

        #[inline(always)]
        fn dot_small(mut sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums {
            for (sum, weights) in sums.iter_mut().zip(weights) {
                unsafe {
                    let x = _mm256_set1_epi32(i32::from_le_bytes(x));
                    let pairs = _mm256_maddubs_epi16(weights, x);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                }
            }
            sums
        }

        #[inline(always)]
        fn dot_offset(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums {
            let mut out = sums;
            for (sum, weights) in out.iter_mut().zip(weights) {
                unsafe {
                    // Two products of bytes from -127 to 127 fit into 16 bits; the sign of the weight goes to the input.
                    let weights = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
                    let x = _mm256_sign_epi8(_mm256_set1_epi32(i32::from_le_bytes(x)), weights);
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), x);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                }
            }
            out
        }

        #[inline(always)]
        fn dot_bf16(self, weights: Self::Quads, x: [u8; 4]) -> Self {
            unsafe {
                let x = _mm256_set1_epi32(i32::from_le_bytes(x));
                let first = |pair| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pair));
                let second = |pair| _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(!0xffff)));
                let add = |sum, weights| {
                    _mm256_fmadd_ps(second(weights), second(x), _mm256_fmadd_ps(first(weights), first(x), sum))
                };
                Self(add(self.0, weights[0]), add(self.1, weights[1]))
            }
        }

        #[inline(always)]
        fn floats(sums: Self::Sums) -> Self {
            unsafe { Self(_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])) }
        }

        #[inline(always)]
        fn load_u8(from: &[u8; LANES]) -> Self {
            let start = from.as_ptr();
            unsafe {
                let [low, high] = [_mm_loadl_epi64(start.cast()), _mm_loadl_epi64(start.add(8).cast())];
                Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(low)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(high)))
            }
        }
    }

    // SAFETY (all blocks below): as above, under AVX-512F, BW and VNNI, and BF16 where the type says so.
    impl<const BF16: bool> Ints for Avx512<BF16> {
        const OFFSET: i32 = 128;
        type Sums = __m512i;
        type Quads = __m512i;

        #[inline(always)]
        fn start(value: i32) -> Self::Sums {
            unsafe { _mm512_set1_epi32(value) }
        }

        #[inline(always)]
        fn quads(from: &[u8; QUADS]) -> Self::Quads {
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(AHEAD).cast());
                _mm512_loadu_si512(from.as_ptr().cast())
            }
        }

        #[inline(always)]
        fn none() -> Self::Quads {
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        fn low(quads: Self::Quads) -> Self::Quads {
            unsafe { _mm512_and_si512(quads, _mm512_set1_epi8(15)) }
        }

        #[inline(always)]
        fn high(quads: Self::Quads) -> Self::Quads {
            unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(quads), _mm512_set1_epi8(15)) }
        }

        #[inline(always)]
        fn moved(quads: Self::Quads, places: i32, mask: u8) -> Self::Quads {
            unsafe {
                let count = _mm_cvtsi32_si128(places.abs());
                let moved = if places < 0 { _mm512_srl_epi16(quads, count) } else { _mm512_sll_epi16(quads, count) };
                _mm512_and_si512(moved, _mm512_set1_epi8(mask.cast_signed()))
            }
        }

        #[inline(always)]
        fn or(quads: Self::Quads, others: Self::Quads) -> Self::Quads {
            unsafe { _mm512_or_si512(quads, others) }
        }

        #[inline(always)]
        fn dot_small(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums {
            unsafe { _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(i32::from_le_bytes(x))) }
        }

        #[inline(always)]
        fn dot_offset(sums: Self::Sums, weights: Self::Quads, x: [u8; 4]) -> Self::Sums {
            Self::dot_small(sums, weights, x)
        }

        #[inline(always)]
        fn dot_bf16(self, weights: Self::Quads, x: [u8; 4]) -> Self {
            unsafe {
                let x = _mm512_set1_epi32(i32::from_le_bytes(x));
                if BF16 {
                    let [weights, x] = [weights, x].map(|pairs| transmute::<__m512i, __m512bh>(pairs));
                    return Self(_mm512_dpbf16_ps(self.0, weights, x));
                }
                let first = |pair| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pair));
                let second = |pair| _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(!0xffff)));
                Self(_mm512_fmadd_ps(second(weights), second(x), _mm512_fmadd_ps(first(weights), first(x), self.0)))
            }
        }

        #[inline(always)]
        fn floats(sums: Self::Sums) -> Self {
            unsafe { Self(_mm512_cvtepi32_ps(sums)) }
        }

        #[inline(always)]
        fn load_u8(from: &[u8; LANES]) -> Self {
            unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())))) }
        }
    }
}
