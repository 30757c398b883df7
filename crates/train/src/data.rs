//! Training data: files of rows, and rows as examples of an objective.

mod baseline;
mod file;
mod row;

use std::path::{Path, PathBuf};

use serde_json::json;
use wsd_core::files::write_whole;

pub use file::{RowFileError, TrainingRows, read_rows};
pub use row::{PreferencePair, RowError, TrainingRow};

use crate::encoder::{Encoder, packed};
use crate::error::{Error, Result};
use crate::example::{Example, Sequence};
use crate::objectives::{Objective, TargetTokens};

/// The file of a run's folder that lists refused rows.
const REFUSED: &str = "refused.jsonl";
/// Refused rows that a message lists.
const LISTED: usize = 20;

/// A row that cannot be an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The path of the file.
    pub file: PathBuf,
    /// The line of the row, from 1.
    pub line: usize,
    /// The reason.
    pub reason: String,
}

/// Turns rows into examples.
///
/// ```
/// # use wsd_nn::{Checkpoint, TemplateChoice};
/// use wsd_train::data::{ExampleReader, TrainingRow};
/// use wsd_train::{Encoder, Objective};
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../nn/tests/fixtures/llama");
/// # let checkpoint = Checkpoint::open(folder.as_ref())?;
///
/// let encoder = Encoder::try_new(&checkpoint, &TemplateChoice::Own, 300, None)?;
/// let reader = ExampleReader { objective: Objective::find("sft").unwrap(), encoder: &encoder, packing: None };
/// let row = TrainingRow::Completion { prompt: "2 + 2 =".into(), completion: " 4".into() };
/// let example = &reader.examples(&row)?[0];
/// assert!(example.targets() < example.tokens());
///
/// let error = reader.examples(&TrainingRow::Text("2 + 2 = 4".into())).unwrap_err();
/// assert_eq!(error.to_string(), "sft needs `messages`, or `prompt` and `completion`");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ExampleReader<'a> {
    /// The objective that the examples are for.
    pub objective: &'static Objective,
    /// The encoder.
    pub encoder: &'a Encoder,
    /// If given, all sequences are concatenated and cut into sequences of this many tokens.
    pub packing: Option<usize>,
}

impl ExampleReader<'_> {
    /// Reads the examples of files; rows that cannot be one are added to `refused`.
    ///
    /// # Errors
    /// A file that cannot be read; [`Error::Setting`] for chats and a model without a chat template, where
    /// the files have no other examples.
    pub fn read(&self, files: &[PathBuf], refused: &mut Vec<Refusal>) -> Result<Vec<Example>> {
        let (mut examples, mut wrong_setting) = (Vec::new(), None);
        for file in files {
            let rows = read_rows(file)?;
            let refusal = |line, reason: String| Refusal { file: file.clone(), line, reason };
            refused.extend(rows.refused.iter().map(|(line, error)| refusal(*line, error.to_string())));
            for (line, row) in &rows.read {
                match self.examples(row) {
                    Ok(read) => examples.extend(read),
                    Err(error) => {
                        refused.push(refusal(*line, error.to_string()));
                        wrong_setting = wrong_setting.or(Some(error).filter(Error::is_setting));
                    }
                }
            }
        }
        // Told once, and not for each row.
        if let Some(error) = wrong_setting.filter(|_| examples.is_empty()) {
            return Err(error);
        }
        if self.objective.targets == TargetTokens::Labelled {
            baseline::add(&mut examples, self.encoder.max_len());
        }
        let Some(len) = self.packing else { return Ok(examples) };
        let documents: Vec<Sequence> = examples.into_iter().flat_map(|example| example.sequences).collect();
        Ok(packed(&documents, len).into_iter().map(Example::of).collect())
    }

    /// The examples of one row: one, or several for a conversation that the chat template renders
    /// differently for each answer.
    ///
    /// # Errors
    /// A row of another kind than the objective learns from, or one that cannot be encoded.
    pub fn examples(&self, row: &TrainingRow) -> Result<Vec<Example>> {
        match (self.objective.targets, row) {
            (TargetTokens::Everything, row) => Ok(vec![Example::of(self.document(row)?)]),
            (TargetTokens::Answers, row) => Ok(self.answers(row)?.into_iter().map(Example::of).collect()),
            (TargetTokens::Preferences, TrainingRow::Preference(pair)) => Ok(vec![self.preference(pair, Ok)?]),
            (TargetTokens::PreferenceEnds, TrainingRow::Preference(pair)) => {
                Ok(vec![self.preference(pair, |answer| self.encoder.end(answer))?])
            }
            (TargetTokens::Labelled, TrainingRow::Labelled { answer, wanted }) => {
                Ok(vec![self.labelled(answer, *wanted)?])
            }
            (TargetTokens::Labelled, TrainingRow::Preference(pair)) => {
                Ok(vec![self.labelled(&pair.chosen, true)?, self.labelled(&pair.rejected, false)?])
            }
            (TargetTokens::StepEnds, TrainingRow::Steps { prompt, steps, labels }) => {
                Ok(vec![Example { labels: labels.clone(), ..Example::of(self.encoder.steps(prompt, steps)?) }])
            }
            (TargetTokens::Preferences | TargetTokens::PreferenceEnds, _) => {
                Err(self.needs("`prompt`, `chosen` and `rejected`"))
            }
            (TargetTokens::Labelled, _) => {
                Err(self.needs("`prompt`, `completion` and `label`, or `prompt`, `chosen` and `rejected`"))
            }
            (TargetTokens::StepEnds, _) => Err(self.needs("`prompt`, `completions` and `labels`")),
        }
    }

    /// A row of which every token is a target.
    fn document(&self, row: &TrainingRow) -> Result<Sequence> {
        match row {
            TrainingRow::Text(text) => self.encoder.document(text),
            TrainingRow::Completion { prompt, completion } => self.encoder.document(&format!("{prompt}{completion}")),
            TrainingRow::Chat { messages, .. } => self.encoder.conversation(messages),
            TrainingRow::Labelled { answer, .. } => self.document(answer),
            TrainingRow::Preference(_) | TrainingRow::Steps { .. } => Err(self.needs("`text` or `messages`")),
        }
    }

    /// An example of both sides of a preference, each changed by `form`.
    fn preference(&self, pair: &PreferencePair, form: impl Fn(Sequence) -> Result<Sequence>) -> Result<Example> {
        let sequences = vec![form(self.one_answer(&pair.chosen)?)?, form(self.one_answer(&pair.rejected)?)?];
        Ok(Example { sequences, ..Example::default() })
    }

    fn labelled(&self, answer: &TrainingRow, wanted: bool) -> Result<Example> {
        Ok(Example { labels: vec![f32::from(u8::from(wanted))], ..Example::of(self.one_answer(answer)?) })
    }

    fn answers(&self, row: &TrainingRow) -> Result<Vec<Sequence>> {
        match row {
            TrainingRow::Completion { prompt, completion } => Ok(vec![self.encoder.completion(prompt, completion)?]),
            TrainingRow::Chat { messages, targets } => self.encoder.chat(messages, targets),
            TrainingRow::Labelled { answer, .. } => self.answers(answer),
            TrainingRow::Text(_) | TrainingRow::Preference(_) | TrainingRow::Steps { .. } => {
                Err(self.needs("`messages`, or `prompt` and `completion`"))
            }
        }
    }

    /// The one sequence of a side of a preference.
    fn one_answer(&self, row: &TrainingRow) -> Result<Sequence> {
        <[_; 1]>::try_from(self.answers(row)?).map(|[answer]| answer).map_err(|answers| {
            let answers = answers.len();
            let reason = format!(
                "the chat template renders each of its {answers} answers after another context\n  hint: put all but \
                 the last into the `prompt`"
            );
            Error::Example { reason }
        })
    }

    fn needs(&self, keys: &str) -> Error {
        Error::Example { reason: format!("{} needs {keys}", self.objective.name) }
    }
}

/// Writes refused rows into a run's folder, and returns a message that lists the first of them;
/// `None` without a refused row.
///
/// # Errors
/// [`Error::RefusedRows`] with this message unless `skip`; those of the file system.
pub fn report_refusals(folder: &Path, refused: &[Refusal], skip: bool) -> Result<Option<String>> {
    if refused.is_empty() {
        return Ok(None);
    }
    let rows = refused
        .iter()
        .map(|Refusal { file, line, reason }| json!({"file": file, "line": line, "reason": reason}).to_string() + "\n");
    let path = folder.join(REFUSED);
    write_whole(&path, rows.collect::<String>().as_bytes())?;
    let listed = refused.iter().take(LISTED);
    let mut list: String =
        listed.map(|Refusal { file, line, reason }| format!("\n  {}:{line}: {reason}", file.display())).collect();
    if refused.len() > LISTED {
        list.push_str(&format!("\n  and {} more: {}", refused.len() - LISTED, path.display()));
    }
    let message = format!("{} rows cannot be learned from:{list}", refused.len());
    if skip { Ok(Some(message)) } else { Err(Error::RefusedRows { message }) }
}
