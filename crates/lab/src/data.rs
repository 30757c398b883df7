//! Files of prompts and answers: JSON lines in, JSON lines out.

mod journal;
mod record;
mod rows;

pub use journal::{Journal, JournalError};
pub use record::{Ask, Record, RecordError};
pub use rows::{RowsError, parse_rows, read_rows};
