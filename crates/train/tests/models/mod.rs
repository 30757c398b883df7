//! Tiny checkpoints of every architecture, those that the engine's tests use, and their sequences.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wsd_nn::Checkpoint;

/// A checkpoint folder and the token sequences its GOLDEN.json lists.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) sequences: Vec<Vec<u32>>,
}

/// The folder of one checkpoint.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures").join(name)
}

/// Reads a JSON file.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

/// Every folder with a GOLDEN.json, sorted by name.
pub(crate) fn all() -> Vec<Model> {
    let entries = fs_err::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|folder| folder.join("config.json").exists()).collect();
    folders.sort();
    let open = |folder: &PathBuf| {
        let golden = json(&folder.join("GOLDEN.json"));
        let ids = |sequence: &Value| {
            sequence["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        Model {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            checkpoint: Checkpoint::open(folder).unwrap(),
            sequences: golden["sequences"].as_array().unwrap().iter().map(ids).collect(),
        }
    };
    folders.iter().map(open).collect()
}
