//! The choice of tensors that an adapter changes.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wsd_core::{Setting, Values};

use crate::error::{Error, Result};
use crate::layout::{Layout, Place};

pub(super) static TARGET_MODULES: Setting = Setting::texts(
    "target_modules",
    "Modules to change, by the last parts of their names; `*` stands for any characters",
);
pub(super) static LAYERS: Setting =
    Setting::text("layers_to_transform", "Layers to change, from 0, such as 0,2,5-7", "LAYERS")
        .with_default_about("all");

/// All matrices of a decoder layer.
pub(super) const LINEAR: [&str; 9] =
    ["q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj"];

/// The values of [`TARGET_MODULES`] for these names.
pub(super) fn modules<const N: usize>(names: [&str; N]) -> Values {
    Values::default().with(&TARGET_MODULES, names.map(str::to_owned).to_vec()).unwrap_or_default()
}

/// The matrices within layers that `values` name.
///
/// # Errors
/// [`Error::Setting`] for names that no matrix has, with those that there are; `section` is the
/// table in a run file.
pub(super) fn matrices(section: &str, layout: &Layout, values: &Values) -> Result<Vec<Place>> {
    choose(section, layout, values, Place::is_matrix)
}

/// The tensors among `candidates` that `values` name.
///
/// # Errors
/// Those of [`matrices`].
pub(super) fn choose(
    section: &str,
    layout: &Layout,
    values: &Values,
    candidates: fn(&Place) -> bool,
) -> Result<Vec<Place>> {
    let patterns: Vec<String> = values.get(&TARGET_MODULES);
    let layers = values.get::<Option<String>>(&LAYERS).map(|text| layers(section, &text)).transpose()?;
    let is_in_layer = |place: &Place| {
        layers.as_ref().is_none_or(|layers| layer(&place.name).is_some_and(|layer| layers.contains(&layer)))
    };
    let candidates = layout.places().iter().filter(|place| candidates(place));
    let is_named = |place: &Place| {
        let own = module(&place.name);
        let stored = layout.spelling.stored_name(own);
        patterns.iter().any(|pattern| matches(pattern, own) || matches(pattern, &stored))
    };
    let chosen: Vec<_> = candidates.clone().filter(|place| is_named(place) && is_in_layer(place)).cloned().collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    if let (Some(layers), true) = (&layers, candidates.clone().any(is_named)) {
        let last = layout.places().iter().filter_map(|place| layer(&place.name)).max().unwrap_or(0);
        let found = layers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        return Err(Error::setting(format!("{section}.{}", LAYERS.name), format!("layers from 0 to {last}"), found));
    }
    let known: BTreeSet<_> = candidates.filter_map(|place| module(&place.name).rsplit('.').next()).collect();
    let limit = format!("some of {}", known.into_iter().collect::<Vec<_>>().join(", "));
    Err(Error::setting(format!("{section}.{}", TARGET_MODULES.name), limit, patterns.join(", ")))
}

/// The name of the module that a tensor belongs to.
pub(super) fn module(name: &str) -> &str {
    name.strip_suffix(".weight").or(name.strip_suffix(".bias")).unwrap_or(name)
}

/// The index of the layer that a tensor belongs to.
pub(super) fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

/// Tells whether a pattern is a module's name, or the last parts of it.
fn matches(pattern: &str, module: &str) -> bool {
    let ends = module.match_indices('.').map(|(at, _)| &module[at + 1..]);
    std::iter::once(module).chain(ends).any(|name| fits(pattern, name))
}

/// Tells whether a text is a pattern with `*` for any characters.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| fits(after, &rest[at..]))
        }),
    }
}

/// Reads a list such as `0,2,5-7`.
fn layers(section: &str, text: &str) -> Result<BTreeSet<usize>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    let limit = "a list of layers such as 0,2,5-7";
    let ranges = ranges.filter(|ranges| ranges.iter().all(|range| !range.is_empty() && *range.end() < 1 << 16));
    let ranges = ranges.ok_or_else(|| Error::setting(format!("{section}.{}", LAYERS.name), limit, text))?;
    Ok(ranges.into_iter().flatten().collect())
}

/// The value of a setting in PEFT's configuration, for an adapter that changes the modules `changed`,
/// named as in the model's files. Layers are a list of numbers. PEFT knows no `*` and no names of
/// ours: if one of the names has a `*` or is no module's, all are replaced by those of the modules;
/// names that change nothing are left out.
pub(super) fn to_peft(setting: &Setting, value: &wsd_core::Value, changed: &[String]) -> Value {
    let json = json!(value);
    if setting.name == LAYERS.name {
        let list = json.as_str().and_then(|text| layers("adapter", text).ok());
        return json!(list.map(|layers| layers.into_iter().collect::<Vec<_>>()));
    }
    let Some(names) = json.as_array().filter(|_| setting.name == TARGET_MODULES.name) else { return json };
    let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
    let is_plain = |name: &&&str| !name.contains('*') && changed.iter().any(|module| matches(name, module));
    let plain: Vec<_> = names.iter().filter(is_plain).collect();
    let is_complete = changed.iter().all(|module| plain.iter().any(|name| matches(name, module)));
    if is_complete { json!(plain) } else { json!(changed) }
}

/// The value of a setting from PEFT's configuration.
pub(super) fn from_peft(setting: &'static Setting, json: &Value) -> wsd_core::Result<wsd_core::Value> {
    if setting.name == LAYERS.name {
        let numbers = match json {
            Value::Array(list) => list.iter().filter_map(Value::as_u64).map(|layer| layer.to_string()).collect(),
            other => vec![other.to_string()],
        };
        return setting.from_json(&json!(numbers));
    }
    setting.from_json(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_by_their_last_parts() {
        let module = "model.layers.11.mlp.up_proj";
        for (pattern, expected) in [
            ("up_proj", true),
            ("mlp.up_proj", true),
            ("*.mlp.*", true),
            ("layers.11.*", true),
            ("layers.1.*", false),
            ("proj", false),
            ("*_proj", true),
            ("model.layers.11.mlp.up_proj", true),
            ("mlp", false),
        ] {
            assert_eq!(matches(pattern, module), expected, "{pattern}");
        }
    }

    #[test]
    fn layers_are_lists_of_ranges() {
        assert_eq!(layers("lora", "0,2, 5-7").unwrap().into_iter().collect::<Vec<_>>(), [0, 2, 5, 6, 7]);
        let error = layers("lora", "3-1").unwrap_err().to_string();
        assert_eq!(error, "`lora.layers_to_transform` must be a list of layers such as 0,2,5-7, got 3-1");
        let value = LAYERS.from_json(&json!("1-2")).unwrap();
        assert_eq!(to_peft(&LAYERS, &value, &[]), json!([1, 2]));
        assert_eq!(from_peft(&LAYERS, &json!([1, 2])).unwrap().to_string(), "1,2");
        assert_eq!(from_peft(&LAYERS, &json!(3)).unwrap().to_string(), "3");
    }
}
