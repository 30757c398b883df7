//! The tables of a run file that entries of OBJECTIVES, OPTIMIZERS and ADAPTERS declare.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wsd_core::{Setting, Values};

use crate::adapters::AdapterEntry;
use crate::error::{Error, Result};
use crate::objectives::{Objective, Weight};
use crate::optimizers::{OPTIMIZERS, OptimizerEntry};
use crate::trainer::Choice;

/// Names that TRL gives to settings of ours.
const ALIASES: [(&str, &str); 1] = [("rpo_alpha", "sft_weight")];

/// `[[objective]]`: an objective, its weight and its data.
#[derive(Clone, Debug)]
pub struct ObjectiveTable {
    /// The objective.
    pub choice: Choice<Objective>,
    /// The factor on its loss.
    pub weight: Weight,
    /// Its files to learn from; `None` for those of `[data]`.
    pub train: Option<Vec<PathBuf>>,
    /// Its files to evaluate on; `None` for those of `[data]`.
    pub eval: Option<Vec<PathBuf>>,
}

type Table = Map<String, Value>;

/// The settings in tables of objectives' own names, with an entry for every objective.
pub(super) fn named_tables(file: &mut Table, all: &[&'static Objective]) -> Result<Vec<Choice<Objective>>> {
    let read = |entry: &'static Objective| {
        let table = take_table(file, entry.name)?.unwrap_or_default();
        Ok(Choice { entry, values: values(entry.name, table, entry.settings)? })
    };
    all.iter().copied().map(read).collect()
}

/// The `[objective]` or `[[objective]]` tables; without any, the command's objective with the
/// settings of its own table.
pub(super) fn take_objectives(
    file: &mut Table,
    command: &'static Objective,
    named: &[Choice<Objective>],
) -> Result<Vec<ObjectiveTable>> {
    let tables = match file.remove("objective") {
        None => vec![Table::new()],
        Some(Value::Object(table)) => vec![table],
        Some(Value::Array(tables)) => {
            tables.into_iter().map(|table| as_table("objective", table)).collect::<Result<_>>()?
        }
        Some(_) => return Err(not_a_table("objective")),
    };
    let tables: Vec<_> = tables.into_iter().map(|table| objective(table, command, named)).collect::<Result<_>>()?;
    match tables.iter().position(|table| table.choice.entry.name == command.name) {
        Some(0) => Ok(tables),
        _ => Err(Error::setting("name of the first `[[objective]]`", format!("{}, the command", command.name), {
            tables.first().map_or("none", |table| table.choice.entry.name)
        })),
    }
}

fn objective(mut table: Table, command: &'static Objective, named: &[Choice<Objective>]) -> Result<ObjectiveTable> {
    let name: Option<String> = take("objective", &mut table, "name")?;
    let name = name.unwrap_or_else(|| command.name.to_owned());
    let own = named.iter().find(|choice| choice.entry.name == name).ok_or_else(|| {
        let known: Vec<_> = named.iter().map(|choice| choice.entry.name).collect();
        Error::setting("objective.name", known.join(", "), &name)
    })?;
    let (train, eval) = (take("objective", &mut table, "train")?, take("objective", &mut table, "eval")?);
    let start: Option<f64> = take("objective", &mut table, "weight")?;
    let end: Option<f64> = take("objective", &mut table, "final_weight")?;
    let usual = start.map_or(own.entry.weight, |start| own.entry.weight.scaled_to(start));
    let weight = Weight { end: end.unwrap_or(usual.end), ..usual };
    let values = values("objective", table, own.entry.settings)?.or(own.values.clone());
    Ok(ObjectiveTable { choice: Choice { entry: own.entry, values }, weight, train, eval })
}

/// The name and the settings of a table such as `[optimizer]`.
pub(super) fn take_choice(file: &mut Table, section: &'static str) -> Result<Option<(String, Table)>> {
    let Some(mut table) = take_table(file, section)? else { return Ok(None) };
    let name: Option<String> = take(section, &mut table, "name")?;
    let name = name.ok_or_else(|| Error::Form(format!("`[{section}]` needs a `name`")))?;
    Ok(Some((name, table)))
}

/// The optimizer, whose settings may also stand in `[train]`; these are taken from there.
pub(super) fn optimizer(table: Option<(String, Table)>, train: &mut Table) -> Result<Choice<OptimizerEntry>> {
    let (entry, table) = match table {
        None => (OPTIMIZERS[0], Table::new()),
        Some((name, table)) => {
            let known = || OPTIMIZERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
            let entry = OptimizerEntry::find(&name);
            (entry.ok_or_else(|| Error::setting("optimizer.name", known(), &name))?, table)
        }
    };
    let own = values("optimizer", table, entry.settings)?;
    let names = entry.settings.iter().map(|setting| setting.name);
    let shared = names.filter_map(|name| Some((name.to_owned(), train.shift_remove(name)?))).collect();
    Ok(Choice { entry, values: own.or(values("train", shared, entry.settings)?) })
}

/// The adapter, in `[adapter]` or in a table of its own name; true for the former.
pub(super) fn adapter(file: &mut Table, all: &[&'static AdapterEntry]) -> Result<(Choice<AdapterEntry>, bool)> {
    let general = take_choice(file, "adapter")?;
    let is_general = general.is_some();
    let mut chosen = match general {
        None => None,
        Some((name, table)) => {
            let known = || all.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
            let entry = all.iter().find(|entry| entry.name == name);
            Some((*entry.ok_or_else(|| Error::setting("adapter.name", known(), &name))?, table))
        }
    };
    for entry in all {
        if let Some(table) = take_table(file, entry.name)? {
            if let Some((other, _)) = chosen {
                return Err(Error::Form(format!(
                    "a run has one adapter, and this has {} and {}",
                    other.name, entry.name
                )));
            }
            chosen = Some((*entry, table));
        }
    }
    let (entry, table) = chosen.unwrap_or((all[0], Table::new()));
    let section = if is_general { "adapter" } else { entry.name };
    let values = values(section, table, entry.settings)?.or((entry.defaults)());
    Ok((Choice { entry, values }, is_general))
}

/// Reads a table by the declarations of its settings.
fn values(section: &str, table: Table, settings: &[&'static Setting]) -> Result<Values> {
    let mut values = Values::default();
    for (key, json) in table {
        let name = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key.as_str(), |(_, name)| name);
        let Some(setting) = settings.iter().find(|setting| setting.name == name) else {
            let known: Vec<_> = settings.iter().map(|setting| format!("`{}`", setting.name)).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(Error::Form(format!("`[{section}]` has no setting `{key}`\n  hint: known are {known}")));
        };
        let checked = setting.from_json(&json).and_then(|value| values.set(setting, value));
        checked.map_err(|error| match error {
            wsd_core::Error::Setting { name, limit, value } => {
                Error::setting(format!("{section}.{name}"), limit, value)
            }
            other => other.into(),
        })?;
    }
    Ok(values)
}

fn take_table(file: &mut Table, key: &str) -> Result<Option<Table>> {
    file.shift_remove(key).map(|table| as_table(key, table)).transpose()
}

fn as_table(key: &str, value: Value) -> Result<Table> {
    match value {
        Value::Object(table) => Ok(table),
        _ => Err(not_a_table(key)),
    }
}

fn not_a_table(key: &str) -> Error {
    Error::Form(format!("`{key}` must be a table"))
}

/// Takes a key of a table.
fn take<T: DeserializeOwned>(section: &str, table: &mut Table, key: &str) -> Result<Option<T>> {
    let value = table.shift_remove(key).map(serde_json::from_value).transpose();
    value.map_err(|error| Error::Form(format!("`{section}.{key}`: {error}")))
}
