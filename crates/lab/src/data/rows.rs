//! Reader of a file of prompts; one bad row refuses the file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use wsd_core::Input;

use super::{Record, RecordError};

/// The most faults that a message lists.
const LISTED: usize = 5;

/// Reason for which a file of prompts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file has no rows.
    #[error("{}: the file has no rows", .0.display())]
    Empty(PathBuf),
    /// The file begins like a JSON list but is not valid JSON.
    #[error("{}: {source}", .path.display())]
    Json {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
    /// Some rows are not prompts.
    #[error("{} cannot be used:{}", .path.display(), listed(.path, .faults))]
    Faults {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1, and fault of every bad row.
        faults: Vec<(usize, RecordError)>,
    },
}

fn listed(path: &Path, faults: &[(usize, RecordError)]) -> String {
    let mut text = faults.iter().take(LISTED).fold(String::new(), |mut text, (line, fault)| {
        let _ = write!(text, "\n  {}:{line}: {fault}", path.display());
        text
    });
    if faults.len() > LISTED {
        let _ = write!(text, "\n  and {} more rows", faults.len() - LISTED);
    }
    text
}

/// Reads a file that is a JSON list of objects, or has one object per line; blank lines are skipped.
///
/// # Errors
/// [`RowsError::Faults`] names the first bad rows and counts the others.
pub fn read_rows(path: &Path) -> Result<Vec<Record>, RowsError> {
    parse_rows(path, &Input::PROMPTS.read(path)?)
}

/// Parses the bytes of a file; `path` is used in messages.
///
/// ```
/// use wsd_lab::data::parse_rows;
/// let rows = parse_rows("in.jsonl".as_ref(), b"{\"prompt\": \"a\"}\n\n{\"prompt\": \"b\"}\n")?;
/// assert_eq!(rows.len(), 2);
/// # Ok::<(), wsd_lab::data::RowsError>(())
/// ```
///
/// # Errors
/// Same as [`read_rows`].
pub fn parse_rows(path: &Path, bytes: &[u8]) -> Result<Vec<Record>, RowsError> {
    // Some editors write a byte order mark.
    let bytes = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(bytes);
    if bytes.trim_ascii_start().starts_with(b"[") {
        let rows = list(bytes).map_err(|source| RowsError::Json { path: path.into(), source })?;
        return checked(path, rows.into_iter().map(|(line, row)| (line, Record::parse(row))));
    }
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let rows = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(index, line)| {
        let text = std::str::from_utf8(line).map_err(|error| RecordError::Utf8(error.valid_up_to()));
        (index + 1, text.and_then(Record::parse))
    });
    checked(path, rows)
}

/// Splits a JSON list into rows, each with the number of its first line.
fn list(bytes: &[u8]) -> Result<Vec<(usize, &str)>, serde_json::Error> {
    let rows: Vec<&RawValue> = serde_json::from_slice(bytes)?;
    let (mut line, mut seen) = (1, 0);
    let rows = rows.into_iter().map(|row| {
        let at = row.get().as_ptr().addr() - bytes.as_ptr().addr();
        line += bytes[seen..at].iter().filter(|&&byte| byte == b'\n').count();
        seen = at;
        (line, row.get())
    });
    Ok(rows.collect())
}

/// Returns the records of all rows, or the faults of the bad ones.
fn checked(
    path: &Path,
    rows: impl Iterator<Item = (usize, Result<Record, RecordError>)>,
) -> Result<Vec<Record>, RowsError> {
    let (mut records, mut faults) = (Vec::new(), Vec::new());
    for (line, row) in rows {
        match row {
            Ok(record) => records.push(record),
            Err(fault) => faults.push((line, fault)),
        }
    }
    if !faults.is_empty() {
        return Err(RowsError::Faults { path: path.into(), faults });
    }
    if records.is_empty() {
        return Err(RowsError::Empty(path.into()));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_row_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        fs_err::write(&path, b"{\"prompt\": \"a\"}\n\n{}\n\xff\n{\"prompt\": \"b\"}").unwrap();
        let text = read_rows(&path).unwrap_err().to_string();
        let text = text.replace(&path.display().to_string(), "in.jsonl");
        assert_eq!(
            text,
            "in.jsonl cannot be used:\n  in.jsonl:3: needs `prompt`, `messages`, `context`, `question` or \
             `instruction`, has: no key\n  in.jsonl:4: invalid UTF-8 at byte 0 of the line"
        );
        fs_err::write(&path, "\n \n").unwrap();
        assert!(matches!(read_rows(&path), Err(RowsError::Empty(_))));
        fs_err::write(&path, "{\"prompt\": \"a\"}\r\n{\"prompt\": \"b\"}").unwrap();
        assert_eq!(read_rows(&path).unwrap().len(), 2);
        let marked = parse_rows(&path, "\u{FEFF}{\"prompt\": \"a\"}\n".as_bytes()).unwrap();
        assert_eq!(marked[0].opening(), "{\"prompt\": \"a\"");
    }

    #[test]
    fn a_list_is_read_and_the_first_faults_are_listed() {
        let list = b"\n[{\"instruction\": \"a\",\n \"output\": \"x\"},\n {\"question\":\n  \"b\"}]\n";
        let rows = parse_rows("in.json".as_ref(), list).unwrap();
        assert_eq!(
            rows.iter().map(Record::row).collect::<Vec<_>>(),
            [r#"{"instruction":"a"}"#, r#"{"question": "b"}"#]
        );
        assert!(matches!(parse_rows("in.json".as_ref(), b"[{}"), Err(RowsError::Json { .. })));
        let text = parse_rows("in.json".as_ref(), "{}\n".repeat(8).as_bytes()).unwrap_err().to_string();
        assert!(text.lines().count() == 7 && text.ends_with("\n  and 3 more rows"), "{text}");
    }
}
