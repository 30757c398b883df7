//! Keyword arguments, which are the settings of the command line by their own names.

use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};
use serde_json::Value as Json;
use wsd::config::{Partial, SECTIONS, Section};
use wsd_core::{Kind, SAMPLING, Seat, Setting, TERMS};

use crate::error::raise;

/// A keyword argument and the setting it sets.
pub(crate) type Keyword = (&'static str, &'static Setting);

/// The settings of answers: terms, sampling, and the text around a prompt.
pub(crate) fn of_answers() -> Vec<Keyword> {
    named(TERMS.iter().chain(SAMPLING).copied().chain(section("prompt")))
}

/// The settings of the text around a prompt.
pub(crate) fn of_prompts() -> Vec<Keyword> {
    named(section("prompt"))
}

/// The settings of models by the names of the command line, without the models themselves.
pub(crate) fn of_models() -> Vec<Keyword> {
    let is_name = |setting: &Setting| setting.name == "model" || Seat::find(setting.name).is_some();
    named(section("models").chain(section("remote")).filter(|setting| !is_name(setting)))
}

/// The settings of one model in `seat`. A setting with the seat's prefix is named without it and
/// takes the place of the general one; those of other seats are left out.
pub(crate) fn of_model(seat: Seat) -> Vec<Keyword> {
    let settings = of_models();
    let own = settings.iter().filter_map(|(name, setting)| Some((without_prefix(name, seat)?, *setting)));
    let is_general = |name: &'static str| Seat::all().all(|seat| without_prefix(name, seat).is_none());
    let general = settings.iter().copied().filter(|(name, _)| is_general(name));
    own.chain(general).collect()
}

fn without_prefix(name: &'static str, seat: Seat) -> Option<&'static str> {
    name.strip_prefix(seat.name())?.strip_prefix('_')
}

/// The settings by their own names.
pub(crate) fn named(settings: impl IntoIterator<Item = &'static Setting>) -> Vec<Keyword> {
    settings.into_iter().map(|setting| (setting.name, setting)).collect()
}

fn section(name: &'static str) -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().filter(move |section| section.name == name).flat_map(Section::settings)
}

/// The tested pair of models, and the choice to read sampling from a model's files.
pub(crate) fn of_pairs() -> Vec<Keyword> {
    named(["pair", "generation_config"].into_iter().filter_map(find))
}

/// Names models: sets the settings of the command line that fill the seats.
pub(crate) fn name_models(settings: &mut Partial, models: &[(Seat, String)]) -> PyResult<()> {
    let mut others = Vec::new();
    for (seat, name) in models {
        match find(seat.name()) {
            Some(setting) => settings.set_default(setting, name.clone()).map_err(raise)?,
            None => others.push(format!("{seat}={name}")),
        }
    }
    match find("model").filter(|_| !others.is_empty()) {
        Some(setting) => settings.set_default(setting, others).map_err(raise),
        None => Ok(()),
    }
}

fn find(name: &str) -> Option<&'static Setting> {
    section("models").find(|setting| setting.name == name)
}

/// Reads keyword arguments. `None` stands for the default.
///
/// # Errors
/// `TypeError` for a keyword that is not among `known`, or a value that no setting could have;
/// `ValueError` for a value outside its setting's limits.
pub(crate) fn read(known: &[Keyword], keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Partial> {
    let mut settings = Partial::default();
    for (key, value) in keywords.into_iter().flatten() {
        let key: String = key.extract()?;
        let setting = known.iter().find(|(name, _)| *name == key).map(|(_, setting)| *setting);
        let setting = setting.ok_or_else(|| unexpected(&key, known))?;
        if !value.is_none() {
            let value = setting.from_json(&json(setting, &value)?).map_err(raise)?;
            settings.set_default(setting, value).map_err(raise)?;
        }
    }
    Ok(settings)
}

fn unexpected(key: &str, known: &[Keyword]) -> PyErr {
    let known = known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    PyTypeError::new_err(format!("unexpected keyword argument `{key}`\n  hint: known are {known}"))
}

/// Converts a value of Python. One text will do where a list of texts is allowed.
fn json(setting: &Setting, value: &Bound<'_, PyAny>) -> PyResult<Json> {
    let text = value.extract::<String>().ok().or_else(|| Some(value.extract::<PathBuf>().ok()?.display().to_string()));
    if let Some(text) = text {
        let is_list = matches!(setting.kind, Kind::Texts);
        return Ok(if is_list { vec![text].into() } else { text.into() });
    }
    if matches!(setting.kind, Kind::Object) {
        let text: String = value.py().import("json")?.call_method1("dumps", (value,))?.extract()?;
        return Ok(text.into());
    }
    if value.is_instance_of::<PyBool>() {
        return Ok(value.extract::<bool>()?.into());
    }
    let number = value.extract::<u64>().map(Json::from).or_else(|_| value.extract::<i64>().map(Json::from));
    let number = number.or_else(|_| value.extract::<f64>().map(Json::from));
    number.or_else(|_| value.extract::<Vec<String>>().map(Json::from)).map_err(|_| {
        let kind = value.get_type().name().map_or_else(|_| "an object".into(), |name| name.to_string());
        PyTypeError::new_err(format!("`{}` must be {}, got {kind}", setting.name, setting.limit()))
    })
}
