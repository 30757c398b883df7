//! Models as Hugging Face folders.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde_json::{Map, Value, json};
use wsd_core::Input;
use wsd_core::files::write_folder;

use super::layout::{Layout, Place};
use crate::error::{Error, Result};
use wsd_nn::{Checkpoint, Format, Spelling, Tensor, arch};

/// Files that are copied from the source folder.
const COPIED: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// The ends of the names of classes with a vocabulary head.
const CAUSAL: [&str; 2] = ["ForCausalLM", "LMHeadModel"];

/// Writes a model with new weights: its configuration, its tokenizer, and the weights in F32, F16
/// or BF16. Tokenizer files are copied from `source`, the folder of the checkpoint or of its
/// tokenizer.
///
/// # Errors
/// Those of the file system; another format.
pub fn save_folder(
    to: &Path,
    checkpoint: &Checkpoint,
    source: Option<&Path>,
    (layout, weights): (&Layout, &[f32]),
    format: Format,
) -> Result<()> {
    let tensor = |place: &Place| -> Result<Tensor> {
        let bytes = format.quantize(&weights[place.range.clone()])?;
        Ok(Tensor::new(&*place.name, format, place.shape.clone(), bytes)?)
    };
    let tensors = layout.places().iter().map(tensor).collect::<Result<Vec<_>>>()?;
    write(to, checkpoint, source, format, tensors)
}

/// Makes a configuration that of a model with a reward head, as transformers reads it:
/// `*ForSequenceClassification` with one label. A configuration without `model_type` keeps its
/// class, by which it is known.
///
/// ```
/// let mut config = serde_json::Map::new();
/// config.insert("model_type".into(), "llama".into());
/// config.insert("architectures".into(), vec!["LlamaForCausalLM"].into());
/// wsd_train::name_reward_head(&mut config);
/// assert_eq!(config["architectures"][0], "LlamaForSequenceClassification");
/// assert_eq!(config["id2label"]["0"], "LABEL_0");
/// ```
pub fn name_reward_head(config: &mut Map<String, Value>) {
    config.insert("id2label".into(), json!({"0": "LABEL_0"}));
    config.insert("label2id".into(), json!({"LABEL_0": 0}));
    let is_known = config.contains_key("model_type");
    for class in
        config.get_mut("architectures").and_then(Value::as_array_mut).into_iter().flatten().filter(|_| is_known)
    {
        let stem = |class: &Value| CAUSAL.iter().find_map(|end| class.as_str()?.strip_suffix(end).map(str::to_owned));
        if let Some(stem) = stem(class) {
            *class = format!("{stem}ForSequenceClassification").into();
        }
    }
}

/// Writes a checkpoint whose weights are F32, F16 or BF16, without converting them. Tokenizer files are
/// copied from `source`, its folder, if it has one.
///
/// # Errors
/// Those of [`save_folder`].
pub fn save_checkpoint(to: &Path, checkpoint: &Checkpoint, source: Option<&Path>) -> Result<()> {
    let format =
        checkpoint.weights.iter().find(|tensor| tensor.shape.len() > 1).map_or(Format::F32, |first| first.format);
    write(to, checkpoint, source, format, checkpoint.weights.iter().cloned().collect())
}

/// Writes tensors of F32, F16 or BF16 to a safetensors file.
///
/// # Errors
/// Those of [`save_folder`].
pub fn save_tensors(to: &Path, tensors: &[Tensor]) -> Result<()> {
    let fault = |error: SafeTensorError| Error::malformed(to, "weights", error);
    let views = tensors.iter().map(|tensor| {
        let (dtype, _) = dtype(tensor.format)?;
        Ok((&*tensor.name, TensorView::new(dtype, tensor.shape.clone(), tensor.bytes()).map_err(fault)?))
    });
    write_weights(to, views.collect::<Result<Vec<_>>>()?, None)
}

/// Writes a safetensors file with the permissions of other new files. The library leaves one that only
/// its owner may read.
fn write_weights(to: &Path, views: Vec<(&str, TensorView<'_>)>, about: Option<HashMap<String, String>>) -> Result<()> {
    fs_err::write(to, [])?;
    let permissions = fs_err::metadata(to)?.permissions();
    safetensors::serialize_to_file(views, about, to).map_err(|error| Error::malformed(to, "weights", error))?;
    Ok(fs_err::set_permissions(to, permissions)?)
}

/// Writes tensors, in the spelling of the architecture, and a configuration that names `format`.
fn write(
    to: &Path,
    checkpoint: &Checkpoint,
    source: Option<&Path>,
    format: Format,
    tensors: Vec<Tensor>,
) -> Result<()> {
    let fault = |error: SafeTensorError| Error::malformed(Path::new("model.safetensors"), "weights", error);
    let tensors = Spelling::of(&arch::blueprint(&checkpoint.config)?).stored(tensors)?;
    let views = tensors.iter().map(|tensor| {
        let (dtype, _) = dtype(tensor.format)?;
        Ok((&*tensor.name, TensorView::new(dtype, tensor.shape.clone(), tensor.bytes()).map_err(fault)?))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let (_, dtype_name) = dtype(format)?;
    write_folder(to, |folder| -> Result<()> {
        let about = [("format".to_owned(), "pt".to_owned())].into();
        write_weights(&folder.join("model.safetensors"), views, Some(about))?;
        let mut config = checkpoint.config.clone();
        config.insert("torch_dtype".into(), dtype_name.into());
        config.shift_remove("dtype");
        // The matrices are not those of a packed format any more.
        config.shift_remove("quantization_config");
        write_json(&folder.join("config.json"), &config)?;
        match source.filter(|source| source.is_dir()) {
            Some(source) => copy_small_files(source, folder),
            None => write_small_files(checkpoint, folder),
        }
    })
}

/// The names of a format in safetensors files and in configurations.
fn dtype(format: Format) -> Result<(Dtype, &'static str)> {
    match format {
        Format::F32 => Ok((Dtype::F32, "float32")),
        Format::F16 => Ok((Dtype::F16, "float16")),
        Format::BF16 => Ok((Dtype::BF16, "bfloat16")),
        _ => Err(Error::setting("dtype", "F32, F16 or BF16", format)),
    }
}

fn copy_small_files(source: &Path, folder: &Path) -> Result<()> {
    for file in COPIED.iter().filter(|file| source.join(file).exists()) {
        fs_err::write(folder.join(file), Input::DESCRIPTION.read(&source.join(file))?)?;
    }
    Ok(())
}

/// Writes the tokenizer files of a checkpoint that comes from another container.
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
    let given = config.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    write_json(
        &folder.join("tokenizer_config.json"),
        &given.map(|(key, value)| (key.clone(), value.clone())).collect(),
    )?;
    let mut generation = checkpoint.generation_config.clone();
    generation.entry("eos_token_id").or_insert_with(|| json!(checkpoint.end_tokens));
    write_json(&folder.join("generation_config.json"), &generation)
}

fn write_json(path: &Path, map: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(map).unwrap_or_default();
    Ok(fs_err::write(path, text + "\n")?)
}
