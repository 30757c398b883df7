//! Reader of training files in JSON or JSON lines.

use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use wsd_core::Input;

use super::{RowError, TrainingRow};

/// Parsed and refused rows of a file.
#[derive(Debug, Default)]
pub struct TrainingRows {
    /// Line number, from 1, and content of each valid row.
    pub read: Vec<(usize, TrainingRow)>,
    /// Line number, from 1, and fault of each invalid row.
    pub refused: Vec<(usize, RowError)>,
}

/// Reason for which a whole file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowFileError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file begins like a JSON list but is not valid JSON.
    #[error("{}: {source}", .path.display())]
    Json {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
}

/// Reads a file that is a JSON list of objects, or has one object per line.
///
/// # Errors
/// [`RowFileError`]. Invalid rows are not errors; they are returned in [`TrainingRows::refused`].
pub fn read_rows(path: &Path) -> Result<TrainingRows, RowFileError> {
    let bytes = Input::ROWS.read(path)?;
    // Some editors write a byte order mark.
    let bytes = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(&bytes);
    if bytes.trim_ascii_start().starts_with(b"[") {
        let rows = list(bytes).map_err(|source| RowFileError::Json { path: path.into(), source })?;
        return Ok(collect(rows.into_iter().map(|(line, row)| (line, TrainingRow::parse(row)))));
    }
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    Ok(collect(lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(index, line)| {
        let text = std::str::from_utf8(line).map_err(|error| RowError::Utf8(error.valid_up_to()));
        (index + 1, text.and_then(TrainingRow::parse))
    })))
}

/// Splits a JSON list into rows, each with the number of its first line.
fn list(bytes: &[u8]) -> Result<Vec<(usize, &str)>, serde_json::Error> {
    let rows: Vec<&RawValue> = serde_json::from_slice(bytes)?;
    let (mut line, mut seen) = (1, 0);
    let mut place = |row: &RawValue| {
        let at = row.get().as_ptr().addr() - bytes.as_ptr().addr();
        line += bytes[seen..at].iter().filter(|&&byte| byte == b'\n').count();
        seen = at;
        line
    };
    Ok(rows.into_iter().map(|row| (place(row), row.get())).collect())
}

fn collect(rows: impl Iterator<Item = (usize, Result<TrainingRow, RowError>)>) -> TrainingRows {
    let mut parsed = TrainingRows::default();
    for (line, row) in rows {
        match row {
            Ok(row) => parsed.read.push((line, row)),
            Err(fault) => parsed.refused.push((line, fault)),
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_lists_are_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        for (text, lines) in [
            (&b"{\"text\": \"a\"}\r\n\n{}\n\xff\n{\"text\": \"b\"}"[..], [1, 5, 3, 4]),
            (&b"\n[{\"text\": \"a\"},\n {}, 7,\n\n{\"text\":\n \"b\"}]\n"[..], [2, 5, 3, 3]),
        ] {
            fs_err::write(&path, text).unwrap();
            let rows = read_rows(&path).unwrap();
            let read: Vec<_> = rows.read.iter().map(|(line, _)| *line).collect();
            let refused: Vec<_> = rows.refused.iter().map(|(line, _)| *line).collect();
            assert_eq!([read[0], read[1], refused[0], refused[1]], lines);
            assert_eq!((read.len(), refused.len()), (2, 2));
        }
        fs_err::write(&path, "[{}").unwrap();
        assert!(matches!(read_rows(&path), Err(RowFileError::Json { .. })));
    }
}
