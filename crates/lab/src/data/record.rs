//! One row of a file of prompts.

use serde::Serialize;
use serde_json::{Map, Value};
use wsd_core::{ChatRole, Message};

/// Keys that answers are written under, so that a row of prompts cannot hold them.
const RESERVED: [&str; 3] = ["output", "error", "wsd"];

/// What a row asks to be continued.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// `{"prompt": "..."}`.
    Prompt(String),
    /// `{"messages": [...]}`, or the paper's `{"context": [...]}`.
    Messages(Vec<Message>),
}

/// A row: what it asks, and its own text, which is carried into the answer's row byte for byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    ask: Ask,
    text: String,
}

/// Why a line is not a row of prompts.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The line is not JSON, or not an object.
    #[error("not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// The line is not text.
    #[error("invalid UTF-8 at byte {0} of the line")]
    Utf8(usize),
    /// None of the three keys is there.
    #[error("needs `prompt`, `messages` or `context`, has: {0}")]
    NoPrompt(String),
    /// More than one of the three keys is there.
    #[error("has both `{0}` and `{1}`: keep the one that is to be answered")]
    TwoPrompts(&'static str, &'static str),
    /// A key that the answer will be written under.
    #[error("the key `{0}` is the answer's: rename it")]
    Reserved(&'static str),
    /// The prompt is not what it must be.
    #[error("`{key}` {message}")]
    Prompt {
        /// The key it stands under.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

impl Record {
    /// Parse a line.
    ///
    /// # Errors
    /// [`RecordError`] names the key at fault.
    ///
    /// ```
    /// use wsd_lab::data::{Ask, Record};
    /// let record = Record::parse(r#"{"id": 7, "prompt": "Hello"}"#)?;
    /// assert_eq!(record.ask(), &Ask::Prompt("Hello".into()));
    /// # Ok::<(), wsd_lab::data::RecordError>(())
    /// ```
    pub fn parse(line: &str) -> Result<Self, RecordError> {
        let mut fields: Map<String, Value> = serde_json::from_str(line)?;
        if let Some(key) = RESERVED.into_iter().find(|key| fields.contains_key(*key)) {
            return Err(RecordError::Reserved(key));
        }
        let mut asked = ["prompt", "messages", "context"].into_iter().filter(|key| fields.contains_key(*key));
        let ask = match (asked.next(), asked.next()) {
            (Some(first), Some(second)) => return Err(RecordError::TwoPrompts(first, second)),
            (Some(key), None) => ask(key, fields.remove(key).unwrap_or_default())?,
            (None, _) => {
                let keys: Vec<_> = fields.keys().map(String::as_str).collect();
                return Err(RecordError::NoPrompt(if keys.is_empty() { "no key".into() } else { keys.join(", ") }));
            }
        };
        Ok(Self { ask, text: line.trim().to_owned() })
    }

    /// What is to be continued.
    #[must_use]
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The row's own text.
    #[must_use]
    pub fn row(&self) -> &str {
        &self.text
    }

    /// The row's text without its closing brace: what every row made of it begins with.
    #[must_use]
    pub fn opening(&self) -> &str {
        self.text.strip_suffix('}').unwrap_or(&self.text).trim_end()
    }

    /// The row with the fields of `more`, an object, after its own; one line without a line break.
    ///
    /// # Errors
    /// Those of serialising `more`.
    pub fn with(&self, more: &impl Serialize) -> serde_json::Result<String> {
        let more = serde_json::to_string(more)?;
        Ok(format!("{}, {}", self.opening(), more.strip_prefix('{').unwrap_or(&more)))
    }
}

fn ask(key: &'static str, value: Value) -> Result<Ask, RecordError> {
    let fault = |message: String| RecordError::Prompt { key, message };
    if key == "prompt" {
        return match value {
            Value::String(text) if text.trim().is_empty() => Err(fault("is empty".into())),
            Value::String(text) => Ok(Ask::Prompt(text)),
            _ => Err(fault("must be a string".into())),
        };
    }
    let messages: Vec<Message> = serde_json::from_value(value)
        .map_err(|error| fault(format!("must be a list of {{\"role\", \"content\"}}: {error}")))?;
    match messages.last() {
        None => Err(fault("has no message".into())),
        Some(Message { role: ChatRole::System, .. }) => Err(fault(
            "ends with a system message: the last must be the user's, or an assistant's to be continued".into(),
        )),
        Some(_) => Ok(Ask::Messages(messages)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_read() {
        let messages = Ask::Messages(vec![Message::new(ChatRole::User, "Hi")]);
        for (line, want) in [
            (r#"{"prompt": "Hi"}"#, Ask::Prompt("Hi".into())),
            (r#"{"messages": [{"role": "user", "content": "Hi"}]}"#, messages.clone()),
            (r#" {"id": 1.10, "context": [{"role": "user", "content": "Hi"}]} "#, messages),
        ] {
            assert_eq!(Record::parse(line).unwrap().ask, want, "{line}");
        }
    }

    #[test]
    fn a_row_is_carried_over_byte_for_byte() {
        let record = Record::parse(r#"{"big": 123456789012345678901234567890, "prompt": "a\u0041"  }"#).unwrap();
        let row = record.with(&serde_json::json!({"output": "x\ny"})).unwrap();
        assert_eq!(row, r#"{"big": 123456789012345678901234567890, "prompt": "a\u0041", "output":"x\ny"}"#);
    }

    #[test]
    fn faults_name_the_key() {
        for (line, want) in [
            ("[1]", "not a JSON object: invalid type: sequence, expected a map at line 1 column 0"),
            (r#"{"question": "?", "id": 1}"#, "needs `prompt`, `messages` or `context`, has: question, id"),
            (
                r#"{"prompt": "?", "context": []}"#,
                "has both `prompt` and `context`: keep the one that is to be answered",
            ),
            (r#"{"prompt": 3}"#, "`prompt` must be a string"),
            (r#"{"prompt": " "}"#, "`prompt` is empty"),
            (r#"{"messages": []}"#, "`messages` has no message"),
            (r#"{"prompt": "?", "output": "!"}"#, "the key `output` is the answer's: rename it"),
        ] {
            assert_eq!(Record::parse(line).unwrap_err().to_string(), want, "{line}");
        }
        let bad_role = Record::parse(r#"{"messages": [{"role": "robot", "content": ""}]}"#).unwrap_err().to_string();
        assert!(bad_role.starts_with("`messages` must be a list of") && bad_role.contains("robot"), "{bad_role}");
    }
}
