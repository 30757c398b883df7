//! Adapter folders in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`, whose
//! tensors are named `base_model.model.<module>.lora_A.weight` and so on.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use wsd_core::files::write_folder;
use wsd_core::{Input, Values};
use wsd_nn::Format;
use wsd_nn::adapter::{CONFIG_FILE, PREFIX, WEIGHTS_FILE};

use super::{ADAPTERS, Adapter, AdapterEntry};
use crate::error::{Error, Result};
use crate::layout::{Layout, Place};

/// Options of PEFT that change an adapter's meaning and are not implemented; they must be off or empty.
const REFUSED: [&str; 6] =
    ["use_dora", "use_rslora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern"];

/// Writes an adapter as a folder; one without a `peft_type` is no adapter to PEFT, and `false` is
/// returned. `base` is the name of the model it belongs to.
///
/// # Errors
/// Those of the file system.
pub fn save(
    to: &Path,
    (entry, values): (&AdapterEntry, &Values),
    layout: &Layout,
    parameters: &[f32],
    base: &str,
) -> Result<bool> {
    let Some(peft_type) = entry.peft_type else { return Ok(false) };
    let fault = |error: safetensors::SafeTensorError| Error::malformed(&to.join(WEIGHTS_FILE), "weights", error);
    let view = |place: &Place| {
        let bytes = bytemuck::cast_slice(&parameters[place.range.clone()]);
        let view = TensorView::new(Dtype::F32, place.shape.clone(), bytes).map_err(fault)?;
        Ok((format!("{PREFIX}{}", place.name), view))
    };
    let views = layout.places().iter().map(view).collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).map_err(fault)?;
    let mut config = Map::new();
    config.insert("peft_type".into(), peft_type.into());
    config.insert("task_type".into(), "CAUSAL_LM".into());
    config.insert("base_model_name_or_path".into(), base.into());
    for setting in entry.settings {
        config.insert(setting.name.into(), json!(values.value(setting)));
    }
    config.insert("bias".into(), "none".into());
    config.insert("inference_mode".into(), true.into());
    let config = serde_json::to_string_pretty(&config).unwrap_or_default() + "\n";
    write_folder(to, |folder| {
        fs_err::write(folder.join(CONFIG_FILE), config)?;
        fs_err::write(folder.join(WEIGHTS_FILE), bytes)
    })?;
    Ok(true)
}

/// Reads an adapter folder for a model of these weights; returns the adapter and its parameters, of
/// which [`Adapter::merge`] makes the tuned model's weights.
///
/// # Errors
/// A folder that lacks a file or a tensor, has one that does not fit the model, or uses an option
/// that is not implemented.
pub fn load(folder: &Path, layout: &Layout, weights: Vec<f32>) -> Result<(Box<dyn Adapter>, Vec<f32>)> {
    let path = folder.join(CONFIG_FILE);
    let config: Map<String, Value> = serde_json::from_slice(&Input::DESCRIPTION.read(&path)?)
        .map_err(|error| Error::malformed(&path, "adapter", error))?;
    let (entry, values) = parse(&path, &config)?;
    let adapter = (entry.make)(layout, weights, &values)?;
    let path = folder.join(WEIGHTS_FILE);
    let bytes = Input::WEIGHTS.read(&path)?;
    let fault = |error: &dyn std::fmt::Display| Error::malformed(&path, "weights", error);
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| fault(&error))?;
    let mut parameters = vec![0.0; adapter.layout().len()];
    for place in adapter.layout().places() {
        let name = format!("{PREFIX}{}", place.name);
        let tensor = tensors.tensor(&name).map_err(|error| fault(&error))?;
        let format = match tensor.dtype() {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::BF16,
            other => return Err(fault(&format!("`{name}` must be of type F32, F16 or BF16, got {other:?}"))),
        };
        if tensor.shape() != place.shape {
            return Err(fault(&format!("`{name}` must have shape {:?}, got {:?}", place.shape, tensor.shape())));
        }
        format.dequantize(tensor.data(), &mut parameters[place.range.clone()]);
    }
    let known = |name: &str| name.strip_prefix(PREFIX).is_some_and(|name| adapter.layout().get(name).is_some());
    match tensors.names().into_iter().find(|name| !known(name)) {
        Some(name) => Err(fault(&format!("`{name}` changes no matrix of this model"))),
        None => Ok((adapter, parameters)),
    }
}

/// The entry and the settings that a configuration describes.
fn parse(path: &Path, config: &Map<String, Value>) -> Result<(&'static AdapterEntry, Values)> {
    let fault = |reason: String| Error::malformed(path, "adapter", reason);
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    let entry = ADAPTERS.iter().find(|entry| entry.peft_type == Some(kind)).ok_or_else(|| {
        let known: Vec<_> = ADAPTERS.iter().filter_map(|entry| entry.peft_type).collect();
        fault(format!("`peft_type` must be {}, got {kind}", known.join(" or ")))
    })?;
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if let Some(key) = REFUSED.iter().find(|key| config.get(**key).is_some_and(|value| !is_empty(value))) {
        return Err(fault(format!("`{key}` is not supported")));
    }
    if config.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
        return Err(fault("`bias` is not supported".into()));
    }
    let mut values = Values::default();
    for setting in entry.settings.iter().filter(|setting| config.contains_key(setting.name)) {
        values.set(setting, setting.from_json(&config[setting.name])?)?;
    }
    Ok((entry, values))
}
