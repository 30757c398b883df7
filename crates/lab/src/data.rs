//! Files of prompts and answers: JSON lines in, JSON lines out.

mod answers;
mod journal;
mod record;
mod rows;

pub(crate) use answers::in_order;
pub use answers::{Answering, complete};
pub use journal::{Journal, JournalError};
pub use record::{Ask, Record, RecordError};
pub use rows::{RowsError, parse_rows, read_rows};
