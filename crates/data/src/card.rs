//! Data cards: the steps by which a file came to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wsd_core::files::write_whole;

use crate::DataError;
use crate::pairs::PairRow;
use crate::row::beside;

/// End of the name of a card.
const END: &str = ".card.json";

/// A file that a step read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Path as it was given.
    pub path: PathBuf,
    /// Number of its rows.
    pub rows: usize,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// A data set that a step read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceNote {
    /// Name of the data set.
    pub name: String,
    /// Purpose of its prompts; may be empty.
    pub label: String,
    /// Licence, as the user states it; may be empty.
    pub licence: String,
    /// Number of prompts taken.
    pub prompts: usize,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Name of the command.
    pub command: String,
    /// Version of the program.
    pub version: String,
    /// The files that it read.
    pub inputs: Vec<InputFile>,
    /// The data set, if it read one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceNote>,
    /// Settings that the result depends on.
    pub settings: Map<String, Value>,
    /// Numbers of rows, by what became of them.
    pub counts: Map<String, Value>,
}

impl Step {
    /// A step of this program.
    #[must_use]
    pub fn new(command: &str, inputs: Vec<InputFile>) -> Self {
        Self { command: command.into(), version: env!("CARGO_PKG_VERSION").into(), inputs, ..Self::default() }
    }
}

/// The steps by which a file came to be, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Card {
    /// Path of the card of a file.
    #[must_use]
    pub fn path(file: &Path) -> PathBuf {
        beside(file, END)
    }

    /// The steps of all input files, each once; none for a file without a card.
    ///
    /// # Errors
    /// Those of the file system; a card that is not JSON.
    pub fn of(files: &[PathBuf]) -> Result<Self, DataError> {
        let mut card = Self::default();
        for path in files.iter().map(|file| Self::path(file)).filter(|path| path.exists()) {
            let read: Self = serde_json::from_slice(&fs_err::read(path)?)?;
            for step in read.steps {
                if !card.steps.contains(&step) {
                    card.steps.push(step);
                }
            }
        }
        Ok(card)
    }

    /// Names of the data sets that the steps read.
    #[must_use]
    pub fn source_names(&self) -> BTreeSet<&str> {
        self.steps.iter().filter_map(|step| step.source.as_ref()).map(|source| source.name.as_str()).collect()
    }

    /// The same card with one more step.
    #[must_use]
    pub fn with(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Writes the card of a file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, file: &Path) -> Result<(), DataError> {
        let text = format!("{}\n", serde_json::to_string_pretty(self)?);
        Ok(write_whole(&Self::path(file), text.as_bytes())?)
    }

    /// Formats the card of a set of pairs as markdown.
    #[must_use]
    pub fn markdown(&self, training: &[PairRow], evaluation: &[PairRow]) -> String {
        let all = || training.iter().chain(evaluation);
        let mut text = format!(
            "# Preference pairs\n\n{} pairs to train on (`train.jsonl`) and {} to evaluate on (`eval.jsonl`), in the \
             conversational form of TRL: `prompt`, `chosen` and `rejected` are lists of messages.\n\n",
            training.len(),
            evaluation.len()
        );
        text.push_str(&self.sources());
        text.push_str(&table("label", all().map(|pair| pair.label.as_str())));
        text.push_str(&table("source", all().map(|pair| pair.source.as_str())));
        text.push_str(&table("score that decided", all().map(|pair| pair.by.as_str())));
        text.push_str(&table("author of the chosen answer", all().map(|pair| pair.author_chosen.as_str())));
        text.push_str(&table("author of the rejected answer", all().map(|pair| pair.author_rejected.as_str())));
        text.push_str(&lengths(&all().collect::<Vec<_>>()));
        text.push_str("## Steps\n\n");
        for (number, step) in self.steps.iter().enumerate() {
            let _ = writeln!(text, "{}. `wsd data {}`, version {}", number + 1, step.command, step.version);
            for file in &step.inputs {
                let _ =
                    writeln!(text, "   - read `{}`: {} rows, sha256 `{}`", file.path.display(), file.rows, file.sha256);
            }
            for (name, values) in [("settings", &step.settings), ("counts", &step.counts)] {
                if !values.is_empty() {
                    let _ = writeln!(text, "   - {name}: `{}`", Value::Object(values.clone()));
                }
            }
        }
        text
    }

    fn sources(&self) -> String {
        let mut text = "| data set | label | licence | prompts read |\n|---|---|---|---|\n".to_owned();
        for source in self.steps.iter().filter_map(|step| step.source.as_ref()) {
            let licence = if source.licence.is_empty() { "not stated" } else { &source.licence };
            let label = if source.label.is_empty() { "none" } else { &source.label };
            let _ = writeln!(text, "| {} | {label} | {licence} | {} |", source.name, source.prompts);
        }
        text + "\n"
    }
}

/// Counts of pairs by a name.
fn table<'a>(title: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(if name.is_empty() { "none" } else { name }).or_default() += 1;
    }
    let rows: String = counts.iter().map(|(name, count)| format!("| {name} | {count} |\n")).collect();
    format!("| {title} | pairs |\n|---|---|\n{rows}\n")
}

/// Lengths of the answers, which tell whether the preference is one for length.
fn lengths(pairs: &[&PairRow]) -> String {
    let words = |text: &str| text.split_whitespace().count();
    let count = pairs.len().max(1) as f64;
    let (mut chosen, mut rejected, mut longer) = (0, 0, 0);
    for pair in pairs {
        let (better, worse) = (words(&pair.chosen[0].content), words(&pair.rejected[0].content));
        (chosen, rejected, longer) = (chosen + better, rejected + worse, longer + usize::from(better > worse));
    }
    format!(
        "Mean length: {:.0} words chosen, {:.0} words rejected; the chosen answer is the longer one in {:.0} % of the \
         pairs.\n\n",
        chosen as f64 / count,
        rejected as f64 / count,
        100.0 * f64::from(u32::try_from(longer).unwrap_or(u32::MAX)) / count
    )
}
