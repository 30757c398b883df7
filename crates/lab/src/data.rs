//! Files of prompts and answers: JSON and JSON lines.

mod answers;
mod journal;
mod record;
mod rows;

pub use answers::{Answering, RowJobs, complete, in_order};
pub use journal::{Journal, JournalError};
pub use record::{Record, RecordError, RecordPrompt};
pub use rows::{RowsError, parse_rows, read_rows};
