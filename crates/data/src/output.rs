//! Files that a step writes, each with a card beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wsd_core::files::write_whole;

use crate::DataError;
use crate::card::Card;
use crate::row::beside;

/// A file of rows that a step writes.
#[derive(Clone, Debug)]
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// Names the file at a path.
    ///
    /// # Errors
    /// [`DataError::Foreign`] for a file that no step has written: it has no card.
    pub fn at(path: &Path) -> Result<Self, DataError> {
        if path.exists() && !Card::path(path).exists() {
            return Err(DataError::Foreign(path.into()));
        }
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(Self { path: path.into() })
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes rows and the card, each atomically. Rows that are there are replaced if they come from
    /// one of the same data sets.
    ///
    /// # Errors
    /// [`DataError::OtherSource`]; those of the file system and of serialization.
    pub fn write<T: Serialize>(&self, rows: &[T], card: &Card) -> Result<(), DataError> {
        let replaced = Card::of(std::slice::from_ref(&self.path))?;
        let (before, now) = (replaced.source_names(), card.source_names());
        if self.path.exists() && !before.is_empty() && before.is_disjoint(&now) {
            let listed = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
            return Err(DataError::OtherSource { path: self.path.clone(), before: listed(&before), now: listed(&now) });
        }
        card.write(&self.path)?;
        write_lines(&self.path, rows)
    }

    /// Writes rows that were left out into a file beside it, named after `kind`; removes that of an
    /// earlier run where there are none.
    ///
    /// # Errors
    /// Those of [`Output::write`].
    pub fn write_left_out<T: Serialize>(&self, kind: &str, rows: &[T]) -> Result<(), DataError> {
        let path = beside(&self.path, &format!(".{kind}.jsonl"));
        match (rows, path.exists()) {
            ([], true) => Ok(fs_err::remove_file(path)?),
            ([], false) => Ok(()),
            _ => write_lines(&path, rows),
        }
    }
}

/// Writes rows as JSON lines.
fn write_lines<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), DataError> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    Ok(write_whole(path, text.as_bytes())?)
}
