//! Files of prompts and answers: JSON, JSON lines and CSV.

mod answers;
mod csv;
mod journal;
mod record;
mod rows;

pub use answers::{Answering, RowJobs, complete, in_order};
pub use csv::csv_records;
pub use journal::{Journal, JournalError, RowSettings};
pub use record::{Record, RecordError, RecordPrompt};
pub use rows::{RowReader, RowsError, parse_rows, read_rows};
