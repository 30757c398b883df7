//! The embedded engine of `wsd`: checkpoints, architectures as data, CPU kernels, and one thread that runs all sessions as one ragged batch.
//!
//! [`Checkpoint::open`] reads a Hugging Face folder or a GGUF file; [`Local::load`] makes it a [`wsd_core::Engine`].

pub mod arch;
mod cache;
mod checkpoint;
mod cpu;
mod engine;
mod error;
mod executor;
mod format;
pub mod kernels;

pub use checkpoint::{Checkpoint, SpecialTokens, Tensor, Weights};
pub use cpu::Cpu;
pub use engine::{LoadOptions, Local, Status, TemplateChoice};
pub use error::{Error, Result};
pub use executor::{Executor, Span};
pub use format::Format;
