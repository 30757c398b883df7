//! Run files: the description of a training run in TOML.
//!
//! Settings of an objective, an optimizer or an adapter are read by the declarations of its entry,
//! so a new entry needs no change here. They stand in `[[objective]]`, `[optimizer]` and
//! `[adapter]` tables; in a table of the entry's own name (`[dpo]`, `[lora]`); those of the
//! optimizer also in `[train]`, as in transformers.

mod check;
mod resolved;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wsd_core::Values;
use wsd_nn::gpu::Arithmetic;
use wsd_nn::{Device, Format};

use crate::adapters::{ADAPTERS, AdapterEntry};
use crate::data::{ExampleReader, Refusal};
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::objectives::{OBJECTIVES, Objective};
use crate::optimizers::OptimizerEntry;
use crate::steps::Steps;
use crate::trainer::{Choice, Term};
pub use tables::ObjectiveTable;
use tables::{named_tables, optimizer, take_choice, take_objectives};

/// A training run; settings that the file does not give have their defaults.
#[derive(Clone, Debug)]
pub struct RunFile {
    /// The run's folder.
    pub output: PathBuf,
    /// The seed of everything random, such as the order of examples.
    pub seed: u64,
    /// The number of threads; all cores by default. The last bits of results depend on it.
    pub threads: usize,
    /// The device that computes losses and gradients; the CPU by default. The last bits of results
    /// depend on it.
    pub device: Device,
    /// The model to train.
    pub model: ModelTable,
    /// The data of objectives that bring none, and how rows are read.
    pub data: DataTable,
    /// The settings of the loop.
    pub steps: Steps,
    /// The objectives, at least one.
    pub objectives: Vec<ObjectiveTable>,
    /// The optimizer.
    pub optimizer: Choice<OptimizerEntry>,
    /// The adapter.
    pub adapter: Choice<AdapterEntry>,
    /// The tables that are written in the general form.
    general: General,
    /// The settings in tables of objectives' own names, for all objectives.
    named: Vec<Choice<Objective>>,
}

/// The tables of a file that have the general form.
#[derive(Clone, Copy, Debug, Default)]
struct General {
    objective: bool,
    optimizer: bool,
    adapter: bool,
}

/// `[model]`: the model to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTable {
    /// A folder, a GGUF file or a hub name, to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A folder, a GGUF file or a hub name of the model that `distill` and `starft` stay close to, in
    /// place of `from`; it has the same vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// A folder with a tokenizer, for a model of random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// The number format of the trained model's weights.
    #[serde(default = "default_dtype")]
    pub dtype: String,
    /// The chat template: `own`, `plain`, or a file.
    #[serde(default = "default_template")]
    pub template: String,
    /// The configuration of a model of random weights, as in a `config.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Map<String, Value>>,
}

/// `[data]`: files of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTable {
    /// Files to learn from.
    #[serde(default)]
    pub train: Vec<PathBuf>,
    /// Files to evaluate on.
    #[serde(default)]
    pub eval: Vec<PathBuf>,
    /// The maximum length of a sequence in tokens; longer ones are cut.
    #[serde(default = "default_max_length")]
    pub max_length: usize,
    /// Concatenate the texts of a pretraining run and cut them into sequences of `max_length`.
    #[serde(default)]
    pub packing: bool,
    /// Go on without rows that cannot be learned from.
    #[serde(default)]
    pub skip_refused: bool,
}

fn default_dtype() -> String {
    "bf16".into()
}

/// The CPU, so that a file means the same bits on every machine.
fn default_device() -> Device {
    Device::Cpu
}

fn default_template() -> String {
    "own".into()
}

fn default_max_length() -> usize {
    1024
}

/// The keys of a run file that have one type each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixed {
    output: PathBuf,
    #[serde(default)]
    seed: u64,
    threads: Option<usize>,
    #[serde(default = "default_device")]
    device: Device,
    model: ModelTable,
    data: DataTable,
    #[serde(default)]
    train: Map<String, Value>,
}

impl RunFile {
    /// Reads a run file for the command of this objective.
    ///
    /// # Errors
    /// [`Error::RunFile`] with the reason; those of the file system.
    pub fn read(path: &Path, objective: &'static Objective) -> Result<Self> {
        read(path, |text| Self::parse(text, objective))
    }

    /// Parses a run file for the command of this objective.
    ///
    /// ```
    /// use wsd_train::{Objective, RunFile};
    /// let run = RunFile::parse(
    ///     r#"
    ///     output = "runs/careful"
    ///     model = { from = "pilot" }
    ///     data = { train = ["answers.jsonl"] }
    ///     train = { learning_rate = 2e-5, adam_beta2 = 0.95 }
    ///     lora = { r = 8 }
    ///
    ///     [[objective]]
    ///     name = "sft"
    ///
    ///     [[objective]]
    ///     name = "distill"
    ///     weight = 0.5
    ///     train = ["prompts-with-cues.jsonl"]
    ///     "#,
    ///     Objective::find("sft").unwrap(),
    /// )?;
    /// assert_eq!(run.objectives.len(), 2);
    /// assert_eq!((run.optimizer.entry.name, run.adapter.entry.name), ("adamw", "lora"));
    /// # Ok::<(), wsd_train::Error>(())
    /// ```
    ///
    /// # Errors
    /// A key that no entry declares; a value outside its limits.
    pub fn parse(text: &str, objective: &'static Objective) -> Result<Self> {
        Self::from_table(table(text)?, objective)
    }

    /// Reads the tables of a run file.
    pub(crate) fn from_table(mut file: Map<String, Value>, objective: &'static Objective) -> Result<Self> {
        let named = named_tables(&mut file, OBJECTIVES)?;
        let has_objectives = file.contains_key("objective");
        let objectives = take_objectives(&mut file, objective, &named)?;
        let optimizer_table = take_choice(&mut file, "optimizer")?;
        let (adapter, has_adapter) = tables::adapter(&mut file, ADAPTERS)?;
        let general = General { objective: has_objectives, optimizer: optimizer_table.is_some(), adapter: has_adapter };
        let mut fixed: Fixed =
            serde_json::from_value(Value::Object(file)).map_err(|error| Error::Form(error.to_string()))?;
        let optimizer = optimizer(optimizer_table, &mut fixed.train)?;
        let steps = serde_json::from_value(Value::Object(fixed.train))
            .map_err(|error| Error::Form(format!("`[train]`: {error}")))?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let run = Self {
            output: fixed.output,
            seed: fixed.seed,
            threads: fixed.threads.unwrap_or_else(cores),
            device: fixed.device,
            model: fixed.model,
            data: fixed.data,
            steps,
            objectives,
            optimizer,
            adapter,
            general,
            named,
        };
        run.check()?;
        Ok(run)
    }

    /// The number format of the trained model's weights.
    ///
    /// # Errors
    /// [`Error::Setting`] for another word.
    pub fn format(&self) -> Result<Format> {
        match self.model.dtype.as_str() {
            "bf16" | "bfloat16" => Ok(Format::BF16),
            "f32" | "float32" => Ok(Format::F32),
            "f16" | "float16" => Ok(Format::F16),
            other => Err(Error::setting("model.dtype", "bf16, f32 or f16", other)),
        }
    }

    /// Opens the GPU that [`RunFile::device`] names; `None` for the CPU. Sets `auto` to what it has chosen:
    /// the first GPU, if there is one.
    ///
    /// # Errors
    /// [`wsd_nn::Error::DeviceMissing`] with the reason; [`Error::Setting`] for another device.
    pub fn open_gpu(&mut self) -> Result<Option<Arithmetic>> {
        let precision = self.steps.precision();
        let (gpu, device) = match &self.device {
            Device::Cpu => (None, Device::Cpu),
            Device::Cuda(numbers) if numbers.len() < 2 => {
                let number = numbers.first().copied().unwrap_or_default();
                (Some(Arithmetic::open(number, precision)?), Device::Cuda(vec![number]))
            }
            Device::Auto => match Arithmetic::open(0, precision).ok() {
                None => (None, Device::Cpu),
                gpu => (gpu, Device::Cuda(vec![0])),
            },
            other => return Err(Error::setting("device", "cpu, cuda, cuda:N or auto", other)),
        };
        self.device = device;
        Ok(gpu)
    }

    /// Reads the data of all objectives; rows that cannot be examples are added to `refused`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read_terms(&self, encoder: &Encoder, refused: &mut Vec<Refusal>) -> Result<Vec<Term>> {
        let packing = self.data.packing.then_some(self.data.max_length);
        let mut read = |table: &ObjectiveTable| {
            let reader = ExampleReader { objective: table.choice.entry, encoder, packing };
            let mut term = Term::new(&table.choice, reader.read(self.train_files(table), refused)?);
            term.evaluation = reader.read(table.eval.as_ref().unwrap_or(&self.data.eval), refused)?;
            term.weight = table.weight;
            Ok(term)
        };
        self.objectives.iter().map(&mut read).collect()
    }

    fn train_files<'a>(&'a self, table: &'a ObjectiveTable) -> &'a [PathBuf] {
        table.train.as_ref().unwrap_or(&self.data.train)
    }

    /// Compares this file with a text of a run file. Returns the settings that differ, as sentences
    /// with both values; none if the two describe the same run.
    ///
    /// # Errors
    /// A text that is no run file for the same command.
    pub fn changes_since(&self, text: &str) -> Result<Vec<String>> {
        let before = Self::parse(text, self.objectives[0].choice.entry)?;
        Ok(differences(before.settings(), self.settings()))
    }
}

/// Reads a run file by `parse`.
pub(crate) fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let text = wsd_core::Input::SETTINGS.read_text(path)?;
    parse(&text).map_err(|source| Error::RunFile { file: path.display().to_string(), source: Box::new(source) })
}

/// The tables of a text.
pub(crate) fn table(text: &str) -> Result<Map<String, Value>> {
    toml::from_str(text).map_err(|error| Error::Form(error.to_string()))
}

/// The text of tables.
pub(crate) fn text(table: &Map<String, Value>) -> Result<String> {
    toml::to_string_pretty(table).map_err(|error| Error::Form(error.to_string()))
}

/// The settings that differ between two run files that are written out, as sentences with both values.
pub(crate) fn differences(before: Map<String, Value>, now: Map<String, Value>) -> Vec<String> {
    let flat = |table: Map<String, Value>| -> BTreeMap<String, Value> {
        let mut settings = BTreeMap::new();
        flatten("", table.into(), &mut settings);
        settings
    };
    let (before, now) = (flat(before), flat(now));
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
    let change = |name: &String| {
        let (before, now) = (before.get(name), now.get(name));
        (before != now).then(|| format!("`{name}` was {}, now {}", shown(before), shown(now)))
    };
    names.into_iter().filter_map(change).collect()
}

/// Adds the values within tables and lists of tables under names such as `train.max_steps`.
fn flatten(name: &str, value: Value, settings: &mut BTreeMap<String, Value>) {
    let within = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(table) => table.into_iter().for_each(|(key, value)| flatten(&within(&key), value, settings)),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.into_iter().enumerate().for_each(|(at, value)| flatten(&format!("{name}[{at}]"), value, settings));
        }
        value => drop(settings.insert(name.to_owned(), value)),
    }
}

/// The settings of an entry that have a value as JSON, in the order of their declarations.
fn settings_json(settings: &[&'static wsd_core::Setting], values: &Values) -> Map<String, Value> {
    let given = |setting: &&'static wsd_core::Setting| {
        values.value(setting).map(|value| (setting.name.to_owned(), serde_json::json!(value)))
    };
    settings.iter().filter_map(given).collect()
}
