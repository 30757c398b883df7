//! Items: prompts with all that a grader needs.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wsd_core::{Message, Prompt};
use wsd_lab::data::{Record, RecordPrompt};

use crate::EvalError;

/// The form in which a prompt is given to the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The text as it stands, continued by both models.
    Raw,
    /// One message of a user, in each model's own form of a conversation.
    Chat,
}

impl Form {
    /// The prompt of a record in this form. `before` are the messages above a conversation.
    #[must_use]
    pub fn prompt(self, prompt: &RecordPrompt, before: &[Message]) -> Prompt {
        match (self, prompt) {
            (Self::Raw, RecordPrompt::Text(text)) => Prompt::Raw(text.clone()),
            (Self::Chat, RecordPrompt::Text(text)) => {
                Prompt::Chat([before, &[Message::new(wsd_core::ChatRole::User, text)]].concat())
            }
            (_, RecordPrompt::Messages(messages)) => Prompt::Chat([before, messages].concat()),
        }
    }
}

/// One question of a benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Identifier, unique within the file.
    pub id: String,
    /// Number of the sample, from 0, where an item is answered several times.
    #[serde(default)]
    pub sample: usize,
    /// Text of the prompt; the context of the choices for a scored item.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// A conversation in the place of `prompt`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// Continuations to score; empty for an item that is answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// Strings that end the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// The most tokens in the answer.
    pub max_tokens: usize,
    /// Everything else that the grader needs.
    pub doc: Value,
    /// Sampling seed of this sample, if it is not the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Item {
    /// The item as a row of prompts.
    ///
    /// # Errors
    /// [`EvalError::Item`] for an empty prompt.
    pub fn record(&self) -> Result<Record, EvalError> {
        let row = serde_json::to_string(self)?;
        Record::parse(&row).map_err(|source| EvalError::Item { id: self.id.clone(), source })
    }

    /// A text of `doc`; empty if it is absent.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.doc.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// An index of `doc`, such as the right choice.
    #[must_use]
    pub fn index(&self, key: &str) -> Option<usize> {
        usize::try_from(self.doc.get(key)?.as_u64()?).ok()
    }
}
