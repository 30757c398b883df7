//! Files of rows to learn from.

mod file;
mod row;

pub use file::{RowFileError, TrainingRows, read_rows};
pub use row::{RowError, TrainingRow};
