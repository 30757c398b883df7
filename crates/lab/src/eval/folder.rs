//! Layout of the folder that holds a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wsd_core::files::write_whole;

use super::{EvalError, Evaluation};
use crate::data::{Record, read_rows};
use crate::world::{Item, Task};

/// The folder of the systems' answers in a run folder.
pub const SAMPLES: &str = "samples";

/// Paths of a run's files.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// Program version, items and settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program that wrote the run.
    pub version: String,
    /// Number of items of each task.
    pub items: BTreeMap<Task, usize>,
    /// Settings of each system's answers.
    pub systems: BTreeMap<String, Map<String, Value>>,
}

/// A row that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {source}", .path.display())]
pub struct RowError {
    /// Path of the file.
    pub path: PathBuf,
    /// Number of the line, from 1.
    pub line: usize,
    /// Cause.
    pub source: serde_json::Error,
}

impl RunFolder {
    /// Names the run folder at a path, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Path of a system's answers.
    #[must_use]
    pub fn samples(&self, system: &str) -> PathBuf {
        self.path.join(SAMPLES).join(format!("{system}.jsonl"))
    }

    /// Path of the file `name`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes `manifest.json`: the number of `items`, and the settings of systems by name.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write_manifest<'a>(
        &self,
        items: &[Item],
        systems: impl Iterator<Item = (&'a str, &'a Map<String, Value>)>,
    ) -> Result<(), EvalError> {
        let mut counts = BTreeMap::new();
        items.iter().for_each(|item| *counts.entry(item.task).or_insert(0) += 1);
        let systems = systems.map(|(name, settings)| (name.to_owned(), settings.clone())).collect();
        let manifest = Manifest { version: env!("CARGO_PKG_VERSION").into(), items: counts, systems };
        self.write("manifest.json", &format!("{}\n", serde_json::to_string_pretty(&manifest)?))
    }

    /// Writes a file atomically.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&self, name: &str, text: &str) -> Result<(), EvalError> {
        fs_err::create_dir_all(&self.path)?;
        Ok(write_whole(&self.file(name), text.as_bytes())?)
    }

    /// Reads a file of JSON lines; returns no rows if it does not exist.
    ///
    /// # Errors
    /// I/O errors, and [`RowError`] inside one for a row that cannot be parsed.
    pub fn rows<T: for<'a> Deserialize<'a>>(&self, path: &Path) -> std::io::Result<Vec<T>> {
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = fs_err::read_to_string(path)?;
        let rows = text.lines().enumerate().map(|(index, line)| {
            let fault = |source| RowError { path: path.into(), line: index + 1, source };
            serde_json::from_str(line).map_err(|source| std::io::Error::other(fault(source)))
        });
        rows.collect()
    }
}

impl Evaluation {
    /// Reads a file of items.
    ///
    /// # Errors
    /// [`EvalError::Rows`], [`EvalError::Item`].
    pub fn read(path: &Path) -> Result<(Vec<Record>, Vec<Item>), EvalError> {
        let records = read_rows(path)?;
        let items = records.iter().enumerate().map(|(index, record)| {
            let fault = |source| EvalError::Item { path: path.into(), line: index + 1, source };
            serde_json::from_str(record.row()).map_err(fault)
        });
        let items = items.collect::<Result<_, _>>()?;
        Ok((records, items))
    }

    /// Keeps `limit` items of each task, spread evenly over the task since items are grouped by
    /// kind.
    pub fn limit(&mut self, limit: usize) {
        let mut counts = BTreeMap::new();
        self.items.iter().for_each(|item| *counts.entry(item.task).or_insert(0) += 1);
        let mut seen = BTreeMap::new();
        let kept = self.items.iter().map(|item| {
            let (count, place) = (counts[&item.task], seen.entry(item.task).or_insert(0));
            let limit = limit.min(count);
            let is_kept = (*place + 1) * limit / count > *place * limit / count;
            *place += 1;
            is_kept
        });
        let kept: Vec<bool> = kept.collect();
        let mut keep = kept.iter();
        self.items.retain(|_| keep.next() == Some(&true));
        let mut keep = kept.iter();
        self.records.retain(|_| keep.next() == Some(&true));
    }
}
