//! The file that describes a training run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wsd_nn::Format;
use wsd_train::{Learns, Lora, Objective, Preference, Steps};

/// A whole run; what is absent has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    /// The folder of the run.
    pub(super) output: PathBuf,
    /// The order of examples and all that is random follow from it.
    #[serde(default)]
    pub(super) seed: u64,
    /// Threads to compute with; all cores where absent. The last bits of results depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) threads: Option<usize>,
    pub(super) model: ModelTable,
    pub(super) data: DataTable,
    #[serde(default)]
    pub(super) train: Steps,
    #[serde(default)]
    pub(super) dpo: Preference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lora: Option<Lora>,
}

/// `[model]`: what is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelTable {
    /// A folder, a GGUF file or a hub name, to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    /// A folder with a tokenizer, for a model from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tokenizer: Option<PathBuf>,
    /// What the trained model is stored in.
    #[serde(default = "default_dtype")]
    pub(super) dtype: String,
    /// How conversations are written: `own`, `plain`, or a file.
    #[serde(default = "default_template")]
    pub(super) template: String,
    /// The configuration of a model from nothing, as in a `config.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) config: Option<Map<String, Value>>,
}

/// `[data]`: what it is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataTable {
    /// Files to learn from.
    pub(super) train: Vec<PathBuf>,
    /// Files that are only looked at.
    #[serde(default)]
    pub(super) eval: Vec<PathBuf>,
    /// Longer texts are cut to this many tokens.
    #[serde(default = "default_max_length")]
    pub(super) max_length: usize,
    /// Join the texts of a pretraining run end to end and cut them into rows of `max_length`.
    #[serde(default)]
    pub(super) packing: bool,
    /// Go on without the rows that cannot be learned from.
    #[serde(default)]
    pub(super) skip_refused: bool,
}

fn default_dtype() -> String {
    "bf16".into()
}

fn default_template() -> String {
    "own".into()
}

fn default_max_length() -> usize {
    1024
}

impl RunFile {
    /// Read and check a file for an objective.
    pub(super) fn read(path: &Path, objective: &Objective) -> Result<Self> {
        let text = fs_err::read_to_string(path)?;
        let mut run: Self = toml::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))?;
        run.check(objective).with_context(|| format!("{} cannot be used", path.display()))?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        run.threads = Some(run.threads.unwrap_or_else(cores));
        Ok(run)
    }

    fn check(&self, objective: &Objective) -> Result<()> {
        let steps = &self.train;
        let positive = [
            ("train.batch_size", steps.batch_size),
            ("train.gradient_accumulation_steps", steps.gradient_accumulation_steps),
            ("train.save_total_limit", steps.save_total_limit),
            ("train.max_steps", steps.max_steps.unwrap_or(1)),
            ("threads", self.threads.unwrap_or(1)),
            ("data.max_length", self.data.max_length.saturating_sub(1)),
            ("data.train", self.data.train.len()),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            bail!("`{name}` is too small");
        }
        let sane = [
            ("train.learning_rate", steps.learning_rate, 0.0..1e3),
            ("train.min_lr_rate", steps.min_lr_rate, 0.0..1.0 + 1e-9),
            ("train.warmup_ratio", steps.warmup_ratio, 0.0..1.0),
            ("train.weight_decay", steps.weight_decay, 0.0..1e3),
            ("train.adam_beta1", steps.adam_beta1, 0.0..1.0),
            ("train.adam_beta2", steps.adam_beta2, 0.0..1.0),
            ("train.adam_epsilon", steps.adam_epsilon, 0.0..1.0),
            ("train.max_grad_norm", steps.max_grad_norm, 0.0..f64::MAX),
            ("train.num_train_epochs", steps.num_train_epochs, f64::MIN_POSITIVE..1e9),
            ("dpo.beta", self.dpo.beta, f64::MIN_POSITIVE..1e6),
            ("dpo.label_smoothing", self.dpo.label_smoothing, 0.0..0.5),
            ("dpo.sft_weight", self.dpo.sft_weight, 0.0..1e6),
        ];
        if let Some((name, value, range)) = sane.into_iter().find(|(_, value, range)| !range.contains(value)) {
            bail!("`{name}` is {value}: needed is {} up to below {}", range.start, range.end);
        }
        match (&self.model.from, &self.model.config, &self.model.tokenizer) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            _ => bail!("`[model]` needs `from`, or for a model from nothing `config` and `tokenizer`"),
        }
        if self.data.packing && objective.learns != Learns::Everything {
            bail!("`data.packing` is for pretrain: here every text keeps to itself, and nothing is padded");
        }
        self.format().map(drop)
    }

    /// What the trained model is stored in.
    pub(super) fn format(&self) -> Result<Format> {
        match self.model.dtype.as_str() {
            "bf16" | "bfloat16" => Ok(Format::BF16),
            "f32" | "float32" => Ok(Format::F32),
            "f16" | "float16" => Ok(Format::F16),
            other => bail!("`model.dtype` is {other}: needed is bf16, f32 or f16"),
        }
    }

    /// All settings as a file, to be kept beside the results.
    pub(super) fn resolved(&self) -> Result<String> {
        Ok(toml::to_string_pretty(self)?)
    }
}
