//! The embedded engine.

pub mod arch;
mod cache;
mod checkpoint;
mod cpu;
mod error;
mod executor;
mod format;
pub mod kernels;

pub use checkpoint::{Checkpoint, SpecialTokens, Tensor, Weights};
pub use cpu::Cpu;
pub use error::{Error, Result};
pub use executor::{Executor, Span};
pub use format::Format;
