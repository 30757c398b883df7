//! Sixteen floats at a time, on whatever the processor has.

use half::f16;

/// Lanes of every sum.
pub(crate) const LANES: usize = 16;

/// An instruction set this processor is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// With the instructions for bytes (VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// And those for bfloat16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// With the instructions for bytes (`dotprod`).
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Simd {
    /// The best there is.
    #[must_use]
    pub fn detect() -> Self {
        Self::all().pop().unwrap_or(Self(Kind::Portable))
    }

    /// All that this processor can run, the best last.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            all.push(Self(Kind::Avx2));
            // With VL, sixteen sums and what they are made of fit into registers: their lower parts may lie in any.
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && is_x86_feature_detected!("avx512vnni") {
                all.push(Self(Kind::Avx512));
                if is_x86_feature_detected!("avx512bf16") {
                    all.push(Self(Kind::Avx512Bf16));
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.push(Self(Kind::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                all.push(Self(Kind::NeonDot));
            }
        }
        all
    }

    /// Whether there are instructions for bfloat16.
    pub(crate) fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Kind::Avx512Bf16;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// Sixteen floats. Implementations other than [`Portable`] may only be used under the target features they need,
/// which [`on_each_simd`] sees to.
pub(crate) trait Lanes: Copy {
    /// There are registers for sums of four rows by four tokens.
    const WIDE: bool;

    fn zero() -> Self;
    fn splat(value: f32) -> Self;
    fn load(from: &[f32; LANES]) -> Self;
    fn load_f32_bytes(from: &[u8; 4 * LANES]) -> Self;
    fn load_bf16(from: &[u8; 2 * LANES]) -> Self;
    fn load_f16(from: &[u8; 2 * LANES]) -> Self;
    fn load_i8(from: &[u8; LANES]) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    fn mul(self, other: Self) -> Self;
    /// `self + a * b`.
    fn mul_add(self, a: Self, b: Self) -> Self;

    /// The sum of all lanes, halves folded onto each other.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// [`Lanes::sum`] of each.
    #[inline(always)]
    fn sums<const N: usize>(of: [Self; N]) -> [f32; N] {
        let mut sums = [0.0; N];
        for i in 0..N {
            sums[i] = of[i].sum();
        }
        sums
    }
}

/// Sixteen floats as the compiler sees fit.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Lanes for Portable {
    const WIDE: bool = false;

    #[inline(always)]
    fn zero() -> Self {
        Self([0.0; LANES])
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }

    #[inline(always)]
    fn load_f32_bytes(from: &[u8; 4 * LANES]) -> Self {
        each(from.as_chunks().0, f32::from_le_bytes)
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 2 * LANES]) -> Self {
        each(from.as_chunks().0, |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 2 * LANES]) -> Self {
        each(from.as_chunks().0, |bytes| f16::from_le_bytes(bytes).to_f32())
    }

    #[inline(always)]
    fn load_i8(from: &[u8; LANES]) -> Self {
        each(from.as_chunks().0, |[byte]: [u8; 1]| f32::from(byte.cast_signed()))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    #[inline(always)]
    fn mul(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a *= b;
        }
        self
    }

    #[inline(always)]
    fn mul_add(mut self, a: Self, b: Self) -> Self {
        for ((sum, a), b) in self.0.iter_mut().zip(a.0).zip(b.0) {
            // Without the instruction, a fused multiplication is a slow call.
            *sum = if cfg!(target_arch = "aarch64") { a.mul_add(b, *sum) } else { *sum + a * b };
        }
        self
    }
}

#[inline(always)]
fn each<const BYTES: usize>(from: &[[u8; BYTES]], read: impl Fn([u8; BYTES]) -> f32) -> Portable {
    let mut lanes = [0.0; LANES];
    for (lane, bytes) in lanes.iter_mut().zip(from) {
        *lane = read(*bytes);
    }
    Portable(lanes)
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
mod neon;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Neon, four};

/// Defines a function that runs a generic `#[inline(always)]` body under the instruction set it is given first.
macro_rules! on_each_simd {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$attribute])*
        #[allow(unsafe_code)]
        $visibility fn $name(simd: $crate::kernels::Simd, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($argument: $type),*) {
                    $body::<$crate::kernels::lanes::Avx2>($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
                fn avx512($($argument: $type),*) {
                    $body::<$crate::kernels::lanes::Avx512<false>>($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
                fn avx512_bf16($($argument: $type),*) {
                    $body::<$crate::kernels::lanes::Avx512<true>>($($argument),*)
                }
                match simd.0 {
                    $crate::kernels::lanes::Kind::Portable => {}
                    // SAFETY: a `Simd` of this kind exists only where the processor was found to have the features.
                    $crate::kernels::lanes::Kind::Avx2 => return unsafe { avx2($($argument),*) },
                    // SAFETY: as above.
                    $crate::kernels::lanes::Kind::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::kernels::lanes::Kind::Avx512Bf16 => return unsafe { avx512_bf16($($argument),*) },
                }
            }
            #[cfg(target_arch = "aarch64")]
            {
                #[target_feature(enable = "dotprod")]
                fn neon_dot($($argument: $type),*) {
                    $body::<$crate::kernels::lanes::Neon<true>>($($argument),*)
                }
                match simd.0 {
                    $crate::kernels::lanes::Kind::Portable => {}
                    $crate::kernels::lanes::Kind::Neon => {
                        return $body::<$crate::kernels::lanes::Neon<false>>($($argument),*);
                    }
                    // SAFETY: a `Simd` of this kind exists only where the processor was found to have the feature.
                    $crate::kernels::lanes::Kind::NeonDot => return unsafe { neon_dot($($argument),*) },
                }
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let _ = simd;
            $body::<$crate::kernels::lanes::Portable>($($argument),*)
        }
    };
}
pub(crate) use on_each_simd;

/// `sum(a[i] * b[i])` over 16 lanes; the tail, padded with zeros, is added last. Equal lengths.
#[inline(always)]
pub(crate) fn dot<V: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    let mut sum = V::zero();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        sum = sum.mul_add(V::load(a), V::load(b));
    }
    if !a_tail.is_empty() {
        sum = sum.mul_add(V::load(&padded(a_tail)), V::load(&padded(b_tail)));
    }
    sum.sum()
}

/// Fewer than sixteen floats, then zeros.
#[inline(always)]
pub(crate) fn padded(tail: &[f32]) -> [f32; LANES] {
    let mut block = [0.0; LANES];
    for (to, from) in block.iter_mut().zip(tail) {
        *to = *from;
    }
    block
}
