//! The only place where code is compiled under target features and called from code without them.

/// Runs a function under the target features that a witness guarantees.
///
/// `with_features!(Avx2, witness, fn(a: u32) -> u32 { a + 1 })` compiles the body under AVX2, calls
/// it with the variable `a` in scope, and is as safe as its witness: each arm names the features
/// that the constructors of its token type ask the processor for. The body is a function item: it
/// sees its arguments and nothing else.
macro_rules! with_features {
    (Avx2, $($call:tt)*) => {
        $crate::kernels::simd::with_features!(@ "avx2,fma,f16c", $crate::kernels::simd::Avx2<_>, $($call)*)
    };
    (Avx2Vnni, $($call:tt)*) => {
        $crate::kernels::simd::with_features!(
            @ "avx2,fma,f16c,avxvnni", $crate::kernels::simd::Avx2<true>, $($call)*
        )
    };
    (Avx512, $($call:tt)*) => {
        $crate::kernels::simd::with_features!(
            @ "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c", $crate::kernels::simd::Avx512<_>, $($call)*
        )
    };
    (Avx512Bf16, $($call:tt)*) => {
        $crate::kernels::simd::with_features!(
            @ "avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c",
            $crate::kernels::simd::Avx512<true>, $($call)*
        )
    };
    (Neon, $($call:tt)*) => {
        $crate::kernels::simd::with_features!(@ "neon", $crate::kernels::simd::Neon<_>, $($call)*)
    };
    (NeonDot, $($call:tt)*) => {
        $crate::kernels::simd::with_features!(@ "neon,dotprod", $crate::kernels::simd::Neon<true>, $($call)*)
    };
    (
        @ $features:literal, $token:ty, $witness:expr,
        fn $(<$generic:ident: $bound:path>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block
    ) => {{
        #[inline]
        #[target_feature(enable = $features)]
        fn run$(<$generic: $bound>)?($($argument: $type),*) $(-> $out)? $body
        let _witness: $token = $witness;
        // SAFETY: the witness exists, so the processor was found to have the features listed with
        // its type above.
        #[allow(unsafe_code)]
        unsafe { run$(::<$generic>)?($($argument),*) }
    }};
}
pub(crate) use with_features;

/// Defines a function that runs a kernel body under the instruction set that it is given first.
///
/// `dispatch! { pub fn add(x: &mut [f32], y: &[f32]) = add_body }` defines
/// `pub fn add(simd: Simd, x: &mut [f32], y: &[f32])`, which passes the witness in `simd` to
/// `fn add_body<S: Lanes>(simd: S, x: &mut [f32], y: &[f32])`, an `#[inline(always)]` function.
///
/// With a type parameter, `fn name[T: Bound](..) = body`, a function is compiled for each type it
/// is called with. Such kernels multiply bytes, so one of them serves AVX-512 with and without
/// instructions for bfloat16; the others do not, so one of them serves AVX2 with and without VNNI.
macro_rules! dispatch {
    (
        $(#[$attribute:meta])*
        fn $name:ident[$generic:ident: $bound:path]($($argument:ident: $type:ty),* $(,)?) = $body:ident
    ) => {
        $(#[$attribute])*
        fn $name<$generic: $bound>(simd: $crate::kernels::Simd, $($argument: $type),*) {
            use $crate::kernels::simd::{Witness, with_features};
            #[cfg(target_arch = "x86_64")]
            type Avx512 = $crate::kernels::simd::Avx512<false>;
            match simd.without_bf16().lanes {
                Witness::Portable(simd) => $body::<_, $generic>(simd, $($argument),*),
                #[cfg(target_arch = "x86_64")]
                Witness::Avx2(simd) => {
                    type Token = $crate::kernels::simd::Avx2<false>;
                    with_features!(Avx2, simd, fn<$generic: $bound>(simd: Token, $($argument: $type),*) {
                        $body::<_, $generic>(simd, $($argument),*)
                    })
                }
                #[cfg(target_arch = "x86_64")]
                Witness::Avx2Vnni(simd) => {
                    type Token = $crate::kernels::simd::Avx2<true>;
                    with_features!(Avx2Vnni, simd, fn<$generic: $bound>(simd: Token, $($argument: $type),*) {
                        $body::<_, $generic>(simd, $($argument),*)
                    })
                }
                #[cfg(target_arch = "x86_64")]
                Witness::Avx512(simd) => {
                    with_features!(Avx512, simd, fn<$generic: $bound>(simd: Avx512, $($argument: $type),*) {
                        $body::<_, $generic>(simd, $($argument),*)
                    })
                }
                #[cfg(target_arch = "x86_64")]
                Witness::Avx512Bf16(_) => unreachable!("invariant: the witness is one without bfloat16"),
                #[cfg(target_arch = "aarch64")]
                Witness::Neon(simd) => $body::<_, $generic>(simd, $($argument),*),
                #[cfg(target_arch = "aarch64")]
                Witness::NeonDot(simd) => {
                    type Token = $crate::kernels::simd::Neon<true>;
                    with_features!(NeonDot, simd, fn<$generic: $bound>(simd: Token, $($argument: $type),*) {
                        $body::<_, $generic>(simd, $($argument),*)
                    })
                }
            }
        }
    };
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$attribute])*
        $visibility fn $name(simd: $crate::kernels::Simd, $($argument: $type),*) {
            use $crate::kernels::simd::{Witness, with_features};
            match simd.without_vnni().lanes {
                Witness::Portable(simd) => $body(simd, $($argument),*),
                #[cfg(target_arch = "x86_64")]
                Witness::Avx2Vnni(_) => unreachable!("invariant: the witness is one without AVX-VNNI"),
                #[cfg(target_arch = "x86_64")]
                Witness::Avx2(simd) => {
                    type Token = $crate::kernels::simd::Avx2<false>;
                    with_features!(Avx2, simd, fn(simd: Token, $($argument: $type),*) { $body(simd, $($argument),*) })
                }
                #[cfg(target_arch = "x86_64")]
                Witness::Avx512(simd) => {
                    type Token = $crate::kernels::simd::Avx512<false>;
                    with_features!(Avx512, simd, fn(simd: Token, $($argument: $type),*) { $body(simd, $($argument),*) })
                }
                #[cfg(target_arch = "x86_64")]
                Witness::Avx512Bf16(simd) => {
                    type Token = $crate::kernels::simd::Avx512<true>;
                    with_features!(
                        Avx512Bf16, simd, fn(simd: Token, $($argument: $type),*) { $body(simd, $($argument),*) }
                    )
                }
                #[cfg(target_arch = "aarch64")]
                Witness::Neon(simd) => $body(simd, $($argument),*),
                #[cfg(target_arch = "aarch64")]
                Witness::NeonDot(simd) => {
                    type Token = $crate::kernels::simd::Neon<true>;
                    with_features!(
                        NeonDot, simd, fn(simd: Token, $($argument: $type),*) { $body(simd, $($argument),*) }
                    )
                }
            }
        }
    };
}
pub(crate) use dispatch;
