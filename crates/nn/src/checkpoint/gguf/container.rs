//! The GGUF container (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), versions 2 and
//! 3, little-endian.
//!
//! The files are untrusted. Every count, length and offset is checked against the file before use,
//! metadata is read in place, and no allocation exceeds what the file fills: earlier readers of
//! this format have overflowed, read beyond the file and allocated without bound.

mod cursor;
mod tensor_entry;
mod value;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use self::cursor::MAGIC;
pub(crate) use self::value::{Array, Value};

use self::cursor::{CUT, Cursor, MAX_HEADER_BYTES};
use self::tensor_entry::{EntryKind, TensorEntry};
use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::tensor::Tensor;
use crate::error::{Error, Result};

const DEFAULT_ALIGNMENT: u64 = 32;
const MIN_ALIGNMENT: u64 = 8;

/// A parsed file. Its strings and arrays borrow the bytes of the file for `'a`.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) metadata: BTreeMap<&'a str, Value<'a>>,
    pub(crate) tensors: Vec<Tensor>,
    /// The reasons why other tensors, as of integers, cannot be read, by name.
    pub(crate) unread: BTreeMap<String, String>,
}

/// Parses a file; `file` is its name in messages.
pub(crate) fn parse<'a>(file: &str, bytes: &'a Bytes) -> Result<Container<'a>> {
    let mut cursor = Cursor { file, bytes: &bytes[..bytes.len().min(MAX_HEADER_BYTES)], position: 0 };
    let (tensor_count, entry_count) = cursor.header()?;
    let mut metadata = BTreeMap::new();
    for _ in 0..entry_count {
        let (key, value) = cursor.entry()?;
        if metadata.insert(key, value).is_some() {
            return Err(Error::malformed(file, format!("key `{key}`"), "it is defined twice"));
        }
    }
    let alignment = alignment(file, &metadata)?;
    let tensor_entries = cursor.tensor_entries(tensor_count, alignment)?;
    let data_start = (cursor.position as u64).checked_next_multiple_of(alignment);
    let mut names = BTreeSet::new();
    if let Some(entry) = tensor_entries.iter().find(|entry| !names.insert(entry.name)) {
        return Err(Error::malformed(file, format!("tensor `{}`", entry.name), "it is defined twice"));
    }
    let data_bytes = data_start.and_then(|start| (bytes.len() as u64).checked_sub(start)).unwrap_or(0);
    tile(file, &tensor_entries, alignment, data_bytes)?;
    let (mut tensors, mut unread) = (BTreeMap::new(), BTreeMap::new());
    for entry in tensor_entries {
        let name = entry.name;
        match entry.kind {
            EntryKind::Integers { ref reason, .. } => drop(unread.insert(name.to_owned(), reason.clone())),
            EntryKind::Numbers(format) => {
                let tensor = entry.tensor(format, data_start, bytes);
                let fault = |reason| Error::malformed(file, format!("tensor `{name}`"), reason);
                tensors.insert(name, tensor.map_err(fault)?);
            }
        }
    }
    Ok(Container { metadata, tensors: tensors.into_values().collect(), unread })
}

/// Checks that the tensors fill the data in the order of their entries, each padded to the
/// alignment, as the format requires. A changed type, shape or offset leaves a gap or an overlap.
fn tile(file: &str, entries: &[TensorEntry<'_>], alignment: u64, data_bytes: u64) -> Result<()> {
    let mut end = 0u64;
    for entry in entries {
        let fault = |reason| Error::malformed(file, format!("tensor `{}`", entry.name), reason);
        if entry.offset != end {
            let found = entry.offset;
            return Err(fault(format!("must begin at offset {end}, where the tensor before it ends, got {found}")));
        }
        let next = end.checked_add(entry.bytes().map_err(fault)?);
        end = next
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| fault(format!("its end after offset {end} exceeds any memory")))?;
    }
    // The padding after the last tensor may be absent.
    if data_bytes > end || end - data_bytes >= alignment {
        let cut = if data_bytes < end { CUT } else { "" };
        let reason = format!("the tensors take {end} bytes with padding, the file has {data_bytes} for them{cut}");
        return Err(Error::malformed(file, "data", reason));
    }
    Ok(())
}

fn alignment(file: &str, metadata: &BTreeMap<&str, Value<'_>>) -> Result<u64> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(value)) if value.is_power_of_two() && *value >= MIN_ALIGNMENT => Ok(*value),
        Some(other) => {
            let reason = format!("must be a power of two of at least {MIN_ALIGNMENT}, got {other:?}");
            Err(Error::malformed(file, "key `general.alignment`", reason))
        }
    }
}

#[cfg(test)]
mod tests;
