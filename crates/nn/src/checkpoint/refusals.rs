//! Files that look like a checkpoint and are none that can be read, each refused with the way out.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The first bytes of a file that a message shows.
const SHOWN_BYTES: usize = 8;
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// Refuses weights in Python's pickle format: loading them runs code from the file.
pub(super) fn refuse_pickle(path: &Path) -> Result<()> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if !PICKLES.contains(&extension.as_str()) {
        return Ok(());
    }
    Err(Error::Refused {
        file: path.display().to_string(),
        reason: "a pickle can run any code when it is loaded",
        hint: "if you trust it, convert it to safetensors: transformers' model.save_pretrained(folder)",
    })
}

/// Returns the error for a file that is no checkpoint: what it begins with, since its name may claim
/// otherwise.
pub(super) fn unknown_content(path: &Path, bytes: &[u8]) -> Error {
    let start: String = bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii().map(char::from).collect();
    let found = if bytes.is_empty() { "an empty file".into() } else { format!("a file that begins with \"{start}\"") };
    Error::malformed(
        &path.display().to_string(),
        "content",
        format!(
            "must begin with \"GGUF\", got {found}\n  hint: a model is a GGUF file, or the folder that has \
             config.json, tokenizer.json and *.safetensors"
        ),
    )
}

/// Refuses weights of a quantization library, which the `quantization_config` of a configuration
/// names.
pub(super) fn refuse_quantized(file: &str, config: &Map<String, Value>) -> Result<()> {
    let Some(section) = config.get("quantization_config").and_then(Value::as_object) else { return Ok(()) };
    if section.get("quant_method").is_some_and(|method| method == "mxfp4") {
        return Ok(());
    }
    let is_set = |key: &str| section.get(key) == Some(&Value::Bool(true));
    let method = match section.get("quant_method").and_then(Value::as_str) {
        Some(method) => method,
        None if is_set("load_in_4bit") || is_set("load_in_8bit") => "bitsandbytes",
        None => "unnamed",
    };
    Err(Error::Unsupported {
        file: file.into(),
        what: "key `quantization_config`: quantization method".into(),
        found: method.into(),
        supported: "MXFP4, F32, F16 and BF16 weights, quantized on load with --dtype, or a GGUF file of the same model"
            .into(),
    })
}

/// Returns the hint for the folder of an adapter that is given as a model.
pub(super) fn adapter_hint(adapter_config: &Map<String, Value>) -> String {
    let text = |key: &str, default: &'static str| adapter_config.get(key).and_then(Value::as_str).unwrap_or(default);
    format!(
        "the folder is a {} adapter of the model `{}`, which is not in it; merge the two: \
         wsd train export --model BASE --adapter FOLDER --output MERGED",
        text("peft_type", "PEFT"),
        text("base_model_name_or_path", "unnamed"),
    )
}
