//! The embedded engine.

mod checkpoint;
mod error;
mod format;

pub use checkpoint::{Checkpoint, SpecialTokens, Tensor, Weights};
pub use error::{Error, Result};
pub use format::Format;
