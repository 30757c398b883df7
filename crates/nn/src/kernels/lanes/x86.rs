//! Sixteen floats in the registers of x86-64: two of AVX2, or one of AVX-512.

use std::arch::x86_64::*;

use super::{LANES, Lanes};

/// A value at any address. Reading it is one instruction, where `read_unaligned` leaves a copy on the stack.
#[repr(C, packed)]
struct Unaligned<T>(T);

#[inline(always)]
unsafe fn read<T: Copy, F>(from: *const F) -> T {
    // SAFETY: the caller points at a whole `T`.
    unsafe { (*from.cast::<Unaligned<T>>()).0 }
}

#[inline(always)]
unsafe fn write<T, F>(to: *mut F, value: T) {
    // SAFETY: the caller points at room for a whole `T`.
    unsafe { (*to.cast::<Unaligned<T>>()).0 = value }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(crate) __m256, pub(crate) __m256);

// SAFETY (all blocks below): the trait restricts use to code running under AVX2, FMA and F16C; pointers come from
// references to arrays of the size read or written, and the accesses need no alignment.
impl Lanes for Avx2 {
    const WIDE: bool = false;

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        unsafe { Self(read(from.as_ptr()), read(from.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn load_f32_bytes(from: &[u8; 4 * LANES]) -> Self {
        let start = from.as_ptr().cast::<f32>();
        unsafe { Self(read(start), read(start.add(8))) }
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 2 * LANES]) -> Self {
        let start = from.as_ptr().cast::<__m128i>();
        unsafe {
            let [low, high] = [read::<__m128i, _>(start), read::<__m128i, _>(start.add(1))];
            let [low, high] = [_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high)];
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)))
        }
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 2 * LANES]) -> Self {
        let start = from.as_ptr().cast::<__m128i>();
        unsafe { Self(_mm256_cvtph_ps(read::<__m128i, _>(start)), _mm256_cvtph_ps(read::<__m128i, _>(start.add(1)))) }
    }

    #[inline(always)]
    fn load_i8(from: &[u8; LANES]) -> Self {
        let start = from.as_ptr();
        unsafe {
            let [low, high] = [_mm_loadl_epi64(start.cast()), _mm_loadl_epi64(start.add(8).cast())];
            Self(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high)))
        }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        unsafe {
            write(to.as_mut_ptr(), self.0);
            write(to.as_mut_ptr().add(8), self.1);
        }
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(pub(crate) __m512);

// SAFETY (all blocks below): as above, under AVX-512F.
impl<const BF16: bool> Lanes for Avx512<BF16> {
    const WIDE: bool = true;

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        unsafe { Self(read(from.as_ptr())) }
    }

    #[inline(always)]
    fn load_f32_bytes(from: &[u8; 4 * LANES]) -> Self {
        unsafe { Self(read(from.as_ptr())) }
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 2 * LANES]) -> Self {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(read::<__m256i, _>(from.as_ptr()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 2 * LANES]) -> Self {
        unsafe { Self(_mm512_cvtph_ps(read::<__m256i, _>(from.as_ptr()))) }
    }

    #[inline(always)]
    fn load_i8(from: &[u8; LANES]) -> Self {
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(read::<__m128i, _>(from.as_ptr())))) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        unsafe { write(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let four = self.four();
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    /// Four at a time, each folded as one alone.
    #[inline(always)]
    fn sums<const N: usize>(of: [Self; N]) -> [f32; N] {
        let mut sums = [0.0; N];
        let mut i = 0;
        while i + 4 <= N {
            unsafe {
                let [a, b, c, d] = [of[i].four(), of[i + 1].four(), of[i + 2].four(), of[i + 3].four()];
                let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
                let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
                let all = _mm_add_ps(_mm_shuffle_ps::<0b10_00_10_00>(ab, cd), _mm_shuffle_ps::<0b11_01_11_01>(ab, cd));
                write(sums.as_mut_ptr().add(i), all);
            }
            i += 4;
        }
        while i < N {
            sums[i] = of[i].sum();
            i += 1;
        }
        sums
    }
}

impl<const BF16: bool> Avx512<BF16> {
    /// Sixteen lanes folded to eight, and these to four.
    ///
    /// # Safety
    /// As for all of [`Avx512`].
    #[inline(always)]
    unsafe fn four(self) -> __m128 {
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), high);
            _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight))
        }
    }
}
