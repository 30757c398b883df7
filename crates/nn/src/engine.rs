//! The embedded engine: one thread owns the model and runs what all sessions wait for as one ragged batch.

mod local;
mod scheduler;
mod work;

pub(crate) use local::text;
pub use local::{LoadOptions, Local, Status, TemplateChoice};
