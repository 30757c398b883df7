//! The kernels of training, which are the same for all models.

use super::args::{
    ColumnsArgs, CombineArgs, FillArgs, GatesArgs, GatherSumsArgs, LogprobsArgs, LogprobsBackArgs, LookupArgs,
    MomentsArgs, MoveArgs, NarrowAllArgs, NormsArgs, NormsBackArgs, RotateArgs, ShiftArgs, SoftmaxArgs,
    SoftmaxBackArgs,
};
use crate::cuda::driver::{Gpu, Kernel, Module};
use crate::cuda::program::{BLOCK, NUMBERS, PRIMITIVES, entry};
use crate::error::Result;
use crate::format::Format;

/// Declares the kernels, each with the function that it calls and its parameter.
macro_rules! kernels {
    ($($name:ident: $args:ident,)*) => {
        /// The kernels of training.
        pub(super) struct Kernels {
            $(pub(super) $name: Kernel<$args>,)*
            _module: Module,
        }

        /// The definition of every kernel.
        fn entries() -> Vec<String> {
            vec![$(entry::<$args>(concat!("k_", stringify!($name)), stringify!($name), 1),)*]
        }

        impl Kernels {
            /// Compiles the kernels for operands of this format, or loads what was compiled before.
            pub(super) fn load(gpu: &Gpu, compute: Format) -> Result<Self> {
                let module = gpu.compile(&source(gpu.arch(), compute))?;
                Ok(Self { $($name: module.kernel(concat!("k_", stringify!($name)))?,)* _module: module })
            }
        }
    };
}

kernels! {
    fill: FillArgs,
    combine: CombineArgs,
    shift: ShiftArgs,
    narrow_all: NarrowAllArgs,
    lookup: LookupArgs,
    move_rows: MoveArgs,
    gather_sums: GatherSumsArgs,
    moments: MomentsArgs,
    norm_rows: NormsArgs,
    norm_rows_backward: NormsBackArgs,
    sum_columns: ColumnsArgs,
    rotate_rows: RotateArgs,
    softmax_rows: SoftmaxArgs,
    softmax_rows_backward: SoftmaxBackArgs,
    gate_rows: GatesArgs,
    gate_rows_backward: GatesArgs,
    logprob_rows: LogprobsArgs,
    logprob_rows_backward: LogprobsBackArgs,
}

/// The whole source.
pub(super) fn source(arch: u32, compute: Format) -> String {
    let compute = usize::from(compute == Format::BF16);
    let constants = format!("#define ARCH {arch}\n#define COMPUTE {compute}\n#ifndef EMULATED\n{PRIMITIVES}\n#endif");
    [&constants, NUMBERS, BLOCK, include_str!("../kernels/training.cuh"), &entries().join("\n")].join("\n")
}
