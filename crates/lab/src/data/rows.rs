//! Reader of a file of prompts; one bad row refuses the file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Record, RecordError};

/// Reason for which a file of prompts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file has no rows.
    #[error("{}: the file has no rows", .0.display())]
    Empty(PathBuf),
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
    faults.iter().fold(String::new(), |mut text, (line, fault)| {
        let _ = write!(text, "\n  {}:{line}: {fault}", path.display());
        text
    })
}

/// Reads a file of JSON lines; blank lines are skipped.
///
/// # Errors
/// [`RowsError::Faults`] names every bad row at once.
pub fn read_rows(path: &Path) -> Result<Vec<Record>, RowsError> {
    parse_rows(path, &fs_err::read(path)?)
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
    let (mut records, mut faults) = (Vec::new(), Vec::new());
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let parsed = match std::str::from_utf8(line) {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => Record::parse(text),
            Err(error) => Err(RecordError::Utf8(error.valid_up_to())),
        };
        match parsed {
            Ok(record) => records.push(record),
            Err(fault) => faults.push((index + 1, fault)),
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
            "in.jsonl cannot be used:\n  in.jsonl:3: needs `prompt`, `messages` or `context`, has: no key\n  \
             in.jsonl:4: invalid UTF-8 at byte 0 of the line"
        );
        fs_err::write(&path, "\n \n").unwrap();
        assert!(matches!(read_rows(&path), Err(RowsError::Empty(_))));
        fs_err::write(&path, "{\"prompt\": \"a\"}\r\n{\"prompt\": \"b\"}").unwrap();
        assert_eq!(read_rows(&path).unwrap().len(), 2);
        let marked = parse_rows(&path, "\u{FEFF}{\"prompt\": \"a\"}\n".as_bytes()).unwrap();
        assert_eq!(marked[0].opening(), "{\"prompt\": \"a\"");
    }
}
