//! Identifiers that must be unique.

use std::collections::HashMap;

use wsd_eval::{Row, SourceError};

/// Identifiers with the places at which they stand.
#[derive(Debug, Default)]
pub(crate) struct Ids(HashMap<String, String>);

impl Ids {
    /// Adds the identifier of a row.
    pub(crate) fn add(&mut self, id: &str, row: &Row) -> Result<(), SourceError> {
        match self.0.insert(id.to_owned(), row.place()) {
            None => Ok(()),
            Some(first) => Err(row.fault(format!(
                "the id `{id}` stands at {first} too\n  hint: give each data set a name of its own with --source"
            ))),
        }
    }
}
