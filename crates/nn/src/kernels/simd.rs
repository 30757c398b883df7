//! Instruction sets, and one table of operations over all of them.
//!
//! [`Simd`] is the choice at run time. Kernels are generic over [`Lanes`], the operations on
//! sixteen lanes at once, which a zero-sized type per instruction set implements. A value of such a
//! type is a *witness*: only its module can construct one, after detecting the instructions at run
//! time. Every operation takes the witness as `self`, so code without one cannot reach an
//! instruction that the processor may lack, and kernels need no `unsafe` of their own.
//!
//! A kernel is an `#[inline(always)]` body. [`dispatch!`] wraps it, once per instruction set, in a
//! function that is compiled with that set's target features. Body, operations and intrinsics are
//! all inlined there; a closure passed to a function that is not inlined (`LocalKey::with`, say)
//! would be compiled without the instructions.

mod features;
mod lanes;
mod portable;
mod registers;
mod tile;
mod tiles;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::fmt::{self, Debug, Formatter};

pub(crate) use self::features::{dispatch, with_features};
pub(crate) use self::lanes::{LANES, Lanes, VECTOR_BYTES, dot, padded, small_dots};
pub(crate) use self::portable::Portable;
pub(crate) use self::tile::{PANELS, TILE_BYTES, TILE_TOKENS, Tile, TileSums};
pub(crate) use self::tiles::{Prepared, Tiles};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use self::amx::Amx;
#[cfg(target_arch = "aarch64")]
pub(crate) use self::neon::Neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::{avx2::Avx2, avx512::Avx512};

/// An instruction set that this processor has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Simd {
    pub(crate) lanes: Witness,
    /// The unit that multiplies tiles.
    pub(crate) tiles: Option<Tiles>,
}

/// The witness of an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2<false>),
    /// AVX2 with AVX-VNNI, the dot products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni(Avx2<true>),
    /// AVX-512 with VNNI, the dot products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false>),
    /// AVX-512 with VNNI and the dot products of bfloat16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<true>),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon<false>),
    /// NEON with `dotprod`, the dot products of bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDot(Neon<true>),
}

impl Simd {
    /// Returns the best instruction set of this processor.
    #[must_use]
    pub fn detect() -> Self {
        Self::all().pop().unwrap_or(Self { lanes: Witness::Portable(Portable), tiles: None })
    }

    /// Returns all instruction sets of this processor, the best last.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Witness::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::<false>::detect().map(Witness::Avx2));
            all.extend(Avx2::<true>::detect().map(Witness::Avx2Vnni));
            all.extend(Avx512::<false>::detect().map(Witness::Avx512));
            all.extend(Avx512::<true>::detect().map(Witness::Avx512Bf16));
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.push(Witness::Neon(Neon::<false>::detect()));
            all.extend(Neon::<true>::detect().map(Witness::NeonDot));
        }
        let mut all: Vec<_> = all.into_iter().map(|lanes| Self { lanes, tiles: None }).collect();
        // The reference of tiles is slow, and never the best.
        all.insert(0, Self { lanes: Witness::Portable(Portable), tiles: Some(Tiles::Portable) });
        if let (Some(best), Some(unit)) = (all.last().copied(), Tiles::detect()) {
            all.push(Self { tiles: Some(unit), ..best });
        }
        all
    }

    /// Returns [`Lanes::WIDE`].
    pub(crate) fn is_wide(self) -> bool {
        fn of<S: Lanes>(_: S) -> bool {
            S::WIDE
        }
        match self.lanes {
            Witness::Portable(simd) => of(simd),
            #[cfg(target_arch = "x86_64")]
            Witness::Avx2(simd) => of(simd),
            #[cfg(target_arch = "x86_64")]
            Witness::Avx2Vnni(simd) => of(simd),
            #[cfg(target_arch = "x86_64")]
            Witness::Avx512(simd) => of(simd),
            #[cfg(target_arch = "x86_64")]
            Witness::Avx512Bf16(simd) => of(simd),
            #[cfg(target_arch = "aarch64")]
            Witness::Neon(simd) => of(simd),
            #[cfg(target_arch = "aarch64")]
            Witness::NeonDot(simd) => of(simd),
        }
    }

    /// Returns this instruction set less the instructions for bfloat16.
    pub(crate) fn without_bf16(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Witness::Avx512Bf16(simd) = self.lanes {
            return Self { lanes: Witness::Avx512(simd.without_bf16()), ..self };
        }
        self
    }

    /// Returns this instruction set less AVX-VNNI, which only products of bytes use.
    pub(crate) fn without_vnni(self) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Witness::Avx2Vnni(simd) = self.lanes {
            return Self { lanes: Witness::Avx2(simd.without_vnni()), ..self };
        }
        self
    }

    /// Returns true if there are instructions for bfloat16, that is [`Lanes::dot_bf16`].
    pub(crate) fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self.lanes, Witness::Avx512Bf16(_));
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

impl Debug for Simd {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = match self.lanes {
            Witness::Portable(_) => "Portable",
            #[cfg(target_arch = "x86_64")]
            Witness::Avx2(_) => "Avx2",
            #[cfg(target_arch = "x86_64")]
            Witness::Avx2Vnni(_) => "Avx2Vnni",
            #[cfg(target_arch = "x86_64")]
            Witness::Avx512(_) => "Avx512",
            #[cfg(target_arch = "x86_64")]
            Witness::Avx512Bf16(_) => "Avx512Bf16",
            #[cfg(target_arch = "aarch64")]
            Witness::Neon(_) => "Neon",
            #[cfg(target_arch = "aarch64")]
            Witness::NeonDot(_) => "NeonDot",
        };
        match self.tiles {
            None => write!(f, "Simd({name})"),
            Some(Tiles::Portable) => write!(f, "Simd({name}, portable tiles)"),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Some(Tiles::Amx(_)) => write!(f, "Simd({name}, Amx)"),
        }
    }
}

#[cfg(test)]
mod tests;
