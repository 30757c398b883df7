//! One row of a file of prompts.

use serde::Serialize;
use serde_json::{Map, Value};
use wsd_core::{ChatRole, Error, Message, SAMPLING, SEED, Setting, TERMS, Values, strategy_settings};

/// Keys of a row that is one of several samples.
const SAMPLE_KEYS: [&str; 2] = ["sample", "sample_seed"];
/// Keys of answers, which a row of prompts cannot use.
const RESERVED: [&str; 3] = ["output", "error", "wsd"];

/// Prompt of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordPrompt {
    /// Plain text: `{"prompt": "..."}`, GSM8K's `{"question": "..."}`, or AlpacaEval's
    /// `{"instruction": "..."}` with or without `input`.
    Text(String),
    /// A conversation: `{"messages": [...]}`, or the paper's `{"context": [...]}`.
    Messages(Vec<Message>),
}

/// A row of prompts: the parsed prompt, its own settings, and the row's text, which is copied into
/// the answer's row byte for byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    prompt: RecordPrompt,
    values: Values,
    text: String,
    reference: Option<String>,
}

/// Reason for which a line is not a row of prompts.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The line is not a JSON object.
    #[error("not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// The line begins like text.
    #[error("not a JSON object; a CSV file must be named *.csv")]
    Text,
    /// The row of a CSV file has a fault.
    #[error("{0}")]
    Csv(String),
    /// The line is not valid UTF-8.
    #[error("invalid UTF-8 at byte {0} of the line")]
    Utf8(usize),
    /// The row has none of the prompt keys.
    #[error("needs `prompt`, `messages`, `context`, `question` or `instruction`, has: {0}; --prompt-key names another")]
    NoPrompt(String),
    /// The row does not have the key that was named.
    #[error("needs `{0}`, has: {1}")]
    NoKey(String, String),
    /// The row has several of the keys `prompt`, `messages` and `context`.
    #[error("has both `{0}` and `{1}`: keep the one to answer")]
    TwoPrompts(&'static str, &'static str),
    /// The row uses a key of the answer.
    #[error("the key `{0}` is reserved for the answer: rename it")]
    Reserved(&'static str),
    /// The row names a setting that is the same for all rows.
    #[error(
        "`{0}` is a setting of the whole file: give it as --{flag}, or rename the key",
        flag = .0.replace('_', "-")
    )]
    Setting(&'static str),
    /// The value of a setting is outside its limits.
    #[error(transparent)]
    Value(#[from] Error),
    /// The prompt is invalid.
    #[error("`{key}` {message}")]
    Prompt {
        /// Name of its key.
        key: String,
        /// Description of the fault, a predicate.
        message: String,
    },
}

impl Record {
    /// Parses a line.
    ///
    /// # Errors
    /// [`RecordError`] names the key at fault.
    ///
    /// ```
    /// use wsd_lab::data::{Record, RecordPrompt};
    /// let record = Record::parse(r#"{"id": 7, "prompt": "Hello"}"#)?;
    /// assert_eq!(record.prompt(), &RecordPrompt::Text("Hello".into()));
    /// # Ok::<(), wsd_lab::data::RecordError>(())
    /// ```
    pub fn parse(line: &str) -> Result<Self, RecordError> {
        Self::parse_with(line, None)
    }

    /// Parses a line whose prompt, a text or a conversation, has the key `prompt_key` if one is named.
    ///
    /// # Errors
    /// [`RecordError`] names the key at fault.
    pub fn parse_with(line: &str, prompt_key: Option<&str>) -> Result<Self, RecordError> {
        if line.trim_start().starts_with(|c: char| c.is_alphabetic()) {
            return Err(RecordError::Text);
        }
        let mut fields: Map<String, Value> = serde_json::from_str(line)?;
        // A row of a list may have several lines. JSON breaks lines only between values.
        let mut text = line.trim().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let has = |key: &str| fields.contains_key(key);
        let is_alpaca = has("instruction") && !["prompt", "messages", "context"].into_iter().any(has);
        // The reference's answer, which AlpacaEval's own scripts replace too.
        let output = is_alpaca.then(|| fields.shift_remove("output")).flatten();
        if output.is_some() {
            text = serde_json::to_string(&fields)?;
        }
        let reference = output.and_then(|output| output.as_str().map(str::to_owned));
        if let Some(key) = RESERVED.into_iter().find(|key| fields.contains_key(*key)) {
            return Err(RecordError::Reserved(key));
        }
        if let Some(setting) = strategy_settings().into_iter().find(|setting| fields.contains_key(setting.name)) {
            return Err(RecordError::Setting(setting.name));
        }
        let values = row_values(&fields)?;
        if let Some(key) = prompt_key {
            let value = fields.get(key).ok_or_else(|| RecordError::NoKey(key.to_owned(), keys_of(&fields)))?;
            let kind = if value.is_array() { "messages" } else { "prompt" };
            return Ok(Self { prompt: named(key, parse_prompt(kind, value.clone()))?, values, text, reference });
        }
        let mut keys = ["prompt", "messages", "context"].into_iter().filter(|key| fields.contains_key(*key));
        let prompt = match (keys.next(), keys.next()) {
            (Some(first), Some(second)) => return Err(RecordError::TwoPrompts(first, second)),
            (Some(key), None) => parse_prompt(key, fields.remove(key).unwrap_or_default())?,
            (None, _) => match ["question", "instruction"].into_iter().find(|key| fields.contains_key(*key)) {
                Some(key) => parse_question(key, &fields)?,
                None => return Err(RecordError::NoPrompt(keys_of(&fields))),
            },
        };
        Ok(Self { prompt, values, text, reference })
    }

    /// The same row as one of several samples, which adds `sample` and `sample_seed` to its text.
    ///
    /// # Errors
    /// [`RecordError::Reserved`] for a row that has such a key.
    ///
    /// ```
    /// use wsd_lab::data::Record;
    /// let record = Record::parse(r#"{"prompt": "Hello"}"#)?.sampled(1, 43)?;
    /// assert_eq!(record.row(), r#"{"prompt": "Hello", "sample": 1, "sample_seed": 43}"#);
    /// # Ok::<(), wsd_lab::data::RecordError>(())
    /// ```
    pub fn sampled(&self, sample: usize, seed: u64) -> Result<Self, RecordError> {
        let fields: Map<String, Value> = serde_json::from_str(&self.text)?;
        if let Some(key) = SAMPLE_KEYS.into_iter().find(|key| fields.contains_key(*key)) {
            return Err(RecordError::Reserved(key));
        }
        let [index, drawn] = SAMPLE_KEYS;
        let text = format!("{}, \"{index}\": {sample}, \"{drawn}\": {seed}}}", self.opening());
        Ok(Self { values: self.values.clone().with(&SEED, seed)?, text, ..self.clone() })
    }

    /// The row's own sampling and limits, which take precedence over those of the run.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The prompt.
    #[must_use]
    pub fn prompt(&self) -> &RecordPrompt {
        &self.prompt
    }

    /// Text of the row.
    #[must_use]
    pub fn row(&self) -> &str {
        &self.text
    }

    /// A text of the row by its key: also the `output` of a row with an `instruction`, which an answer's
    /// row does not repeat.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<String> {
        let row: Map<String, Value> = serde_json::from_str(&self.text).ok()?;
        let text = row.get(key).and_then(Value::as_str).map(str::to_owned);
        text.or_else(|| self.reference.clone().filter(|_| key == "output"))
    }

    /// Text of the row without its closing brace: the prefix of its answer's row.
    #[must_use]
    pub fn opening(&self) -> &str {
        self.text.strip_suffix('}').unwrap_or(&self.text).trim_end()
    }

    /// Returns the row extended by the fields of `more`, which must serialize to an object; one
    /// line without line break.
    ///
    /// # Errors
    /// Errors of serializing `more`.
    pub fn with(&self, more: &impl Serialize) -> serde_json::Result<String> {
        let more = serde_json::to_string(more)?;
        Ok(format!("{}, {}", self.opening(), more.strip_prefix('{').unwrap_or(&more)))
    }
}

/// Reads the settings of sampling and limits that a row names; `null` counts as absent.
fn row_values(fields: &Map<String, Value>) -> Result<Values, RecordError> {
    let mut values = Values::default();
    let settings: [&[&'static Setting]; 2] = [SAMPLING, TERMS];
    for &setting in settings.into_iter().flatten() {
        if let Some(value) = fields.get(setting.name).filter(|value| !value.is_null()) {
            values.set(setting, setting.from_json(value)?)?;
        }
    }
    Ok(values)
}

/// Parses a question, or an instruction with its optional `input`, as a prompt.
fn parse_question(key: &'static str, fields: &Map<String, Value>) -> Result<RecordPrompt, RecordError> {
    let prompt = named(key, parse_prompt("prompt", fields[key].clone()))?;
    match (prompt, fields.get("input")) {
        (prompt, None | Some(Value::Null)) => Ok(prompt),
        (RecordPrompt::Text(text), Some(Value::String(input))) if key == "instruction" => {
            Ok(RecordPrompt::Text(if input.is_empty() { text } else { format!("{text}\n{input}") }))
        }
        (_, Some(_)) if key == "instruction" => {
            Err(RecordError::Prompt { key: "input".into(), message: "must be a string".into() })
        }
        (prompt, _) => Ok(prompt),
    }
}

/// Lists the keys of a row.
fn keys_of(fields: &Map<String, Value>) -> String {
    let keys: Vec<_> = fields.keys().map(String::as_str).collect();
    if keys.is_empty() { "no key".into() } else { keys.join(", ") }
}

/// Names another key in the fault of a prompt.
fn named(key: &str, prompt: Result<RecordPrompt, RecordError>) -> Result<RecordPrompt, RecordError> {
    prompt.map_err(|error| match error {
        RecordError::Prompt { message, .. } => RecordError::Prompt { key: key.to_owned(), message },
        error => error,
    })
}

fn parse_prompt(key: &'static str, value: Value) -> Result<RecordPrompt, RecordError> {
    let fault = |message: String| RecordError::Prompt { key: key.to_owned(), message };
    if key == "prompt" {
        return match value {
            Value::String(text) if text.trim().is_empty() => Err(fault("is empty".into())),
            Value::String(text) => Ok(RecordPrompt::Text(text)),
            _ => Err(fault("must be a string".into())),
        };
    }
    let messages: Vec<Message> = serde_json::from_value(value)
        .map_err(|error| fault(format!("must be a list of {{\"role\", \"content\"}}: {error}")))?;
    match messages.last() {
        None => Err(fault("has no message".into())),
        Some(Message { role: ChatRole::System, .. }) => Err(fault(
            "ends with a system message: the last must be from the user, or from the assistant to be continued".into(),
        )),
        Some(_) => Ok(RecordPrompt::Messages(messages)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_read() {
        let messages = RecordPrompt::Messages(vec![Message::new(ChatRole::User, "Hi")]);
        for (line, want) in [
            (r#"{"prompt": "Hi"}"#, RecordPrompt::Text("Hi".into())),
            (r#"{"messages": [{"role": "user", "content": "Hi"}]}"#, messages.clone()),
            (r#" {"id": 1.10, "context": [{"role": "user", "content": "Hi"}]} "#, messages),
        ] {
            assert_eq!(Record::parse(line).unwrap().prompt, want, "{line}");
        }
    }

    #[test]
    fn questions_and_instructions_are_prompts() {
        for (line, want) in [
            (r#"{"question": "2 + 2?", "answer": "4"}"#, "2 + 2?"),
            (r#"{"instruction": "Sum up", "input": "", "output": "x", "generator": "y"}"#, "Sum up"),
            (r#"{"instruction": "Sum up", "input": "a b"}"#, "Sum up\na b"),
        ] {
            assert_eq!(Record::parse(line).unwrap().prompt, RecordPrompt::Text(want.into()), "{line}");
        }
        let row = Record::parse("{\n  \"instruction\": \"a\",\n  \"output\": \"b\",\n  \"n\": 1\n}").unwrap();
        assert_eq!(row.row(), r#"{"instruction":"a","n":1}"#, "the answer takes the place of the reference's");
    }

    #[test]
    fn a_row_has_settings_of_its_own() {
        let record = Record::parse(r#"{"prompt": "?", "seed": 2, "max_tokens": 9, "top_k": null}"#).unwrap();
        let terms = wsd_core::Terms::from_values(record.values());
        assert_eq!((terms.sampling.seed, terms.max_tokens, terms.sampling.top_k), (2, 9, 0));
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
            (
                r#"{"query": "?", "id": 1}"#,
                "needs `prompt`, `messages`, `context`, `question` or `instruction`, has: query, id; --prompt-key \
                 names another",
            ),
            (r#"{"question": 3}"#, "`question` must be a string"),
            (r#"{"instruction": "?", "input": 3}"#, "`input` must be a string"),
            (
                r#"{"prompt": "?", "window": 3}"#,
                "`window` is a setting of the whole file: give it as --window, or rename the key",
            ),
            (r#"{"prompt": "?", "seed": "one"}"#, "`seed` must be a whole number of 64 bits, got \"one\""),
            (r#"{"prompt": "?", "context": []}"#, "has both `prompt` and `context`: keep the one to answer"),
            (r#"{"prompt": 3}"#, "`prompt` must be a string"),
            (r#"{"prompt": " "}"#, "`prompt` is empty"),
            (r#"{"messages": []}"#, "`messages` has no message"),
            (r#"{"prompt": "?", "output": "!"}"#, "the key `output` is reserved for the answer: rename it"),
        ] {
            assert_eq!(Record::parse(line).unwrap_err().to_string(), want, "{line}");
        }
        let bad_role = Record::parse(r#"{"messages": [{"role": "robot", "content": ""}]}"#).unwrap_err().to_string();
        assert!(bad_role.starts_with("`messages` must be a list of") && bad_role.contains("robot"), "{bad_role}");
    }
}
