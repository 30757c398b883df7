//! Recommended sampling in the metadata of a GGUF file.

use serde_json::{Map, Value, json};
use wsd_core::{MIN_P, REPETITION_PENALTY, Setting, TEMPERATURE, TOP_K, TOP_P};

use super::metadata::Metadata;
use super::writer::Entry;
use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// The keys of GGUF files under `general.sampling.`, with the settings whose names
/// `generation_config.json` has as keys. The file format's list is in llama.cpp's
/// `gguf-py/gguf/constants.py`.
static GGUF_KEYS: [(&str, &Setting); 5] = [
    ("temp", &TEMPERATURE),
    ("top_k", &TOP_K),
    ("top_p", &TOP_P),
    ("min_p", &MIN_P),
    ("penalty_repeat", &REPETITION_PENALTY),
];

fn full_key(key: &str) -> String {
    format!("general.sampling.{key}")
}

/// Reads the sampling of a GGUF file as the keys of `generation_config.json`.
pub(super) fn generation_config(metadata: &Metadata<'_>) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    for (key, setting) in GGUF_KEYS {
        let key = full_key(key);
        let value = if setting.name == TOP_K.name {
            metadata.unsigned(&key)?.map(|value| json!(value))
        } else {
            // Stored in single precision: the shortest decimal is the one that was meant.
            metadata.float(&key)?.map(|value| json!((value as f32).to_string().parse().unwrap_or(value)))
        };
        config.extend(value.map(|value| (setting.name.to_owned(), value)));
    }
    Ok(config)
}

/// Makes the metadata of the sampling that a checkpoint recommends.
pub(super) fn entries(checkpoint: &Checkpoint) -> Vec<(String, Entry)> {
    let sampling = checkpoint.sampling();
    let entry = |(key, setting): (&str, &'static Setting)| {
        let entry = match sampling.value(setting).filter(|_| sampling.is_set(setting))? {
            wsd_core::Value::Integer(count) => Entry::Signed(i32::try_from(*count).ok()?),
            wsd_core::Value::Number(value) => Entry::Float(*value as f32),
            _ => return None,
        };
        Some((full_key(key), entry))
    };
    GGUF_KEYS.into_iter().filter_map(entry).collect()
}
