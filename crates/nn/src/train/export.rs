//! A trained model as a Hugging Face folder.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

use super::files::write_folder;
use super::layout::Layout;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::format::Format;

/// Files that are carried over as they are.
const COPIED: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Write a model with new weights: its configuration, its tokenizer, and the weights in `format`, F32, F16 or BF16. Small files
/// are carried over from `source`, the folder the checkpoint or its tokenizer came from.
///
/// # Errors
/// Those of the file system; another format.
pub fn save_folder(
    to: &Path,
    checkpoint: &Checkpoint,
    source: Option<&Path>,
    layout: &Layout,
    weights: &[f32],
    format: Format,
) -> Result<()> {
    let (dtype, name) = match format {
        Format::F32 => (Dtype::F32, "float32"),
        Format::F16 => (Dtype::F16, "float16"),
        Format::BF16 => (Dtype::BF16, "bfloat16"),
        _ => return Err(Error::Setting { name: "dtype", value: format.to_string(), limit: "F32, F16 or BF16".into() }),
    };
    let tensors = layout
        .places()
        .iter()
        .map(|place| Ok((place.name.as_str(), place.shape.clone(), format.quantize(&weights[place.range.clone()])?)));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    write_folder(to, |folder| {
        let fault =
            |error: safetensors::SafeTensorError| Error::malformed("model.safetensors", "weights", error.to_string());
        let views =
            tensors.iter().map(|(name, shape, bytes)| Ok((*name, TensorView::new(dtype, shape.clone(), bytes)?)));
        let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(fault)?;
        let about = [("format".to_owned(), "pt".to_owned())].into();
        let bytes = safetensors::serialize(views, Some(about)).map_err(fault)?;
        fs_err::write(folder.join("model.safetensors"), bytes)?;
        let mut config = checkpoint.config.clone();
        config.insert("torch_dtype".into(), name.into());
        config.shift_remove("dtype");
        write_json(&folder.join("config.json"), &config)?;
        match source.filter(|source| source.is_dir()) {
            Some(source) => copy_small_files(source, folder),
            None => write_small_files(checkpoint, folder),
        }
    })
}

fn copy_small_files(source: &Path, folder: &Path) -> Result<()> {
    for file in COPIED.iter().filter(|file| source.join(file).exists()) {
        fs_err::write(folder.join(file), fs_err::read(source.join(file))?)?;
    }
    Ok(())
}

/// What a checkpoint in another container says, as files.
fn write_small_files(checkpoint: &Checkpoint, folder: &Path) -> Result<()> {
    let fault = |reason: String| Error::Tokenizer { file: checkpoint.name.clone(), reason };
    let tokenizer = checkpoint.tokenizer.to_string(true).map_err(|error| fault(error.to_string()))?;
    fs_err::write(folder.join("tokenizer.json"), tokenizer)?;
    let special = &checkpoint.special;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
        "bos_token": special.bos, "eos_token": special.eos, "pad_token": special.pad, "unk_token": special.unk,
        "add_bos_token": checkpoint.add_bos, "chat_template": checkpoint.chat_template,
    });
    let said = config.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    write_json(
        &folder.join("tokenizer_config.json"),
        &said.map(|(key, value)| (key.clone(), value.clone())).collect(),
    )?;
    let mut generation = checkpoint.generation_config.clone();
    generation.entry("eos_token_id").or_insert_with(|| json!(checkpoint.end_tokens));
    write_json(&folder.join("generation_config.json"), &generation)
}

fn write_json(path: &Path, map: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(map).unwrap_or_default();
    Ok(fs_err::write(path, text + "\n")?)
}
