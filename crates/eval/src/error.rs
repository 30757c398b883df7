//! Errors of files and runs.

use std::io;
use std::path::PathBuf;

use wsd_lab::data::{JournalError, RecordError};

/// Reason for which a benchmark file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file as a whole is not of the expected form.
    #[error("{}: {message}", .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Description of the fault, with a hint.
        message: String,
    },
    /// A row is not of the expected form.
    #[error("{}:{line}: {message}", .path.display())]
    Row {
        /// Path of the file.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: usize,
        /// Description of the fault.
        message: String,
    },
}

/// Failure of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A benchmark file cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No task has this name.
    #[error("there is no task `{name}`\n  hint: {known}")]
    UnknownTask {
        /// The name given.
        name: String,
        /// Names in the table.
        known: String,
    },
    /// No system has this name.
    #[error("there is no system `{name}`\n  hint: {known}")]
    UnknownSystem {
        /// The name given.
        name: String,
        /// Names of all systems.
        known: String,
    },
    /// An item cannot be written as a row of prompts.
    #[error("item `{id}`: {source}")]
    Item {
        /// Identifier of the item.
        id: String,
        /// Cause.
        source: RecordError,
    },
    /// The run folder holds answers of another run.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] wsd_core::Error),
    /// A row of a run folder cannot be parsed.
    #[error("{}:{line}: not an answer of this task: {source}", .path.display())]
    Sample {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Cause.
        source: serde_json::Error,
    },
    /// A value cannot be serialized.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}
