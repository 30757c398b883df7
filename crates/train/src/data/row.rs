//! One row of a training file.

use serde_json::{Map, Value};
use wsd_core::{ChatRole, Message, Prompt, common_prefix};

/// Content of a training row.
#[derive(Clone, Debug, PartialEq)]
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
        /// Ascending indices of the messages of the assistant that are targets, at least one.
        targets: Vec<usize>,
    },
    /// A chosen and a rejected answer to the same prompt: `prompt`, `chosen` and `rejected`.
    Preference(Box<PreferencePair>),
    /// An answer that is wanted or unwanted: `prompt`, `completion` and `label`.
    Labelled {
        /// The prompt and the answer.
        answer: Box<TrainingRow>,
        /// True for a wanted answer.
        wanted: bool,
    },
    /// The steps of an answer, each with a label: `prompt`, `completions` and `labels`.
    Steps {
        /// A text or a conversation.
        prompt: Prompt,
        /// Steps, each of which a blank line ends.
        steps: Vec<String>,
        /// Labels of the steps, from 0 for wrong to 1 for right.
        labels: Vec<f32>,
    },
}

/// Two answers to the same prompt, each with the prompt.
#[derive(Clone, Debug, PartialEq)]
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
        "has {0}; a row has `text`; `messages`; `prompt` and `completion`, with or without `label`; `prompt`, `chosen` \
         and `rejected`; `prompt`, `completions` and `labels`; `instruction` and `output`; `prompt` or `messages` with \
         `output`; or `conversations`"
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
    (&["prompt", "completion", "label"], labelled),
    (&["prompt", "completions", "labels"], steps),
    (&["prompt", "completion"], completion),
    (&["instruction", "output"], alpaca),
    (&["messages", "chosen", "output"], generated_preference),
    (&["prompt", "chosen", "output"], generated_preference),
    (&["messages", "output"], generated),
    (&["prompt", "output"], generated),
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
            Some((_, parse)) => parse(&row),
            None if row.is_empty() => Err(RowError::Form("no key".into())),
            None => Err(RowError::Form(row.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "))),
        }
    }
}

/// Returns the text of a key, which must not be empty.
fn text(row: &Map<String, Value>, key: &'static str) -> Result<String, RowError> {
    match row.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::String(_)) => Err(fault(key, "is empty")),
        _ => Err(fault(key, "must be a text")),
    }
}

/// Returns the text of a key; `None` if it is absent, null or empty.
fn optional_text(row: &Map<String, Value>, key: &'static str) -> Result<Option<String>, RowError> {
    match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(fault(key, "must be a text")),
    }
}

/// A message of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RowMessage {
    message: Message,
    /// The message may be a target: its `weight` is not 0.
    is_learned: bool,
}

/// Parses a list of messages; a single message is accepted without a list.
fn messages(row: &Map<String, Value>, key: &'static str) -> Result<Vec<RowMessage>, RowError> {
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
fn one_message(message: &Value, key: &'static str) -> Result<RowMessage, RowError> {
    let (role_key, text_key) = if message.get("from").is_some() { ("from", "value") } else { ("role", "content") };
    let role = message.get(role_key).and_then(Value::as_str).unwrap_or_default();
    let role = match role {
        "user" | "human" => ChatRole::User,
        "assistant" | "gpt" => ChatRole::Assistant,
        "system" | "developer" => ChatRole::System,
        other => {
            return Err(fault(key, format!("has a message of `{other}`: the role must be user, assistant or system")));
        }
    };
    let Some(content) = message.get(text_key).and_then(Value::as_str) else {
        return Err(fault(key, format!("has a message of the {role} whose `{text_key}` is not a text")));
    };
    // As in OpenAI's format for fine-tuning.
    let is_learned = match message.get("weight").filter(|weight| !weight.is_null()).map(Value::as_f64) {
        None | Some(Some(1.0)) => true,
        Some(Some(0.0)) => false,
        Some(_) => {
            let weight = &message["weight"];
            return Err(fault(key, format!("has a message of the {role} whose `weight` must be 0 or 1, got {weight}")));
        }
    };
    Ok(RowMessage { message: Message::new(role, content), is_learned })
}

/// Makes a conversation whose targets are the assistant's messages from index `from` on that are
/// learned, of which there must be one.
fn chat(messages: Vec<RowMessage>, from: usize) -> Result<TrainingRow, RowError> {
    let is_target = |message: &RowMessage| message.is_learned && message.message.role == ChatRole::Assistant;
    let targets: Vec<_> = (from..messages.len()).filter(|&index| is_target(&messages[index])).collect();
    if targets.is_empty() {
        return Err(fault("messages", "has no assistant message to learn"));
    }
    Ok(TrainingRow::Chat { messages: messages.into_iter().map(|message| message.message).collect(), targets })
}

fn learned(role: ChatRole, content: impl Into<String>) -> RowMessage {
    RowMessage { message: Message::new(role, content), is_learned: true }
}

/// Parses `prompt` and its continuation under `key`: both texts, or both lists of messages.
fn prompt_and(row: &Map<String, Value>, key: &'static str) -> Result<TrainingRow, RowError> {
    if row.get("prompt").is_some_and(Value::is_string) {
        return Ok(TrainingRow::Completion { prompt: text(row, "prompt")?, completion: text(row, key)? });
    }
    let mut all = messages(row, "prompt")?;
    let from = all.len();
    all.extend(messages(row, key)?);
    chat(all, from)
}

fn completion(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    prompt_and(row, "completion")
}

/// Parses `prompt` and `completion` with `label`, which is true or false.
fn labelled(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let wanted = match &row["label"] {
        Value::Bool(wanted) => *wanted,
        label if label.as_f64() == Some(1.0) => true,
        label if label.as_f64() == Some(0.0) => false,
        label => return Err(fault("label", format!("must be true or false, got {label}"))),
    };
    Ok(TrainingRow::Labelled { answer: Box::new(completion(row)?), wanted })
}

/// Parses `prompt` with `completions`, the steps of an answer, and `labels`, a number from 0 to 1
/// or true or false for each.
fn steps(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let steps = row["completions"].as_array().into_iter().flatten();
    let steps: Option<Vec<String>> =
        steps.map(|step| Some(step.as_str()?.trim().to_owned()).filter(|step| !step.is_empty())).collect();
    let steps = steps.filter(|steps| !steps.is_empty());
    let steps = steps.ok_or_else(|| fault("completions", "must be a list of texts that are not empty"))?;
    let label = |label: &Value| match label {
        Value::Bool(is_right) => Some(f32::from(u8::from(*is_right))),
        label => label.as_f64().map(|label| label as f32).filter(|label| (0.0..=1.0).contains(label)),
    };
    let labels: Option<Vec<f32>> = row["labels"].as_array().into_iter().flatten().map(label).collect();
    let labels = labels.filter(|labels| labels.len() == steps.len()).ok_or_else(|| {
        let limit = "must be a list of true or false, or of numbers from 0 to 1, one for each of";
        fault("labels", format!("{limit} the {} `completions`", steps.len()))
    })?;
    let prompt = if row["prompt"].is_string() {
        Prompt::Raw(text(row, "prompt")?)
    } else {
        Prompt::Chat(messages(row, "prompt")?.into_iter().map(|message| message.message).collect())
    };
    Ok(TrainingRow::Steps { prompt, steps, labels })
}

/// Parses the prompt of a row that `wsd generate` has answered: `messages`, or `prompt`, which as a
/// text is a message of the user.
fn generated_prompt(row: &Map<String, Value>) -> Result<Vec<RowMessage>, RowError> {
    match row.get("prompt") {
        Some(Value::String(_)) => Ok(vec![learned(ChatRole::User, text(row, "prompt")?)]),
        Some(_) => messages(row, "prompt"),
        None => messages(row, "messages"),
    }
}

/// Parses a prompt and `output`, the answer that `wsd generate` wrote.
fn generated(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    answered(generated_prompt(row)?, text(row, "output")?)
}

/// Parses a prompt with `chosen`, a text, and `output`, which counts as rejected.
fn generated_preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let prompt = generated_prompt(row)?;
    let (chosen, rejected) = (text(row, "chosen")?, text(row, "output")?);
    if chosen.trim() == rejected.trim() {
        return Err(fault("output", "is the same as `chosen`"));
    }
    pair(answered(prompt.clone(), chosen)?, answered(prompt, rejected)?)
}

/// Makes a preference of two different answers.
fn pair(chosen: TrainingRow, rejected: TrainingRow) -> Result<TrainingRow, RowError> {
    if chosen == rejected {
        return Err(fault("rejected", "is the same as `chosen`"));
    }
    Ok(TrainingRow::Preference(Box::new(PreferencePair { chosen, rejected })))
}

/// Parses `prompt`, `chosen` and `rejected`.
fn preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    // In some files `chosen` and `rejected` are whole conversations, and `prompt` repeats their first
    // message as a text.
    let conversations = ["chosen", "rejected"].iter().all(|key| row[*key].is_array());
    if conversations && row["prompt"].is_string() {
        implicit_preference(row)
    } else {
        pair(prompt_and(row, "chosen")?, prompt_and(row, "rejected")?)
    }
}

/// Parses `chosen` and `rejected` as whole conversations, whose common prefix is the prompt.
fn implicit_preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let (chosen, rejected) = (messages(row, "chosen")?, messages(row, "rejected")?);
    let prompt_len = common_prefix(&chosen, &rejected);
    for (key, messages) in [("chosen", &chosen), ("rejected", &rejected)] {
        let answers = |message: &RowMessage| message.message.role == ChatRole::Assistant;
        if prompt_len == 0 || !messages.get(prompt_len).is_none_or(answers) {
            let problem = "must answer the same messages as the other conversation, up to one of the assistant";
            return Err(fault(key, format!("{problem}; they differ at message {}", prompt_len + 1)));
        }
    }
    pair(chat(chosen, prompt_len)?, chat(rejected, prompt_len)?)
}

/// Parses the prompt of an Alpaca row: `instruction` and `input`, with LLaMA-Factory's `system` and
/// `history`, which is a list of pairs of a question and its answer.
fn alpaca_prompt(row: &Map<String, Value>) -> Result<Vec<RowMessage>, RowError> {
    let mut messages = Vec::new();
    messages.extend(optional_text(row, "system")?.map(|system| learned(ChatRole::System, system)));
    for round in row.get("history").and_then(Value::as_array).into_iter().flatten() {
        let text = |index: usize| round.get(index).and_then(Value::as_str);
        let (Some(question), Some(answer)) = (text(0), text(1)) else {
            return Err(fault("history", "must be a list of pairs of texts"));
        };
        messages.extend([learned(ChatRole::User, question), learned(ChatRole::Assistant, answer)]);
    }
    let instruction = text(row, "instruction")?;
    let question = match optional_text(row, "input")? {
        Some(input) => format!("{instruction}\n{input}"),
        None => instruction,
    };
    messages.push(learned(ChatRole::User, question));
    Ok(messages)
}

/// Makes a conversation of a prompt and an answer, which is the only target.
fn answered(mut messages: Vec<RowMessage>, answer: String) -> Result<TrainingRow, RowError> {
    let from = messages.len();
    messages.push(learned(ChatRole::Assistant, answer));
    chat(messages, from)
}

fn alpaca(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    answered(alpaca_prompt(row)?, text(row, "output")?)
}

fn alpaca_preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let prompt = alpaca_prompt(row)?;
    pair(answered(prompt.clone(), text(row, "chosen")?)?, answered(prompt, text(row, "rejected")?)?)
}

/// Parses `system` and ShareGPT's `conversations` as messages.
fn sharegpt(row: &Map<String, Value>) -> Result<Vec<RowMessage>, RowError> {
    let system = optional_text(row, "system")?.map(|system| learned(ChatRole::System, system));
    Ok(system.into_iter().chain(messages(row, "conversations")?).collect())
}

fn sharegpt_preference(row: &Map<String, Value>) -> Result<TrainingRow, RowError> {
    let prompt = sharegpt(row)?;
    let answered = |key| chat([prompt.clone(), messages(row, key)?].concat(), prompt.len());
    pair(answered("chosen")?, answered("rejected")?)
}

#[cfg(test)]
mod tests;
