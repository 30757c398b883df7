//! The arithmetic of a transformer on a CPU.
//!
//! Every kernel is one generic body, compiled once for each instruction set in [`Simd`]; the choice
//! is made at run time. Sums are formed over 16 lanes, which are added in one fixed order that
//! depends neither on the number of tokens in a step nor on the tile or the thread: **a token's
//! result has the same bits alone or in a batch**. Between instruction sets results differ in the
//! last bits only.
//!
//! Public is what the trainer uses: the elementwise operations, the dense product, the rotation, the
//! cap on logits, and the choice of instruction set.

mod activation;
mod attention;
mod bandwidth;
pub mod dense;
mod disjoint;
pub mod elementwise;
mod kv_format;
mod linear;
mod norm;
mod packed;
mod panels;
mod rope;
pub(crate) mod simd;
mod workers;

pub use activation::softcap;
pub(crate) use activation::{activate, add, gate};
pub(crate) use attention::{Attention, attend, finish, merge, part_len};
pub(crate) use bandwidth::read_bandwidth;
pub use kv_format::KvFormat;
pub(crate) use linear::linear;
pub(crate) use norm::{center, rms_norm};
pub(crate) use packed::multiply::{Product, multiply};
pub(crate) use packed::{Packed, Quantized, zeroed_memory};
pub(crate) use panels::{Bf16Group, F32Group, Int8Group, Panels, Quantization};
pub use rope::{Rotation, rotate};
pub use simd::Simd;
pub(crate) use workers::Workers;

/// Multiplications per piece of work; fewer are not worth handing to another thread.
const WORK_PER_PIECE: usize = 1 << 17;
