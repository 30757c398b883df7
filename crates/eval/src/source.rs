//! Benchmark files: JSON lines, JSON lists, CSV and plain text, compressed by gzip or not.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::SourceError;

/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1F, 0x8B];
/// The first bytes of a bzip2 file.
const BZIP2: &[u8] = b"BZh";

/// A benchmark file in memory.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
    sha256: String,
}

/// One row of a file: named values, and the line on which it begins.
#[derive(Clone, Debug)]
pub struct Row {
    path: PathBuf,
    line: usize,
    fields: Map<String, Value>,
}

impl Source {
    /// Reads a file and decompresses it if it is a gzip file.
    ///
    /// # Errors
    /// [`SourceError`] for a file that cannot be read or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let bytes = wsd_core::Input::ROWS.read(path)?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let fault = |message: &str| SourceError::File { path: path.into(), message: message.into() };
        let bytes = if bytes.starts_with(&GZIP) {
            let mut plain = Vec::new();
            MultiGzDecoder::new(bytes.as_slice())
                .read_to_end(&mut plain)
                .map_err(|error| fault(&format!("not a whole gzip file: {error}")))?;
            plain
        } else {
            bytes
        };
        if bytes.starts_with(BZIP2) {
            return Err(fault("a bzip2 file\n  hint: decompress it first: bunzip2 -k FILE"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| fault(&format!("not UTF-8 text: invalid byte at {}", error.utf8_error().valid_up_to())))?;
        let text = text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text);
        Ok(Self { path: path.into(), text, sha256 })
    }

    /// A text under a name, as if it had been read from a file.
    ///
    /// ```
    /// let source = wsd_eval::Source::of("test.jsonl", "{\"question\": \"2 + 2?\"}\n");
    /// assert_eq!(source.rows()?[0].text("question")?, "2 + 2?");
    /// # Ok::<(), wsd_eval::SourceError>(())
    /// ```
    #[must_use]
    pub fn of(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        let sha256 = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { path: path.into(), text, sha256 }
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Text of the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the file's bytes, in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// An error about the file as a whole.
    #[must_use]
    pub fn fault(&self, message: impl Into<String>) -> SourceError {
        SourceError::File { path: self.path.clone(), message: message.into() }
    }

    /// An error about the row on a line.
    #[must_use]
    pub fn fault_at(&self, line: usize, message: impl Into<String>) -> SourceError {
        SourceError::Row { path: self.path.clone(), line, message: message.into() }
    }

    /// The rows of a JSON list of objects, or of a file with one object per line.
    ///
    /// # Errors
    /// [`SourceError`] names the line that is not a JSON object.
    pub fn rows(&self) -> Result<Vec<Row>, SourceError> {
        let parts: Vec<(usize, &str)> = if self.text.trim_start().starts_with('[') {
            let parts: Vec<&RawValue> = serde_json::from_str(&self.text)
                .map_err(|error| self.fault_at(error.line(), format!("not JSON: {error}")))?;
            let line = |part: &str| {
                let at = part.as_ptr().addr() - self.text.as_ptr().addr();
                self.text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
            };
            parts.into_iter().map(|part| (line(part.get()), part.get())).collect()
        } else {
            let lines = self.text.split('\n').enumerate();
            lines.map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim().is_empty()).collect()
        };
        let row = |(line, part): (usize, &str)| match serde_json::from_str(part) {
            Ok(fields) => Ok(Row { path: self.path.clone(), line, fields }),
            Err(error) => Err(self.fault_at(line, format!("not a JSON object: {error}"))),
        };
        parts.into_iter().map(row).collect()
    }

    /// The records of a CSV file (RFC 4180), each with the line on which it begins.
    ///
    /// # Errors
    /// [`SourceError`] for a quoted field without an end.
    pub fn records(&self) -> Result<Vec<(usize, Vec<String>)>, SourceError> {
        wsd_lab::data::csv_records(&self.text).map_err(|line| self.fault_at(line, "not CSV: a quoted field has no end"))
    }

    /// The rows of a CSV file whose first record names the columns.
    ///
    /// # Errors
    /// [`SourceError`] for a record with another number of fields.
    pub fn table(&self) -> Result<Vec<Row>, SourceError> {
        let mut records = self.records()?.into_iter();
        let Some((_, names)) = records.next() else { return Ok(Vec::new()) };
        let row = |(line, record): (usize, Vec<String>)| {
            if record.len() != names.len() {
                let message = format!("a row must have {} fields, got {}", names.len(), record.len());
                return Err(self.fault_at(line, message));
            }
            let fields = names.iter().cloned().zip(record.into_iter().map(Value::String)).collect();
            Ok(Row { path: self.path.clone(), line, fields })
        };
        records.map(row).collect()
    }
}

impl Row {
    /// Creates a row of the file at `path` that begins on a line.
    #[must_use]
    pub fn new(path: &Path, line: usize, fields: Map<String, Value>) -> Self {
        Self { path: path.into(), line, fields }
    }

    /// Line on which the row begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Path of the file and the line.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.path.display(), self.line)
    }

    /// All fields.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// An error about this row.
    #[must_use]
    pub fn fault(&self, message: impl Into<String>) -> SourceError {
        SourceError::Row { path: self.path.clone(), line: self.line, message: message.into() }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`SourceError`] names the key and those that the row has.
    pub fn value(&self, key: &str) -> Result<&Value, SourceError> {
        self.fields.get(key).ok_or_else(|| {
            let keys: Vec<_> = self.fields.keys().map(String::as_str).collect();
            self.fault(format!(
                "needs `{key}`, has: {}",
                if keys.is_empty() { "no key".into() } else { keys.join(", ") }
            ))
        })
    }

    /// The text of a key.
    ///
    /// # Errors
    /// [`SourceError`] for a missing key or a value that is no text.
    pub fn text(&self, key: &str) -> Result<&str, SourceError> {
        self.value(key)?.as_str().ok_or_else(|| self.fault(format!("`{key}` must be a text")))
    }

    /// The text of the first of several keys that the row has.
    ///
    /// # Errors
    /// Those of [`Row::text`], for the first key.
    pub fn text_of(&self, keys: &[&str]) -> Result<&str, SourceError> {
        let known = keys.iter().find(|key| self.fields.contains_key(**key));
        self.text(known.or(keys.first()).copied().unwrap_or_default())
    }

    /// The texts of a key that holds a list.
    ///
    /// # Errors
    /// [`SourceError`] for a missing key or a value that is no list of texts.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, SourceError> {
        serde_json::from_value(self.value(key)?.clone())
            .map_err(|_| self.fault(format!("`{key}` must be a list of texts")))
    }

    /// The value of a key as text, for identifiers that are numbers or texts.
    ///
    /// # Errors
    /// [`SourceError`] for a missing key.
    pub fn id(&self, key: &str) -> Result<String, SourceError> {
        Ok(match self.value(key)? {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_may_hold_commas_quotes_and_line_breaks() {
        let source = Source::of("a.csv", "id,text\r\n1,\"a, \"\"b\"\"\nc\"\n2,\n");
        let rows = source.table().unwrap();
        assert_eq!((rows[0].text("text").unwrap(), rows[0].line()), ("a, \"b\"\nc", 2));
        assert_eq!((rows[1].text("text").unwrap(), rows[1].line()), ("", 4));
        let fault = Source::of("a.csv", "id,text\n1\n").table().unwrap_err().to_string();
        assert_eq!(fault, "a.csv:2: a row must have 2 fields, got 1");
        assert!(Source::of("a.csv", "a\n\"b").records().unwrap_err().to_string().starts_with("a.csv:2: not CSV"));
    }

    #[test]
    fn rows_name_their_lines_and_keys() {
        let source = Source::of("a.json", "[{\"a\": \"x\"},\n {\"a\": 3}]");
        let rows = source.rows().unwrap();
        assert_eq!(rows[1].text("a").unwrap_err().to_string(), "a.json:2: `a` must be a text");
        assert_eq!(rows[0].text("b").unwrap_err().to_string(), "a.json:1: needs `b`, has: a");
        assert!(Source::of("a", "{}\n[1]").rows().unwrap_err().to_string().starts_with("a:2: not a JSON object"));
    }

    #[test]
    fn gzip_files_are_decompressed_and_others_named() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"{\"a\": 1}\n").unwrap();
        fs_err::write(&path, encoder.finish().unwrap()).unwrap();
        assert_eq!(Source::read(&path).unwrap().rows().unwrap()[0].id("a").unwrap(), "1");
        fs_err::write(&path, b"BZh9...").unwrap();
        assert!(Source::read(&path).unwrap_err().to_string().contains("bunzip2"));
    }
}
