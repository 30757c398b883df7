//! Rows of a journal: a value with the settings it was made with, or the error of a failed row.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wsd_lab::data::RowSettings;

use crate::error::EvalError;

/// A row as it is written.
#[derive(Serialize)]
pub(crate) struct Written<'a, T> {
    #[serde(flatten)]
    pub(crate) row: T,
    pub(crate) wsd: RowSettings<'a>,
}

/// Reads the rows of a file; `None` for a row that failed. What a row adds stands behind the record of
/// the input, so that it counts where both have a key.
///
/// # Errors
/// I/O errors; [`EvalError::Sample`] for a row of another kind.
pub(crate) fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<Option<T>>, EvalError> {
    let text = fs_err::read_to_string(path)?;
    let rows = text.lines().enumerate().map(|(index, line)| {
        let fault = |source| EvalError::Sample { path: path.into(), line: index + 1, source };
        let row: Map<String, Value> = serde_json::from_str(line).map_err(fault)?;
        let has_failed = row.get("error").is_some_and(Value::is_string);
        if has_failed { Ok(None) } else { serde_json::from_value(row.into()).map(Some).map_err(fault) }
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_adds_precedes_what_its_record_has() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            fs_err::write(file.path(), text).unwrap();
            read_rows::<std::collections::HashMap<String, Value>>(file.path())
        };
        let rows = read("{\"a\": \"x\", \"a\": 2}\n{\"a\": 1, \"error\": \"cut\"}\n{\"error\": 3}\n").unwrap();
        assert_eq!(rows[0].as_ref().unwrap()["a"], 2);
        assert!(rows[1].is_none() && rows[2].is_some());
        let error = read("{\"a\": 1}\n[]\n").unwrap_err().to_string();
        assert!(error.contains(":2"), "{error}");
    }
}
