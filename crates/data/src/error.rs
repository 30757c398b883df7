//! Errors of files and steps.

use std::io;
use std::path::PathBuf;

use wsd_eval::SourceError;
use wsd_lab::data::{JournalError, RecordError};

/// Failure of a step.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file of rows cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A value cannot be serialized.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The file of answers holds rows of another run.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A prompt cannot be answered.
    #[error("prompt `{id}`: {source}")]
    Prompt {
        /// Identifier of the prompt.
        id: String,
        /// Cause.
        source: RecordError,
    },
    /// The output would replace a file that no step has written.
    #[error(
        "{}: the file exists and was not written by this command\n  hint: name another output, or remove it",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The output would replace rows of other data sets.
    #[error(
        "{}: the file holds rows of {before}, and would be replaced by rows of {now}\n  hint: name another output, or \
         remove it",
        .path.display()
    )]
    OtherSource {
        /// Path of the file.
        path: PathBuf,
        /// Names of the data sets in it.
        before: String,
        /// Names of the data sets to write.
        now: String,
    },
    /// A step leaves no row.
    #[error("no {what} is left of {of}: {reasons}\n  hint: {hint}")]
    Empty {
        /// Rows that are wanted, as `prompt`.
        what: &'static str,
        /// Number of rows before the step.
        of: usize,
        /// Counts of rows by the reason why they were left out.
        reasons: String,
        /// The way out.
        hint: &'static str,
    },
    /// A setting of a step is outside its limits.
    #[error("`{name}` must be {limit}, got {value}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Accepted values.
        limit: String,
        /// The value given.
        value: String,
    },
}
