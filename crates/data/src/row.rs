//! Rows between the steps: prompts with the answers of their data set, and answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wsd_core::{FinishReason, Message};
use wsd_eval::{Row, Source};

use crate::DataError;
use crate::ids::Ids;

/// A prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptRow {
    /// Identifier, unique over all files of a run: the source and a number.
    pub id: String,
    /// Name of the data set.
    pub source: String,
    /// Purpose, as `helpful`, `harmless` or `honest`; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// The conversation; its last message is a person's.
    pub messages: Vec<Message>,
    /// Answers that the data set has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
}

impl PromptRow {
    /// The texts of all messages, separated by line breaks.
    #[must_use]
    pub fn text(&self) -> String {
        self.messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
    }
}

/// An answer to a prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Author of the answer: a system, or the key of the data set under which it stands.
    pub by: String,
    /// Number of the sample, from 0, where a system answers several times.
    #[serde(default)]
    pub sample: usize,
    /// Text of the answer.
    pub output: String,
    /// Reason why it ended, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// Scores by the name of the rater; larger is better.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
}

/// An answer together with its prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerRow {
    /// The prompt, without answers.
    #[serde(flatten)]
    pub prompt: PromptRow,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// Answers of several files.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The answers, in the order of files and rows.
    pub rows: Vec<AnswerRow>,
    /// Number of rows that hold an error instead of an answer.
    pub failed: usize,
}

/// Reads the prompts of files that [`crate::read`] or [`crate::filter`] wrote.
///
/// # Errors
/// [`DataError::Source`] for a row of another form, or an identifier that stands twice.
pub fn read_prompts(paths: &[PathBuf]) -> Result<Vec<PromptRow>, DataError> {
    let (mut prompts, mut ids) = (Vec::new(), Ids::default());
    for path in paths {
        for row in Source::read(path)?.rows()? {
            let prompt: PromptRow = parsed(&row, "`wsd data read` writes it from a data set")?;
            ids.add(&prompt.id, &row)?;
            prompts.push(prompt);
        }
    }
    Ok(prompts)
}

/// Reads the answers of files of prompts, of sampled and of scored answers.
///
/// # Errors
/// [`DataError::Source`] for a row of another form.
pub fn read_answers(paths: &[PathBuf]) -> Result<Answers, DataError> {
    let mut answers = Answers::default();
    for path in paths {
        for row in Source::read(path)?.rows()? {
            answers.add(&row)?;
        }
    }
    Ok(answers)
}

impl Answers {
    fn add(&mut self, row: &Row) -> Result<(), DataError> {
        let mut prompt: PromptRow = parsed(row, "`wsd data read`, `sample` and `score` write such rows")?;
        let given = std::mem::take(&mut prompt.answers);
        self.failed += usize::from(row.fields().contains_key("error"));
        self.rows.extend(given.into_iter().map(|answer| AnswerRow { prompt: prompt.clone(), answer }));
        if row.fields().contains_key("output") {
            let mut answer: Answer = parsed(row, "`wsd data sample` writes it")?;
            let sampled = row.fields().get("wsd").and_then(|wsd| wsd.get("finish_reason"));
            answer.finish_reason = answer.finish_reason.or_else(|| finish_reason(sampled));
            self.rows.push(AnswerRow { prompt, answer });
        }
        Ok(())
    }

    /// Names of the scores that any answer has.
    #[must_use]
    pub fn score_names(&self) -> BTreeSet<&str> {
        self.rows.iter().flat_map(|row| row.answer.scores.keys()).map(String::as_str).collect()
    }
}

fn finish_reason(value: Option<&Value>) -> Option<FinishReason> {
    serde_json::from_value(value?.clone()).ok()
}

fn parsed<T: serde::de::DeserializeOwned>(row: &Row, origin: &str) -> Result<T, DataError> {
    let parsed = serde_json::from_value(Value::Object(row.fields().clone()));
    Ok(parsed.map_err(|error| row.fault(format!("not a row of prompts: {error}\n  hint: {origin}")))?)
}

/// The file beside `path` with `end` after its whole name.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
