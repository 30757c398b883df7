//! The embedded engine of `wsd`: checkpoints, architectures as data, CPU kernels, and one thread
//! that runs all sessions as one ragged batch.
//!
//! [`Checkpoint::open`] reads a Hugging Face folder or a GGUF file; [`Local::load`] makes a
//! [`wsd_core::Engine`] of it. [`Cpu`] and [`Cuda`] run it. The feature `candle` adds an executor on
//! tensors, for other GPUs and BLAS; the features `metal`, `accelerate` and `mkl` are its backends.
//!
//! Three modules are public for other crates of the workspace only: [`kernels`] for the trainer,
//! and [`measure`] and [`shapes`] for `wsd bench`.

#[cfg(test)]
extern crate self as wsd_nn;

mod activation;
pub mod adapter;
pub mod arch;
mod cache;
mod checkpoint;
mod cpu;
mod cuda;
mod device;
pub mod draft;
mod engine;
mod error;
mod executor;
mod format;
pub mod kernels;
mod load;
mod matrix;
pub mod measure;
pub mod shapes;
#[cfg(feature = "candle")]
pub mod tensors;

pub use adapter::Adapter;
pub use checkpoint::{Checkpoint, SpecialTokens, Spelling, TemplateChoice, Tensor, Weights, gguf_parts, read_json};
pub use cpu::{Cpu, CpuOptions, DraftLayer};
pub use cuda::{Cuda, CudaOptions, arithmetic as gpu};
pub use device::Device;
pub use draft::DraftHead;
pub use engine::{LoadOptions, Local};
pub use error::{Error, Result};
pub use executor::{Answer, Ask, CANDIDATES, Executor, Span};
pub use format::Format;
pub use kernels::KvFormat;
pub use load::{Loaded, load};
pub use matrix::MatrixView;
