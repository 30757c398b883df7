//! Files of prompts and answers: JSON and JSON lines.

mod answers;
mod journal;
mod record;
mod rows;

pub(crate) use answers::in_order;
pub use answers::{Answering, RowJobs, complete};
pub use journal::{Journal, JournalError};
pub use record::{Record, RecordError, RecordPrompt};
pub use rows::{RowsError, parse_rows, read_rows};
