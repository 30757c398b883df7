//! Adapter folders in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`, whose
//! tensors are named `base_model.model.<module>.lora_A.weight` and so on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use wsd_core::files::write_folder;
use wsd_core::{Input, Values};
use wsd_nn::adapter::{CONFIG_FILE, PREFIX, WEIGHTS_FILE, own_name, refuse_changed_base, respelled};
use wsd_nn::{Format, Tensor};

use super::lora::{LORA_ALPHA, R};
use super::{ADAPTERS, Adapter, AdapterEntry, targets};
use crate::error::{Error, Result};
use crate::layout::{Layout, Place};

/// Options of PEFT that choose modules in ways that [`list_modules`] resolves.
const CHOICES: [&str; 2] = ["exclude_modules", "layers_pattern"];

/// Options of PEFT that change an adapter's meaning and are not implemented; they must be off or empty.
const REFUSED: [&str; 7] =
    ["modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "coft", "block_share", "lora_bias"];

/// Writes an adapter as a folder; one without marks of PEFT is no adapter to PEFT, and `false` is
/// returned. The layouts are those of the model and of the adapter; modules get the names and forms of
/// the model's files. `base` is the name of the model it belongs to.
///
/// # Errors
/// Those of the file system.
pub fn save(
    to: &Path,
    (entry, values): (&AdapterEntry, &Values),
    (model, layout): (&Layout, &Layout),
    parameters: &[f32],
    base: &str,
) -> Result<bool> {
    let Some(peft) = entry.peft else { return Ok(false) };
    let fault = |error: safetensors::SafeTensorError| Error::malformed(&to.join(WEIGHTS_FILE), "weights", error);
    let tensor = |place: &Place| -> Result<Tensor> {
        let bytes = Format::F32.quantize(&parameters[place.range.clone()])?;
        let tensor = Tensor::new(&*place.name, Format::F32, place.shape.clone(), bytes)?;
        Ok(model.spelling.stored_tensor(tensor)?)
    };
    let tensors = layout.places().iter().map(tensor).collect::<Result<Vec<_>>>()?;
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), tensor.bytes()).map_err(fault)?;
        Ok((format!("{PREFIX}{}", tensor.name), view))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, Some([("format".to_owned(), "pt".to_owned())].into())).map_err(fault)?;
    let mut config = Map::new();
    config.insert("peft_type".into(), peft.kind.into());
    config.insert("task_type".into(), "CAUSAL_LM".into());
    config.insert("base_model_name_or_path".into(), base.into());
    config.extend(peft.flags.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
    if model.spelling.is_transposed() {
        config.insert("fan_in_fan_out".into(), true.into());
    }
    let changed: Vec<_> = modules(layout).iter().map(|module| model.spelling.stored_name(module)).collect();
    for setting in entry.settings {
        let value = values.value(setting).map(|value| targets::to_peft(setting, value, &changed));
        config.extend(value.map(|value| (setting.name.to_owned(), value)));
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

/// The modules that an adapter's tensors change, in order.
fn modules(layout: &Layout) -> Vec<String> {
    let mut modules: Vec<_> = layout.places().iter().filter_map(|place| module(&place.name)).collect();
    modules.dedup();
    modules
}

/// The module that an adapter's tensor changes.
fn module(name: &str) -> Option<String> {
    let (module, _) = name.split_once(".lora_").or(name.split_once(".oft_"))?;
    Some(module.to_owned())
}

/// Reads an adapter folder for a model of these weights; returns the adapter and its parameters, of
/// which [`Adapter::merge`] makes the tuned model's weights.
///
/// # Errors
/// A folder that lacks a file or a tensor, has one that does not fit the model, or uses an option
/// that is not implemented.
pub fn load(folder: &Path, layout: &Layout, weights: Vec<f32>) -> Result<(Box<dyn Adapter>, Vec<f32>)> {
    let path = folder.join(CONFIG_FILE);
    let mut config: Map<String, Value> = wsd_nn::read_json(&path)?;
    let weights_path = folder.join(WEIGHTS_FILE);
    let bytes = Input::WEIGHTS.read(&weights_path)?;
    let fault = |error: &dyn std::fmt::Display| Error::malformed(&weights_path, "weights", error);
    let stored = SafeTensors::deserialize(&bytes).map_err(|error| fault(&error))?;
    list_modules(&mut config, &stored, layout);
    let (entry, values) = parse(&path, &config)?;
    let adapter = (entry.make)(layout, weights, &values)?;
    let mut parameters = vec![0.0; adapter.layout().len()];
    let mut missing: BTreeMap<_, _> =
        adapter.layout().places().iter().map(|place| (format!("{PREFIX}{}", place.name), place)).collect();
    let mut views = stored.tensors();
    views.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (stored_name, view) in views {
        let format = match view.dtype() {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::BF16,
            other => return Err(fault(&format!("`{stored_name}` must be of type F32, F16 or BF16, got {other:?}"))),
        };
        let tensor = Tensor::new(&*stored_name, format, view.shape().to_vec(), view.data().to_vec())?;
        let tensor = respelled(&layout.spelling, tensor)?;
        let place = missing.remove(&tensor.name);
        let place = place.ok_or_else(|| fault(&format!("`{stored_name}` changes no matrix of this model")))?;
        if tensor.shape != place.shape {
            let (expected, found) = (&place.shape, &tensor.shape);
            return Err(fault(&format!("`{stored_name}` must have shape {expected:?}, got {found:?}")));
        }
        parameters[place.range.clone()].copy_from_slice(&tensor.to_f32());
    }
    if let Some(name) = missing.into_keys().next() {
        return Err(fault(&format!("`{name}` is missing")));
    }
    Ok((adapter, parameters))
}

/// Replaces a choice of modules by regular expressions or with exceptions by the list of those that the
/// adapter's tensors change, by the model's names.
fn list_modules(config: &mut Map<String, Value>, stored: &SafeTensors<'_>, layout: &Layout) {
    let is_list = config.get("target_modules").is_none_or(Value::is_array);
    if is_list && CHOICES.iter().all(|key| config.get(*key).is_none_or(is_empty)) {
        return;
    }
    let own = |name: &str| module(&own_name(&layout.spelling, name.strip_prefix(PREFIX)?));
    let changed: BTreeSet<_> = stored.names().into_iter().filter_map(own).collect();
    config.insert("target_modules".into(), json!(changed));
    config.retain(|key, _| !CHOICES.contains(&key.as_str()) && key != "layers_to_transform");
}

/// Tells whether an option of PEFT is off.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The entry and the settings that a configuration describes.
fn parse(path: &Path, config: &Map<String, Value>) -> Result<(&'static AdapterEntry, Values)> {
    let fault = |reason: String| Error::malformed(path, "adapter", reason);
    refuse_changed_base(&path.display().to_string(), config)?;
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    let of_kind = || ADAPTERS.iter().filter(|entry| entry.peft.is_some_and(|peft| peft.kind == kind));
    let flag = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    let fits = |entry: &&&'static AdapterEntry| {
        entry.peft.into_iter().flat_map(|peft| peft.flags).all(|(key, value)| flag(key) == *value)
    };
    let entry = of_kind().find(fits).ok_or_else(|| {
        match of_kind()
            .flat_map(|entry| entry.peft)
            .flat_map(|peft| peft.flags)
            .find(|(key, value)| flag(key) != *value)
        {
            Some((key, value)) => fault(format!("`{key}` must be {value}, got {}", flag(key))),
            None => {
                let mut known: Vec<_> = ADAPTERS.iter().filter_map(|entry| Some(entry.peft?.kind)).collect();
                known.dedup();
                fault(format!("`peft_type` must be {}, got {kind}", known.join(" or ")))
            }
        }
    })?;
    if let Some(key) = REFUSED.iter().find(|key| config.get(**key).is_some_and(|value| !is_empty(value))) {
        return Err(fault(format!("`{key}` is not supported")));
    }
    if config.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
        return Err(fault("`bias` is not supported".into()));
    }
    let mut values = Values::default();
    for setting in entry.settings {
        if let Some(json) = config.get(setting.name).filter(|json| !json.is_null()) {
            values.set(setting, targets::from_peft(setting, json)?)?;
        }
    }
    if flag("use_rslora") {
        // The change is scaled by alpha / sqrt(r).
        let root = (values.get::<usize>(&R) as f64).sqrt();
        values.set(&LORA_ALPHA, (values.get::<f64>(&LORA_ALPHA) * root).into())?;
    }
    Ok((entry, values))
}
