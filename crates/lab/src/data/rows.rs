//! Reader of a file of prompts; one bad row refuses the file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use wsd_core::{Input, SAMPLING, TERMS};

use super::{Record, RecordError, csv_records};

/// The most faults that a message lists.
const LISTED: usize = 5;

/// A row, or its fault, with its first line, from 1.
type Row = (usize, Result<Record, RecordError>);

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

/// Reads a file that is a JSON list of objects, a CSV file with a line of names, or has one object
/// per line; blank lines are skipped.
///
/// # Errors
/// [`RowsError::Faults`] names the first bad rows and counts the others.
pub fn read_rows(path: &Path) -> Result<Vec<Record>, RowsError> {
    RowReader::default().read(path)
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
    RowReader::default().parse(path, bytes)
}

/// A reader of files of prompts.
///
/// ```
/// use wsd_lab::data::RowReader;
/// let reader = RowReader { prompt_key: Some("query".into()) };
/// assert_eq!(reader.parse("in.csv".as_ref(), b"id,query\n1,Why?\n")?.len(), 1);
/// # Ok::<(), wsd_lab::data::RowsError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RowReader {
    /// The key of the prompt, a text or a conversation, in place of the known ones.
    pub prompt_key: Option<String>,
}

impl RowReader {
    /// Reads a file; one whose name ends with `.csv` is read as CSV.
    ///
    /// # Errors
    /// [`RowsError`].
    pub fn read(&self, path: &Path) -> Result<Vec<Record>, RowsError> {
        self.parse(path, &Input::PROMPTS.read(path)?)
    }

    /// Parses the bytes of a file; `path` is used in messages, and its extension tells a CSV file.
    ///
    /// # Errors
    /// [`RowsError`].
    pub fn parse(&self, path: &Path, bytes: &[u8]) -> Result<Vec<Record>, RowsError> {
        // Some editors write a byte order mark.
        let bytes = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(bytes);
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
            return checked(path, self.table(path, bytes)?.into_iter());
        }
        if bytes.trim_ascii_start().starts_with(b"[") {
            let rows = list(bytes).map_err(|source| RowsError::Json { path: path.into(), source })?;
            return checked(path, rows.into_iter().map(|(line, row)| (line, self.record(row))));
        }
        let lines = bytes.split(|&byte| byte == b'\n').enumerate();
        let rows = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(index, line)| {
            let text = std::str::from_utf8(line).map_err(|error| RecordError::Utf8(error.valid_up_to()));
            (index + 1, text.and_then(|text| self.record(text)))
        });
        checked(path, rows)
    }

    fn record(&self, text: &str) -> Result<Record, RecordError> {
        Record::parse_with(text, self.prompt_key.as_deref())
    }

    /// Reads CSV as rows of texts; cells in columns of settings may be numbers.
    fn table(&self, path: &Path, bytes: &[u8]) -> Result<Vec<Row>, RowsError> {
        let fault = |line, fault| RowsError::Faults { path: path.into(), faults: vec![(line, fault)] };
        let text = std::str::from_utf8(bytes).map_err(|error| fault(1, RecordError::Utf8(error.valid_up_to())))?;
        let records =
            csv_records(text).map_err(|line| fault(line, RecordError::Csv("a quoted field has no end".into())))?;
        let mut records = records.into_iter();
        let Some((_, names)) = records.next() else { return Ok(Vec::new()) };
        let cell = |(name, text): (&String, String)| {
            let is_setting = SAMPLING.iter().chain(TERMS).any(|setting| setting.name == name);
            let number = serde_json::from_str(&text).ok().filter(|_| is_setting);
            (name.clone(), number.unwrap_or(Value::String(text)))
        };
        let row = |(line, record): (usize, Vec<String>)| {
            if record.len() != names.len() {
                let reason = format!("a row must have {} fields, got {}", names.len(), record.len());
                return (line, Err(RecordError::Csv(reason)));
            }
            let fields: Map<_, _> = names.iter().zip(record).map(cell).collect();
            (line, self.record(&Value::Object(fields).to_string()))
        };
        Ok(records.map(row).collect())
    }
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
fn checked(path: &Path, rows: impl Iterator<Item = Row>) -> Result<Vec<Record>, RowsError> {
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
    use crate::data::RecordPrompt;

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
             `instruction`, has: no key; --prompt-key names another\n  in.jsonl:4: invalid UTF-8 at byte 0 of the line"
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

    #[test]
    fn csv_and_other_keys_are_read() {
        let rows = parse_rows("in.csv".as_ref(), b"question,seed,n\n\"a, b\",7,1\nc,8,2\n").unwrap();
        assert_eq!(rows[0].row(), r#"{"question":"a, b","seed":7,"n":"1"}"#);
        assert_eq!(rows[1].prompt(), &RecordPrompt::Text("c".into()));
        let reader = RowReader { prompt_key: Some("goal".into()) };
        let rows = reader.parse("in.csv".as_ref(), b"goal,prompt\nx,y\n").unwrap();
        assert_eq!(rows[0].prompt(), &RecordPrompt::Text("x".into()), "the named key wins");
        let fault = |path: &str, bytes: &[u8]| reader.parse(path.as_ref(), bytes).unwrap_err().to_string();
        assert!(fault("in.csv", b"goal,n\nx\n").contains("in.csv:2: a row must have 2 fields, got 1"));
        assert!(fault("in.csv", b"goal\n\"x\n").contains("in.csv:2: a quoted field has no end"));
        assert!(fault("in.jsonl", b"{\"prompt\": \"a\"}").contains("in.jsonl:1: needs `goal`, has: prompt"));
        assert!(fault("in.jsonl", b"goal,n\nx,1\n").contains("a CSV file must be named *.csv"));
    }
}
