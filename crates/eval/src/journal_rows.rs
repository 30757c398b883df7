//! Rows of a journal: a value with the settings it was made with, or the error of a failed row.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wsd_lab::data::RowSettings;

use crate::error::EvalError;

/// A row as it is written.
#[derive(Serialize)]
pub(crate) struct Written<'a, T> {
    #[serde(flatten)]
    pub(crate) row: T,
    pub(crate) wsd: RowSettings<'a>,
}

/// A row as it is read.
#[derive(Deserialize)]
struct Row<T> {
    error: Option<String>,
    #[serde(flatten)]
    row: Option<T>,
}

/// Reads the rows of a file; `None` for a row that failed.
///
/// # Errors
/// I/O errors; [`EvalError::Sample`] for a row of another kind.
pub(crate) fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<Option<T>>, EvalError> {
    let text = fs_err::read_to_string(path)?;
    let rows = text.lines().enumerate().map(|(index, line)| {
        let fault = |source| EvalError::Sample { path: path.into(), line: index + 1, source };
        let row: Row<T> = serde_json::from_str(line).map_err(fault)?;
        Ok(row.row.filter(|_| row.error.is_none()))
    });
    rows.collect()
}
