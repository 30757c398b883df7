//! The step that reads data sets.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wsd_core::Input;
use wsd_eval::{Row, Source, SourceError};

use crate::card::InputFile;
use crate::forms::{Content, Form, of_key};
use crate::share::Spread;
use crate::{DataError, PromptRow, parquet};

/// Choices of the reader.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Name of the data set, which begins the identifiers of its prompts.
    pub source: String,
    /// Purpose of the prompts; may be empty.
    pub label: String,
    /// The form of the rows; each row's own if absent.
    pub form: Option<&'static Form>,
    /// The key of the prompt, in the place of a form.
    pub prompt_key: Option<String>,
    /// The most prompts, evenly spread over the files.
    pub limit: Option<usize>,
}

/// A row that is not a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// File and line.
    pub at: String,
    /// The fault.
    pub reason: String,
}

/// Rows of data sets.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The prompts, with the answers that their rows have.
    pub prompts: Vec<PromptRow>,
    /// Rows that are not prompts.
    pub refused: Vec<Refused>,
    /// The files.
    pub files: Vec<InputFile>,
}

impl Reader {
    /// Reads files: JSON lines, a JSON list, CSV with a row of names, or Parquet; the first three may be
    /// compressed by gzip.
    ///
    /// # Errors
    /// [`DataError::Source`] for a file that is none of these.
    pub fn read(&self, paths: &[PathBuf]) -> Result<Read, DataError> {
        let mut read = Read::default();
        for path in paths {
            let rows = rows(path)?;
            read.files.push(InputFile::of(path, rows.len())?);
            for row in rows {
                match self.content(&row) {
                    Ok(content) => read.prompts.push(self.prompt(content, read.prompts.len() + read.refused.len())),
                    Err(error) => read.refused.push(refused(error)),
                }
            }
        }
        let mut spread = Spread::new(self.limit.unwrap_or(usize::MAX), read.prompts.len());
        read.prompts.retain(|_| spread.keeps_next());
        Ok(read)
    }

    fn content(&self, row: &Row) -> Result<Content, SourceError> {
        match (&self.prompt_key, self.form) {
            (Some(key), _) => of_key(row, key),
            (None, Some(form)) => form.content(row),
            (None, None) => Form::of(row)?.content(row),
        }
    }

    fn prompt(&self, content: Content, number: usize) -> PromptRow {
        PromptRow {
            id: format!("{}/{number}", self.source),
            source: self.source.clone(),
            label: self.label.clone(),
            messages: content.messages,
            answers: content.answers,
        }
    }
}

fn refused(error: SourceError) -> Refused {
    match error {
        SourceError::Row { path, line, message } => {
            Refused { at: format!("{}:{line}", path.display()), reason: message }
        }
        error => Refused { at: String::new(), reason: error.to_string() },
    }
}

/// The rows of a file, by its first bytes and its name.
///
/// # Errors
/// [`SourceError`] for a file that cannot be parsed.
pub fn rows(path: &Path) -> Result<Vec<Row>, SourceError> {
    use std::io::Read as _;
    let mut start = [0; parquet::MAGIC.len()];
    let is_parquet = Input::ROWS.open(path)?.read_exact(&mut start).is_ok() && start == parquet::MAGIC;
    if is_parquet {
        return parquet::read(path);
    }
    let name = path.to_string_lossy().to_lowercase();
    let source = Source::read(path)?;
    if name.trim_end_matches(".gz").ends_with(".csv") { source.table() } else { source.rows() }
}

impl InputFile {
    /// A file with its checksum.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(path: &Path, rows: usize) -> Result<Self, DataError> {
        let digest = Sha256::digest(Input::ROWS.read(path)?);
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path: path.into(), rows, sha256 })
    }
}
