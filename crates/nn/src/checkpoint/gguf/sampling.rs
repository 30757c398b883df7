//! Recommended sampling in the metadata of a GGUF file.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use crate::error::Result;

/// The keys of GGUF files under `general.sampling.`, with those of `generation_config.json`. The file
/// format's list is in llama.cpp's `gguf-py/gguf/constants.py`.
const GGUF_KEYS: [(&str, &str); 5] = [
    ("temp", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("penalty_repeat", "repetition_penalty"),
];

/// Reads the sampling of a GGUF file as the keys of `generation_config.json`.
pub(super) fn generation_config(metadata: &Metadata<'_>) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    for (from, to) in GGUF_KEYS {
        let key = format!("general.sampling.{from}");
        let value = match to {
            "top_k" => metadata.unsigned(&key)?.map(|value| json!(value)),
            // Stored in single precision: the shortest decimal is the one that was meant.
            _ => metadata.float(&key)?.map(|value| json!((value as f32).to_string().parse().unwrap_or(value))),
        };
        config.extend(value.map(|value| (to.to_owned(), value)));
    }
    Ok(config)
}
