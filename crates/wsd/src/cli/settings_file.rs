//! The settings of a command that resumes, noted in its folder.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use wsd_core::Input;
use wsd_core::files::write_whole;

/// The name of the file.
const FILE: &str = "settings.json";

/// Writes the settings of a command that begins in a folder, or checks that those of one that goes on
/// are the same. They are given as objects, which are merged.
///
/// # Errors
/// Settings that differ, by their names; those of the file system.
pub(super) fn begin(folder: &Path, settings: &[Value]) -> Result<()> {
    let path = folder.join(FILE);
    let now: Map<String, Value> = settings.iter().filter_map(Value::as_object).flat_map(Map::clone).collect();
    if !path.exists() {
        return Ok(write_whole(&path, (serde_json::to_string_pretty(&now)? + "\n").as_bytes())?);
    }
    let before: Value = serde_json::from_slice(&Input::DESCRIPTION.read(&path)?)?;
    let changed = now.iter().filter(|(key, value)| before.get(key) != Some(value));
    let changed: Vec<_> = changed.map(|(key, _)| format!("`{key}`")).collect();
    if !changed.is_empty() {
        bail!(
            "{}: the command has begun with other values of {}\n  hint: set them back, or name another --output",
            path.display(),
            changed.join(", ")
        );
    }
    Ok(())
}
