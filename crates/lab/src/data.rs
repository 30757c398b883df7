//! Files of prompts, answers and training rows: JSON and JSON lines.

mod answers;
mod journal;
mod lesson;
mod lessons;
mod record;
mod rows;

pub(crate) use answers::in_order;
pub use answers::{Answering, RowJobs, complete};
pub use journal::{Journal, JournalError};
pub use lesson::{Lesson, LessonError};
pub use lessons::{Lessons, LessonsError, read_lessons};
pub use record::{Record, RecordError, RecordPrompt};
pub use rows::{RowsError, parse_rows, read_rows};
