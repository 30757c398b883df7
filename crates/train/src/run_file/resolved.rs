//! A run file with every setting written out, as it is kept beside the results.

use serde_json::{Map, Value, json};
use wsd_core::Setting;
use wsd_nn::Device;

use super::{ObjectiveTable, RunFile, settings_json, text};
use crate::error::Result;
use crate::objectives::Objective;
use crate::trainer::Choice;

impl RunFile {
    /// All settings as the text of a run file.
    ///
    /// # Errors
    /// A value that TOML cannot express.
    pub fn resolved(&self) -> Result<String> {
        text(&self.settings())
    }

    /// All settings.
    pub(crate) fn settings(&self) -> Map<String, Value> {
        let mut file = Map::new();
        file.insert("output".into(), json!(self.output));
        file.insert("seed".into(), json!(self.seed));
        file.insert("threads".into(), json!(self.threads));
        if self.device != Device::Cpu {
            file.insert("device".into(), json!(self.device.to_string()));
        }
        file.insert("model".into(), json!(self.model));
        file.insert("data".into(), json!(self.data));
        file.insert("train".into(), Value::Object(self.train_table()));
        if self.general.objective {
            file.insert("objective".into(), self.objectives.iter().map(objective_table).collect());
        } else {
            for choice in self.named.iter().filter(|choice| self.is_told(choice)) {
                file.insert(choice.entry.name.into(), settings_json(choice.entry.settings, &choice.values).into());
            }
        }
        if self.general.optimizer {
            let (entry, values) = (self.optimizer.entry, &self.optimizer.values);
            file.insert("optimizer".into(), with_name(entry.name, settings_json(entry.settings, values)));
        }
        let (entry, values) = (self.adapter.entry, &self.adapter.values);
        let settings = settings_json(entry.settings, values);
        if self.general.adapter {
            file.insert("adapter".into(), with_name(entry.name, settings));
        } else if !settings.is_empty() {
            file.insert(entry.name.into(), settings.into());
        }
        file
    }

    /// Tells whether the table of an objective's own name is written: for objectives of the run, and
    /// for others where a value is not the default.
    fn is_told(&self, choice: &Choice<Objective>) -> bool {
        let Choice { entry, values } = choice;
        let is_of_run = self.objectives.iter().any(|table| table.choice.entry.name == entry.name);
        let is_changed = |setting: &&'static Setting| values.value(setting) != setting.default.as_ref();
        !entry.settings.is_empty() && (is_of_run || entry.settings.iter().any(is_changed))
    }

    /// `[train]`, with the optimizer's settings after the schedule's unless they have a table of
    /// their own.
    fn train_table(&self) -> Map<String, Value> {
        let steps = match json!(self.steps) {
            Value::Object(steps) => steps,
            _ => Map::new(),
        };
        let mut table = Map::new();
        for (key, value) in steps {
            let is_last_of_schedule = key == "warmup_ratio";
            table.insert(key, value);
            if is_last_of_schedule && !self.general.optimizer {
                table.extend(settings_json(self.optimizer.entry.settings, &self.optimizer.values));
            }
        }
        table
    }
}

fn objective_table(table: &ObjectiveTable) -> Value {
    let entry = table.choice.entry;
    let mut settings = Map::new();
    settings.insert("weight".into(), json!(table.weight.start));
    if table.weight.end != entry.weight.scaled_to(table.weight.start).end {
        settings.insert("final_weight".into(), json!(table.weight.end));
    }
    settings.extend(table.train.as_ref().map(|files| ("train".to_owned(), json!(files))));
    settings.extend(table.eval.as_ref().map(|files| ("eval".to_owned(), json!(files))));
    settings.extend(settings_json(entry.settings, &table.choice.values));
    with_name(entry.name, settings)
}

fn with_name(name: &str, settings: Map<String, Value>) -> Value {
    let mut table = Map::new();
    table.insert("name".into(), name.into());
    table.extend(settings);
    table.into()
}
