//! The embedded engine: one thread owns the model and runs what all sessions wait for as one ragged batch.

mod caches;
mod local;
mod scheduler;
mod work;

pub use local::{LoadOptions, Local};
