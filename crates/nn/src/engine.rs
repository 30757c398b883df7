//! The embedded engine: one thread owns the model and runs what all sessions wait for as one ragged
//! batch.

mod accounts;
mod drafter;
mod list;
mod local;
mod options;
mod pace;
mod plan;
mod prefix_cache;
mod questions;
mod scheduler;
mod session;
mod work;

pub use local::Local;
pub use options::LoadOptions;
