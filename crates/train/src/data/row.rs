//! One row of a training file.

use serde_json::{Map, Value};
use wsd_core::{ChatRole, Message, common_prefix};

/// Content of a training row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrainingRow {
    /// A document: `text`.
    Text(String),
    /// A text and its continuation: `prompt` and `completion`.
    Completion {
        /// Context; not trained on.
        prompt: String,
        /// Target text.
        completion: String,
    },
    /// A conversation: `messages`, or `prompt` and `completion` as lists of messages, or alpaca's
    /// `instruction` and `output`.
    Chat {
        /// Messages of the whole conversation.
        messages: Vec<Message>,
        /// Index of the first message whose assistant text is a target.
        learned_from: usize,
    },
    /// A chosen and a rejected answer to the same prompt: `prompt`, `chosen` and `rejected`.
    Preference(Box<PreferencePair>),
}

/// Two answers to the same prompt, each with the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferencePair {
    /// The better answer.
    pub chosen: TrainingRow,
    /// The worse answer.
    pub rejected: TrainingRow,
}

/// Reason for which a row cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The row is not a JSON object.
    #[error("not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// The line is not valid UTF-8.
    #[error("invalid UTF-8 at byte {0} of the line")]
    Utf8(usize),
    /// The keys match none of the known forms.
    #[error(
        "has {0}; a row has `text`; `messages`; `prompt` and `completion`; `prompt`, `chosen` and `rejected`; \
         `instruction` and `output`; or `conversations`"
    )]
    Form(String),
    /// The value of a key is invalid.
    #[error("`{key}` {problem}")]
    Value {
        /// Name of the key.
        key: &'static str,
        /// Description of the fault, a predicate.
        problem: String,
    },
}

fn fault(key: &'static str, problem: impl Into<String>) -> RowError {
    RowError::Value { key, problem: problem.into() }
}

/// The keys that identify a form, and its parser. The first form that matches is used.
type Form = (&'static [&'static str], fn(&Map<String, Value>) -> Result<TrainingRow, RowError>);

const FORMS: &[Form] = &[
    (&["instruction", "chosen", "rejected"], alpaca_preference),
    (&["conversations", "chosen", "rejected"], sharegpt_preference),
    (&["prompt", "chosen", "rejected"], preference),
    (&["chosen", "rejected"], implicit_preference),
    (&["prompt", "completion"], completion),
    (&["instruction", "output"], alpaca),
    (&["messages"], |row| chat(messages(row, "messages")?, 0)),
    (&["conversations"], |row| chat(sharegpt(row)?, 0)),
    (&["text"], |row| Ok(TrainingRow::Text(text(row, "text")?))),
];

impl TrainingRow {
    /// Parses a row.
    ///
    /// # Errors
    /// [`RowError`] names the key at fault.
    ///
    /// ```
    /// use wsd_train::data::TrainingRow;
    /// let row = TrainingRow::parse(r#"{"prompt": "2 + 2 =", "completion": " 4"}"#)?;
    /// assert_eq!(row, TrainingRow::Completion { prompt: "2 + 2 =".into(), completion: " 4".into() });
    /// # Ok::<(), wsd_train::data::RowError>(())
    /// ```
    pub fn parse(row: &str) -> Result<Self, RowError> {
        let row: Map<String, Value> = serde_json::from_str(row)?;
        let form =
            FORMS.iter().find(|(keys, _)| keys.iter().all(|key| row.get(*key).is_some_and(|value| !value.is_null())));
        match form {
            Some((_, read)) => read(&row),
            None if row.is_empty() => Err(RowError::Form("no key".into())),
            None => Err(RowError::Form(row.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "))),
        }
    }
}

fn text(row: &Map<String, Value>, key: &'static str) -> Result<String, RowError> {
    match row.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::String(_)) => Err(fault(key, "is empty")),
        _ => Err(fault(key, "must be a text")),
    }
}

fn optional_text(row: &Map<String, Value>, key: &'static str) -> Result<Option<String>, RowError> {
    match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(fault(key, "must be a text")),
    }
}

/// Parses a list of messages; a single message is accepted without a list.
fn messages(row: &Map<String, Value>, key: &'static str) -> Result<Vec<Message>, RowError> {
    let value = match row.get(key) {
        Some(message @ Value::Object(_)) => Value::Array(vec![message.clone()]),
        value => value.cloned().unwrap_or_default(),
    };
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        return Err(fault(key, "must be a list of messages"));
    }
    list.iter().map(|message| one_message(message, key)).collect()
}

/// Parses `role` and `content`, or ShareGPT's `from` and `value`.
fn one_message(message: &Value, key: &'static str) -> Result<Message, RowError> {
    let (who, what) = if message.get("from").is_some() { ("from", "value") } else { ("role", "content") };
    let role = message.get(who).and_then(Value::as_str).unwrap_or_default();
    let role = match role {
        "user" | "human" => ChatRole::User,
        "assistant" | "gpt" => ChatRole::Assistant,
        "system" | "developer" => ChatRole::System,
        other => {
            return Err(fault(key, format!("has a message of `{other}`: the role must be user, assistant or system")));
        }
    };
    match message.get(what) {
        Some(Value::String(content)) => Ok(Message::new(role, content.as_str())),
        _ => Err(fault(key, format!("has a message of the {role} whose `{what}` is not a text"))),
    }
}

fn chat(messages: Vec<Message>, learned_from: usize) -> Result<TrainingRow, RowError> {
    let answers = messages.iter().skip(learned_from).any(|message| message.role == ChatRole::Assistant);
    if answers {
        Ok(TrainingRow::Chat { messages, learned_from })
    } else {
        Err(fault("messages", "has no assistant message"))
    }
}

/// Parses a prompt and its continuation: both text, or both messages.
fn continued(row: &Map<String, Value>, key: &'static str) -> Result<TrainingRow, RowError> {
    if row.get("prompt").is_some_and(Value::is_string) {
        return Ok(TrainingRow::Completion { prompt: text(row, "prompt")?, completion: text(row, key)? });
    }
    let mut all = messages(row, "prompt")?;
    let learned_from = all.len();
    all.extend(messages(row, key)?);
    chat(all, learned_from)
}

fn completion(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    continued(row, "completion")
}

fn pair(chosen: TrainingRow, rejected: TrainingRow) -> Result<TrainingRow, RowError> {
    if chosen == rejected {
        return Err(fault("rejected", "is the same as `chosen`"));
    }
    Ok(TrainingRow::Preference(Box::new(PreferencePair { chosen, rejected })))
}

fn preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    // Some files hold whole conversations next to the text of the prompt.
    let conversations = ["chosen", "rejected"].iter().all(|key| row[*key].is_array());
    if conversations && row["prompt"].is_string() {
        implicit_preference(row)
    } else {
        pair(continued(row, "chosen")?, continued(row, "rejected")?)
    }
}

/// Parses two conversations; their common prefix is the prompt.
fn implicit_preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let (chosen, rejected) = (messages(row, "chosen")?, messages(row, "rejected")?);
    let shared = common_prefix(&chosen, &rejected);
    pair(chat(chosen, shared)?, chat(rejected, shared)?)
}

/// Parses LLaMA-Factory's `system`, `history`, `instruction` and `input`.
fn alpaca_prompt(row: &Map<String, Value>) -> Result<Vec<Message>, RowError> {
    let mut messages = Vec::new();
    messages.extend(optional_text(row, "system")?.map(|system| Message::new(ChatRole::System, system)));
    for round in row.get("history").and_then(Value::as_array).into_iter().flatten() {
        let text = |side: usize| round.get(side).and_then(Value::as_str);
        let (Some(question), Some(answer)) = (text(0), text(1)) else {
            return Err(fault("history", "must be a list of pairs of texts"));
        };
        messages.extend([Message::new(ChatRole::User, question), Message::new(ChatRole::Assistant, answer)]);
    }
    let instruction = text(row, "instruction")?;
    let question = match optional_text(row, "input")? {
        Some(input) => format!("{instruction}\n{input}"),
        None => instruction,
    };
    messages.push(Message::new(ChatRole::User, question));
    Ok(messages)
}

fn answered(mut messages: Vec<Message>, answer: String) -> Result<TrainingRow, RowError> {
    let learned_from = messages.len();
    messages.push(Message::new(ChatRole::Assistant, answer));
    chat(messages, learned_from)
}

fn alpaca(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    answered(alpaca_prompt(row)?, text(row, "output")?)
}

fn alpaca_preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let prompt = alpaca_prompt(row)?;
    pair(answered(prompt.clone(), text(row, "chosen")?)?, answered(prompt, text(row, "rejected")?)?)
}

fn sharegpt(row: &Map<String, Value>) -> Result<Vec<Message>, RowError> {
    let system = optional_text(row, "system")?.map(|system| Message::new(ChatRole::System, system));
    Ok(system.into_iter().chain(messages(row, "conversations")?).collect())
}

fn sharegpt_preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let prompt = sharegpt(row)?;
    let side = |key| chat([prompt.clone(), messages(row, key)?].concat(), prompt.len());
    pair(side("chosen")?, side("rejected")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat_of(messages: &[(ChatRole, &str)], learned_from: usize) -> TrainingRow {
        let messages = messages.iter().map(|(role, content)| Message::new(*role, *content)).collect();
        TrainingRow::Chat { messages, learned_from }
    }

    #[test]
    fn every_form_is_read() {
        use ChatRole::{Assistant, System, User};
        let completion = |prompt: &str, completion: &str| TrainingRow::Completion {
            prompt: prompt.into(),
            completion: completion.into(),
        };
        let pair = |chosen, rejected| TrainingRow::Preference(Box::new(PreferencePair { chosen, rejected }));
        let hi = |answer, from| chat_of(&[(User, "Hi"), (Assistant, answer)], from);
        for (text, row) in [
            (r#"{"text": "a"}"#, TrainingRow::Text("a".into())),
            (
                r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}"#,
                hi("Yo", 0),
            ),
            (r#"{"prompt": "a", "completion": "b"}"#, completion("a", "b")),
            (
                r#"{"prompt": [{"role": "user", "content": "Hi"}],
                    "completion": [{"role": "assistant", "content": "Yo"}]}"#,
                hi("Yo", 1),
            ),
            (r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#, pair(completion("a", "b"), completion("a", "c"))),
            (
                r#"{"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
                    "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}]}"#,
                pair(hi("Yo", 1), hi("No", 1)),
            ),
            (
                r#"{"system": "S", "instruction": "Hi", "input": "there", "output": "Yo", "history": [["a", "b"]]}"#,
                chat_of(&[(System, "S"), (User, "a"), (Assistant, "b"), (User, "Hi\nthere"), (Assistant, "Yo")], 4),
            ),
            (r#"{"instruction": "Hi", "input": "", "chosen": "Yo", "rejected": "No"}"#, pair(hi("Yo", 1), hi("No", 1))),
            (
                r#"{"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Yo"},
                    "rejected": {"from": "gpt", "value": "No"}}"#,
                pair(hi("Yo", 1), hi("No", 1)),
            ),
        ] {
            assert_eq!(TrainingRow::parse(text).unwrap(), row, "{text}");
        }
    }

    #[test]
    fn faults_name_the_key() {
        for (row, want) in [
            ("[]", "not a JSON object: invalid type: sequence, expected a map at line 1 column 0"),
            (r#"{"question": "?"}"#, "has `question`; a row has `text`;"),
            (r#"{"text": ""}"#, "`text` is empty"),
            (r#"{"prompt": "a", "completion": 3}"#, "`completion` must be a text"),
            (r#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#, "`rejected` is the same as `chosen`"),
            (r#"{"messages": [{"role": "user", "content": "Hi"}]}"#, "`messages` has no assistant message"),
            (r#"{"messages": [{"role": "tool", "content": "Hi"}]}"#, "`messages` has a message of `tool`"),
            (r#"{"messages": [{"role": "user", "content": 1}]}"#, "whose `content` is not a text"),
            (r#"{"messages": []}"#, "`messages` must be a list of messages"),
        ] {
            let error = TrainingRow::parse(row).unwrap_err().to_string();
            assert!(error.contains(want), "{row}: {error}");
        }
    }
}
