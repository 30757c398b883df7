//! The folder that a run is kept in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wsd_core::files::write_whole;

use super::{Contest, Entrant, EvalError};
use crate::data::{Record, read_rows};
use crate::world::{Item, Task};

/// Where everything of a run stands.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// What a run was made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this program.
    pub version: String,
    /// Items of each task.
    pub items: BTreeMap<Task, usize>,
    /// What the answers of each system depend on.
    pub systems: BTreeMap<String, Map<String, Value>>,
}

/// A row of samples that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {source}", .path.display())]
pub struct Aborted {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

impl RunFolder {
    /// The run folder of a path, which need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// The answers of a system.
    #[must_use]
    pub fn samples(&self, system: &str) -> PathBuf {
        self.path.join("samples").join(format!("{system}.jsonl"))
    }

    /// A file of another name.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Say what the run is made with.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_manifest(&self, contest: &Contest, entrants: &[Entrant]) -> Result<(), EvalError> {
        let mut items = BTreeMap::new();
        contest.items.iter().for_each(|item| *items.entry(item.task).or_insert(0) += 1);
        let systems = entrants.iter().map(|entrant| (entrant.system.name.to_owned(), entrant.settings.clone()));
        let manifest = Manifest { version: env!("CARGO_PKG_VERSION").into(), items, systems: systems.collect() };
        self.write("manifest.json", &format!("{}\n", serde_json::to_string_pretty(&manifest)?))
    }

    /// Write a file whole, or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, name: &str, text: &str) -> Result<(), EvalError> {
        fs_err::create_dir_all(&self.path)?;
        Ok(write_whole(&self.file(name), text.as_bytes())?)
    }

    /// The rows of a file of JSON lines; none where there is no such file.
    ///
    /// # Errors
    /// Those of reading, and [`Aborted`] for a row that is none.
    pub fn rows<T: for<'a> Deserialize<'a>>(&self, path: &Path) -> std::io::Result<Vec<T>> {
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = fs_err::read_to_string(path)?;
        let rows = text.lines().enumerate().map(|(index, line)| {
            let fault = |source| Aborted { path: path.into(), line: index + 1, source };
            serde_json::from_str(line).map_err(|source| std::io::Error::other(fault(source)))
        });
        rows.collect()
    }
}

impl Contest {
    /// The rows of a file and the items in them.
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

    /// Keep `limit` items of each task, spread evenly over it: kinds of items stand in blocks.
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
