//! Options for the executor on a CPU.

use crate::format::Format;
use crate::kernels::{KvFormat, Simd};

/// Options for loading a model onto the CPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// The instruction set.
    pub simd: Simd,
    /// Convert matrices to this format first, if their rows are a multiple of its blocks.
    pub dtype: Option<Format>,
    /// Multiply matrices as they are stored with unrounded floats: slow, and the reference for fast
    /// products. Otherwise activations are quantized to the format that quantized and bfloat16
    /// matrices are multiplied with.
    pub exact: bool,
    /// The number format of cached keys and values: half precision by default, single precision
    /// with `exact`.
    pub kv: Option<KvFormat>,
}

impl Default for CpuOptions {
    fn default() -> Self {
        Self { simd: Simd::detect(), dtype: None, exact: false, kv: None }
    }
}

impl CpuOptions {
    /// The number format of cached keys and values.
    pub(super) fn kv(&self) -> KvFormat {
        self.kv.unwrap_or(if self.exact { KvFormat::F32 } else { KvFormat::default() })
    }
}
