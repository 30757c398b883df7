//! Run files of draft heads.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wsd_nn::draft::{BaseMark, DraftConfig};
use wsd_nn::{Checkpoint, Device, arch};

use crate::data::Refusal;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::example::{Example, Sequence};
use crate::objectives::Objective;
use crate::run_file::RunFile;

/// The objective whose rows a head learns from: prompts and answers.
const ROWS_OF: &str = "sft";
/// The table of the head's own settings.
const TABLE: &str = "head";
/// Settings of `[train]` whose defaults are those of the authors' code.
const DEFAULTS: [(&str, f64); 4] =
    [("learning_rate", 5e-5), ("adam_beta2", 0.95), ("max_grad_norm", 0.0), ("num_train_epochs", 20.0)];

/// `[head]`: the architecture of a head and its loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadTable {
    /// Pass the input through feature sampling.
    pub feature_sampling: bool,
    /// Predict token and feature by outputs of their own.
    pub partial_alignment: bool,
    /// The inner units of the feed-forward parts; those of the base by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// The weight of the smooth L1 distance of features.
    pub feature_weight: f64,
    /// The weight of the cross-entropy of tokens.
    pub token_weight: f64,
    /// The width of the uniform noise on features that are read, at 512 tokens; that of other lengths is
    /// inverse to them.
    pub feature_noise: f64,
    /// Each entry of the gradient is clipped to this value; 0 for no clipping.
    pub max_grad_value: f64,
}

impl Default for HeadTable {
    fn default() -> Self {
        Self {
            feature_sampling: true,
            partial_alignment: true,
            intermediate_size: None,
            feature_weight: 1.0,
            token_weight: 0.1,
            feature_noise: 0.2,
            max_grad_value: 0.5,
        }
    }
}

/// A training run of a draft head.
#[derive(Clone, Debug)]
pub struct HeadFile {
    /// The parts that it shares with other runs.
    pub run: RunFile,
    /// `[head]`.
    pub head: HeadTable,
}

impl HeadFile {
    /// Reads a run file.
    ///
    /// # Errors
    /// [`Error::RunFile`] with the reason; those of the file system.
    pub fn read(path: &Path) -> Result<Self> {
        crate::run_file::read(path, Self::parse)
    }

    /// Parses a run file.
    ///
    /// ```
    /// let file = wsd_train::draft_head::HeadFile::parse(
    ///     r#"
    ///     output = "runs/head"
    ///     model = { from = "base" }
    ///     data = { train = ["answers.jsonl"] }
    ///     head = { partial_alignment = false }
    ///     "#,
    /// )?;
    /// assert!(file.head.feature_sampling && !file.head.partial_alignment);
    /// assert_eq!(file.run.steps.learning_rate, 5e-5);
    /// # Ok::<(), wsd_train::Error>(())
    /// ```
    ///
    /// # Errors
    /// A key that no table has; a value outside its limits.
    pub fn parse(text: &str) -> Result<Self> {
        let mut file = crate::run_file::table(text)?;
        let head = file.remove(TABLE).unwrap_or_else(|| json!({}));
        let head: HeadTable =
            serde_json::from_value(head).map_err(|error| Error::Form(format!("`[{TABLE}]`: {error}")))?;
        let has_optimizer = file.contains_key("optimizer");
        if let Value::Object(train) = file.entry("train").or_insert_with(|| json!({})) {
            for (key, value) in DEFAULTS {
                let is_rule = key.starts_with("adam");
                if !(is_rule && has_optimizer) {
                    train.entry(key).or_insert_with(|| json!(value));
                }
            }
        }
        let rows_of =
            Objective::find(ROWS_OF).ok_or_else(|| Error::Form(format!("there is no objective {ROWS_OF}")))?;
        let file = Self { run: RunFile::from_table(file, rows_of)?, head };
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        let Self { run, head } = self;
        let numbers = [
            ("head.feature_weight", head.feature_weight),
            ("head.token_weight", head.token_weight),
            ("head.feature_noise", head.feature_noise),
            ("head.max_grad_value", head.max_grad_value),
        ];
        if let Some((name, value)) = numbers.into_iter().find(|(_, value)| !(0.0..=1e6).contains(value)) {
            return Err(Error::setting(name, "from 0 to 1000000", value));
        }
        if let Some(size) = head.intermediate_size.filter(|size| !(1..=1 << 20).contains(size)) {
            return Err(Error::setting("head.intermediate_size", "from 1 to 1048576", size));
        }
        if run.optimizer.entry.needs_start {
            return Err(Error::setting("optimizer.name", "one without a start to stay at", run.optimizer.entry.name));
        }
        let absent = "absent in the run of a draft head";
        let others = [
            ("device", run.device != Device::Cpu),
            ("model.teacher", run.model.teacher.is_some()),
            ("model.config", run.model.config.is_some()),
            ("data.packing", run.data.packing),
            ("train.gradient_checkpointing", run.steps.gradient_checkpointing),
            ("train.bf16", run.steps.bf16),
            ("adapter", run.adapter.entry.name != crate::adapters::ADAPTERS[0].name),
            ("objective", run.objectives.len() > 1),
        ];
        match others.into_iter().find(|(_, is_there)| *is_there) {
            Some((name, _)) => Err(Error::setting(name, absent, "a value")),
            None => Ok(()),
        }
    }

    /// The description of the head over a base.
    ///
    /// # Errors
    /// Those of [`BaseMark::of`].
    pub fn config(&self, base: &Checkpoint) -> Result<DraftConfig> {
        let HeadTable { feature_sampling, partial_alignment, intermediate_size, .. } = self.head;
        let ffn = arch::blueprint(&base.config)?.ffn;
        let whole = DraftConfig::new(BaseMark::of(base)?, intermediate_size.unwrap_or(ffn));
        Ok(DraftConfig { feature_sampling, partial_alignment, ..whole })
    }

    /// Reads the sequences to learn from and to evaluate on, those of which a head drafts a token. Rows
    /// that cannot be sequences are added to `refused`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn sequences(&self, encoder: &Encoder, refused: &mut Vec<Refusal>) -> Result<[Vec<Sequence>; 2]> {
        let drafted = |examples: Vec<Example>| -> Vec<Sequence> {
            let sequences = examples.into_iter().flat_map(|example| example.sequences);
            sequences.filter(|sequence| sequence.positions().any(|position| position >= 2)).collect()
        };
        let terms = self.run.read_terms(encoder, refused)?.into_iter();
        Ok(terms.map(|term| [drafted(term.examples), drafted(term.evaluation)]).next().unwrap_or_default())
    }

    /// All settings as the text of a run file.
    ///
    /// # Errors
    /// A value that TOML cannot express.
    pub fn resolved(&self) -> Result<String> {
        crate::run_file::text(&self.settings())
    }

    fn settings(&self) -> Map<String, Value> {
        let mut settings = self.run.settings();
        settings.insert(TABLE.into(), json!(self.head));
        settings
    }

    /// Compares this file with a text of a run file. Returns the settings that differ, as sentences
    /// with both values; none if the two describe the same run.
    ///
    /// # Errors
    /// A text that is no run file of a head.
    pub fn changes_since(&self, text: &str) -> Result<Vec<String>> {
        Ok(crate::run_file::differences(Self::parse(text)?.settings(), self.settings()))
    }
}
