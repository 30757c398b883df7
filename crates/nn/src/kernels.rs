//! The arithmetic of a transformer on a CPU.
//!
//! Every kernel is one generic body, compiled for each instruction set in [`Simd`] and chosen when the program runs.
//! Sums are formed over 16 lanes, folded in one fixed order, whatever the number of tokens in a step, the tile or the
//! thread: **a token's result has the same bits alone or in a batch**. Results differ in the last bits only between
//! instruction sets.

mod activation;
mod attention;
mod crew;
pub mod dense;
pub mod elementwise;
mod ints;
pub(crate) mod lanes;
mod linear;
mod norm;
mod packed;
mod rope;
mod rounded;

pub use activation::{add, gate, softcap};
pub use attention::{Attention, attend};
pub use crew::Crew;
pub use lanes::Simd;
pub use linear::linear;
pub use norm::rms_norm;
pub(crate) use packed::memory;
pub use packed::{Packed, Product, Rounded, multiply};
pub use rope::{Rotation, rotate};
pub use rounded::{Bf16, Int8, Panels, Rounding};

/// Multiplications that are worth a piece of work of their own.
const WORK_PER_PIECE: usize = 1 << 17;
