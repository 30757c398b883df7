//! Loads and stores of whole registers, at any address.

#![allow(unsafe_code)]

use bytemuck::Pod;

/// A value at any address. Reading the field is one instruction, where `read_unaligned` leaves a
/// copy on the stack.
#[repr(C, packed)]
struct Unaligned<T>(T);

/// Reads a register from plain data of its size.
#[inline(always)]
pub(super) fn load<R: Pod, T: Pod>(from: &T) -> R {
    const { assert!(size_of::<R>() == size_of::<T>()) };
    // SAFETY: the reference leads to as many initialized bytes as `R` has, any bytes make an `R`,
    // as it is `Pod`, and `Unaligned` needs no alignment.
    unsafe { (*std::ptr::from_ref(from).cast::<Unaligned<R>>()).0 }
}

/// Writes a register over plain data of its size.
#[inline(always)]
pub(super) fn store<R: Pod, T: Pod>(value: R, to: &mut T) {
    const { assert!(size_of::<R>() == size_of::<T>()) };
    // SAFETY: the reference leads to as many bytes as `R` has, which nobody else sees meanwhile,
    // any bytes make a `T`, as it is `Pod`, and `Unaligned` needs no alignment.
    unsafe {
        (*std::ptr::from_mut(to).cast::<Unaligned<R>>()).0 = value;
    }
}

/// Views an array as parts of equal size, one for each register.
#[inline(always)]
pub(super) fn parts<P: Pod, T: Pod, const N: usize>(of: &T) -> &[P; N] {
    bytemuck::must_cast_ref(of)
}

/// Views an array as parts of equal size, one for each register, to be written.
#[inline(always)]
pub(super) fn parts_mut<P: Pod, T: Pod, const N: usize>(of: &mut T) -> &mut [P; N] {
    bytemuck::must_cast_mut(of)
}

/// Implements operations of [`Lanes`](super::Lanes) with the intrinsics of an instruction set: each
/// body is compiled under the features that the token type stands for.
macro_rules! operations {
    ($token:ident: $(
        $(#[$attribute:meta])*
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $out:ty $body:block
    )*) => {$(
        $(#[$attribute])*
        #[inline(always)]
        fn $name(self, $($argument: $type),*) -> $out {
            $crate::kernels::simd::with_features!($token, self, fn($($argument: $type),*) -> $out $body)
        }
    )*};
}
pub(super) use operations;
