//! The table of forms in which data sets write prompts and answers.

use std::collections::BTreeMap;

use serde_json::Value;
use wsd_core::{ChatRole, Message, common_prefix};
use wsd_eval::{Row, SourceError, transcript};

use crate::Answer;

/// Name of the scores that a data set gives its own answers.
pub const GIVEN: &str = "given";

/// A prompt and the answers that its row has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// The conversation; its last message is a person's.
    pub messages: Vec<Message>,
    /// Answers, those of a preference with scores.
    pub answers: Vec<Answer>,
}

/// A form of rows.
pub struct Form {
    /// Name on the command line.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// Keys that a row of this form has.
    keys: &'static [&'static str],
    read: fn(&Row) -> Result<Content, SourceError>,
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every form. A row is of the first one whose keys it has.
pub static FORMS: &[Form] = &[
    Form {
        name: "ultrafeedback",
        about: "`instruction` and `completions` with `response` and a score (UltraFeedback)",
        keys: &["instruction", "completions"],
        read: completions,
    },
    Form {
        name: "alpaca_preference",
        about: "`instruction`, `input`, `chosen`, `rejected`",
        keys: &["instruction", "chosen", "rejected"],
        read: |row| preference(row, instruction(row)?),
    },
    Form {
        name: "sharegpt_preference",
        about: "`conversations`, `chosen`, `rejected`",
        keys: &["conversations", "chosen", "rejected"],
        read: |row| preference(row, messages(row, "conversations")?),
    },
    Form {
        name: "preference",
        about: "`prompt`, `chosen`, `rejected`, as texts or as messages (UltraFeedback binarized, TRL)",
        keys: &["prompt", "chosen", "rejected"],
        read: explicit_preference,
    },
    Form {
        name: "hh",
        about: "`chosen` and `rejected` as whole dialogs, of which the prompt is the common part (HH-RLHF, TRL)",
        keys: &["chosen", "rejected"],
        read: implicit_preference,
    },
    Form {
        name: "sharegpt",
        about: "`conversations` with `from` and `value`",
        keys: &["conversations"],
        read: |row| Ok(conversation(messages(row, "conversations")?)),
    },
    Form {
        name: "messages",
        about: "`messages` with `role` and `content`",
        keys: &["messages"],
        read: |row| Ok(conversation(messages(row, "messages")?)),
    },
    Form {
        name: "alpaca",
        about: "`instruction`, `input`, `output` (Alpaca, AlpacaEval)",
        keys: &["instruction"],
        read: |row| answered(row, instruction(row)?, &["output"]),
    },
    Form {
        name: "prompt",
        about: "`prompt`, and `completion` or `response` if there is one",
        keys: &["prompt"],
        read: |row| answered(row, prompt(row, "prompt")?, &["completion", "response"]),
    },
    Form {
        name: "question",
        about: "`question`, and `answer` if there is one",
        keys: &["question"],
        read: |row| answered(row, prompt(row, "question")?, &["answer"]),
    },
];

impl Form {
    /// Finds a form by name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        FORMS.iter().find(|form| form.name == name)
    }

    /// The form of a row: the first one whose keys it has.
    ///
    /// # Errors
    /// [`SourceError::Row`] with the keys that the row has.
    pub fn of(row: &Row) -> Result<&'static Self, SourceError> {
        let has = |key: &&str| row.fields().get(*key).is_some_and(|value| !value.is_null());
        FORMS.iter().find(|form| form.keys.iter().all(has)).ok_or_else(|| {
            let keys: Vec<_> = row.fields().keys().map(String::as_str).collect();
            row.fault(format!(
                "no key of a prompt among: {}\n  hint: name it with --prompt-key",
                if keys.is_empty() { "none".into() } else { keys.join(", ") }
            ))
        })
    }

    /// Reads a row of this form.
    ///
    /// ```
    /// use wsd_data::forms::Form;
    /// let row = wsd_eval::Source::of("a.jsonl", r#"{"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}"#);
    /// let row = &row.rows()?[0];
    /// let content = Form::of(row)?.content(row)?;
    /// assert_eq!((content.messages[0].content.as_str(), content.answers[1].scores["given"]), ("Hi", 0.0));
    /// # Ok::<(), wsd_eval::SourceError>(())
    /// ```
    ///
    /// # Errors
    /// [`SourceError::Row`] names the key at fault.
    pub fn content(&self, row: &Row) -> Result<Content, SourceError> {
        let content = (self.read)(row)?;
        let is_prompt = content.messages.last().is_some_and(|last| last.role == ChatRole::User);
        if !is_prompt || content.messages.iter().any(|message| message.content.trim().is_empty()) {
            return Err(row.fault("the prompt must end with a person's message, and no message may be empty"));
        }
        Ok(content)
    }
}

/// The prompt of a row under a key that no form names.
///
/// # Errors
/// [`SourceError::Row`] for a missing key, or a value that is neither a text nor messages.
pub fn of_key(row: &Row, key: &str) -> Result<Content, SourceError> {
    Ok(conversation(prompt(row, key)?))
}

/// A text as one message of a person, or a list of messages.
fn prompt(row: &Row, key: &str) -> Result<Vec<Message>, SourceError> {
    match row.value(key)? {
        Value::String(text) => Ok(vec![Message::new(ChatRole::User, text.trim())]),
        _ => messages(row, key),
    }
}

/// Messages with `role` and `content`, or ShareGPT's `from` and `value`; a single one needs no list.
/// A text of CSV or of HH is a dialog of turns.
fn messages(row: &Row, key: &str) -> Result<Vec<Message>, SourceError> {
    let value = row.value(key)?;
    let list = match value {
        Value::Array(list) => list.as_slice(),
        Value::Object(_) => std::slice::from_ref(value),
        _ => return Err(row.fault(format!("`{key}` must be a text or a list of messages"))),
    };
    let system = row.fields().get("system").and_then(Value::as_str).filter(|text| !text.is_empty());
    let system = system.filter(|_| key == "conversations").map(|text| Ok(Message::new(ChatRole::System, text)));
    system.into_iter().chain(list.iter().map(|message| one_message(row, key, message))).collect()
}

fn one_message(row: &Row, key: &str, message: &Value) -> Result<Message, SourceError> {
    let (role_key, text_key) = if message.get("from").is_some() { ("from", "value") } else { ("role", "content") };
    let role = match message.get(role_key).and_then(Value::as_str).unwrap_or_default() {
        "user" | "human" => ChatRole::User,
        "assistant" | "gpt" | "chatgpt" => ChatRole::Assistant,
        "system" | "developer" => ChatRole::System,
        other => {
            return Err(row.fault(format!("`{key}` has a message of `{other}`: must be user, assistant or system")));
        }
    };
    match message.get(text_key).and_then(Value::as_str) {
        Some(text) => Ok(Message::new(role, text.trim())),
        None => Err(row.fault(format!("`{key}` has a message whose `{text_key}` is not a text"))),
    }
}

/// `instruction` with its `input`, `system` and `history`.
fn instruction(row: &Row) -> Result<Vec<Message>, SourceError> {
    let text = |key: &str| row.fields().get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let mut messages: Vec<_> = text("system").map(|text| Message::new(ChatRole::System, text)).into_iter().collect();
    for round in row.fields().get("history").and_then(Value::as_array).into_iter().flatten() {
        let at = |index: usize| round.get(index).and_then(Value::as_str);
        let (Some(question), Some(answer)) = (at(0), at(1)) else {
            return Err(row.fault("`history` must be a list of pairs of texts"));
        };
        messages.extend([Message::new(ChatRole::User, question), Message::new(ChatRole::Assistant, answer)]);
    }
    let question = [Some(row.text("instruction")?.trim()), text("input")];
    let question = question.into_iter().flatten().collect::<Vec<_>>().join("\n");
    messages.push(Message::new(ChatRole::User, question));
    Ok(messages)
}

/// A conversation whose last messages, if they are the assistant's, are an answer.
fn conversation(mut messages: Vec<Message>) -> Content {
    let end = messages.iter().rposition(|message| message.role != ChatRole::Assistant).map_or(0, |at| at + 1);
    let answers = joined(&messages.split_off(end));
    let answer = |output| Answer { by: "data".into(), output, ..Answer::default() };
    Content { messages, answers: answers.map(answer).into_iter().collect() }
}

/// A prompt with the answer under the first of `keys` that has one.
fn answered(row: &Row, messages: Vec<Message>, keys: &[&str]) -> Result<Content, SourceError> {
    let mut content = conversation(messages);
    let text = |key: &&str| row.fields().get(*key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    if let Some((key, output)) = keys.iter().find_map(|key| Some((key, text(key)?))) {
        let (by, output) = ((*key).to_owned(), output.trim().to_owned());
        content.answers.push(Answer { by, output, ..Answer::default() });
    }
    Ok(content)
}

/// The text of an answer of one or several consecutive messages of the assistant; `None` for others.
fn joined(messages: &[Message]) -> Option<String> {
    let is_answer = !messages.is_empty() && messages.iter().all(|message| message.role == ChatRole::Assistant);
    let texts = messages.iter().map(|message| message.content.as_str());
    is_answer.then(|| texts.collect::<Vec<_>>().join("\n\n"))
}

/// Two answers to a prompt, as texts or as messages.
fn preference(row: &Row, prompt: Vec<Message>) -> Result<Content, SourceError> {
    let answer = |key: &str| match row.value(key)? {
        Value::String(text) => Ok(text.trim().to_owned()),
        _ => joined(&messages(row, key)?).ok_or_else(|| row.fault(format!("`{key}` must be an answer"))),
    };
    Ok(ranked(row, prompt, [answer("chosen")?, answer("rejected")?]))
}

/// A preference with a prompt. In some files `chosen` and `rejected` are whole conversations, and
/// `prompt` repeats their first message.
fn explicit_preference(row: &Row) -> Result<Content, SourceError> {
    let is_whole = |key: &str| row.fields().get(key).and_then(Value::as_array).is_some_and(|list| list.len() > 1);
    if is_whole("chosen") && is_whole("rejected") {
        return implicit_preference(row);
    }
    preference(row, prompt(row, "prompt")?)
}

/// Two whole dialogs, as texts of turns or as messages.
fn implicit_preference(row: &Row) -> Result<Content, SourceError> {
    let dialog = |key: &str| match row.value(key)? {
        Value::String(text) => transcript(text)
            .ok_or_else(|| row.fault(format!("`{key}` must be a dialog of turns `Human:` and `Assistant:`"))),
        _ => messages(row, key),
    };
    let (mut chosen, mut rejected) = (dialog("chosen")?, dialog("rejected")?);
    let shared = common_prefix(&chosen, &rejected);
    let shared = chosen[..shared].iter().rposition(|message| message.role == ChatRole::User).map_or(0, |at| at + 1);
    let answers = (joined(&chosen.split_off(shared)), joined(&rejected.split_off(shared)));
    let (Some(chosen_answer), Some(rejected_answer)) = answers else {
        return Err(row.fault("the dialogs must differ only after the last message of the person"));
    };
    Ok(ranked(row, chosen, [chosen_answer, rejected_answer]))
}

/// Answers with the scores that the row has for them, or 1 and 0.
fn ranked(row: &Row, messages: Vec<Message>, outputs: [String; 2]) -> Content {
    let score = |key: &str| {
        let keys = [format!("score_{key}"), format!("{key}_score"), format!("{key}-rating"), format!("{key}_rating")];
        keys.iter().find_map(|key| row.fields().get(key).and_then(Value::as_f64))
    };
    let scores = match (score("chosen"), score("rejected")) {
        (Some(chosen), Some(rejected)) => [chosen, rejected],
        _ => [1.0, 0.0],
    };
    let answers = ["chosen", "rejected"].into_iter().zip(outputs).zip(scores);
    let answer = |((by, output), score): ((&str, String), f64)| Answer {
        by: by.to_owned(),
        output,
        scores: BTreeMap::from([(GIVEN.to_owned(), score)]),
        ..Answer::default()
    };
    Content { messages, answers: answers.map(answer).collect() }
}

/// UltraFeedback's answers of several models with the annotator's scores.
fn completions(row: &Row) -> Result<Content, SourceError> {
    let fault = || row.fault("`completions` must be a list of objects with `response`");
    let list = row.value("completions")?.as_array().ok_or_else(fault)?;
    let answer = |completion: &Value| {
        let text = |key: &str| completion.get(key).and_then(Value::as_str);
        let score =
            ["overall_score", "fine-grained_score", "score"].iter().find_map(|key| number(completion.get(*key)));
        Some(Answer {
            by: text("model").unwrap_or("data").to_owned(),
            output: text("response")?.trim().to_owned(),
            scores: score.map(|score| (GIVEN.to_owned(), score)).into_iter().collect(),
            ..Answer::default()
        })
    };
    let answers = list.iter().map(answer).collect::<Option<_>>().ok_or_else(fault)?;
    Ok(Content { messages: instruction(row)?, answers })
}

/// A number, also one that is written as a text.
fn number(value: Option<&Value>) -> Option<f64> {
    value?.as_f64().or_else(|| value?.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_eval::Source;

    fn content(line: &str) -> Result<(&'static str, Content), String> {
        let rows = Source::of("a", line).rows().unwrap();
        let form = Form::of(&rows[0]).map_err(|error| error.to_string())?;
        Ok((form.name, form.content(&rows[0]).map_err(|error| error.to_string())?))
    }

    #[test]
    fn every_form_is_read() {
        let dialog = |end: &str| format!("\\n\\nHuman: Hi\\n\\nAssistant: Yes?\\n\\nHuman: How?\\n\\nAssistant: {end}");
        let hh = format!(r#"{{"chosen": "{}", "rejected": "{}"}}"#, dialog("So."), dialog("No.\\n\\nAssistant: Go."));
        for (line, name, messages, answers) in [
            (hh.as_str(), "hh", vec!["Hi", "Yes?", "How?"], vec![("chosen", "So."), ("rejected", "No.\n\nGo.")]),
            (
                r#"{"instruction": "Fix", "input": "teh", "output": "the", "chosen": "the", "rejected": "THE"}"#,
                "alpaca_preference",
                vec!["Fix\nteh"],
                vec![("chosen", "the"), ("rejected", "THE")],
            ),
            (r#"{"instruction": "Say", "output": "", "generator": "x"}"#, "alpaca", vec!["Say"], vec![]),
            (r#"{"instruction": "Say", "output": "Yo"}"#, "alpaca", vec!["Say"], vec![("output", "Yo")]),
            (
                r#"{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt","value": "Y"}], "system":"S"}"#,
                "sharegpt",
                vec!["S", "Hi"],
                vec![("data", "Y")],
            ),
            (
                r#"{"prompt": "Hi", "chosen": [{"role": "assistant", "content": "Yo"}], "rejected": "No"}"#,
                "preference",
                vec!["Hi"],
                vec![("chosen", "Yo"), ("rejected", "No")],
            ),
            (
                r#"{"instruction": "Say", "completions": [{"model": "m", "response": "Yo", "overall_score": "7.5"}]}"#,
                "ultrafeedback",
                vec!["Say"],
                vec![("m", "Yo")],
            ),
            (r#"{"question": "2 + 2?", "answer": "4"}"#, "question", vec!["2 + 2?"], vec![("answer", "4")]),
        ] {
            let (found, content) = content(line).unwrap();
            let texts: Vec<_> = content.messages.iter().map(|message| message.content.as_str()).collect();
            let written: Vec<_> = content.answers.iter().map(|a| (a.by.as_str(), a.output.as_str())).collect();
            assert_eq!((found, texts, written), (name, messages, answers), "{line}");
        }
    }

    #[test]
    fn scores_of_the_data_set_are_kept() {
        let row = r#"{"prompt": "Hi", "chosen": "Yo", "rejected": "No", "score_chosen": 8.5, "score_rejected": 3}"#;
        let (_, found) = content(row).unwrap();
        assert_eq!(found.answers.iter().map(|answer| answer.scores[GIVEN]).collect::<Vec<_>>(), [8.5, 3.0]);
    }

    #[test]
    fn faults_name_the_key() {
        for (line, want) in [
            (r#"{"query": "?"}"#, "a:1: no key of a prompt among: query\n  hint: name it with --prompt-key"),
            (r#"{"prompt": ""}"#, "a:1: the prompt must end with a person's message, and no message may be empty"),
            (r#"{"messages": [{"role": "tool", "content": ""}]}"#, "a:1: `messages` has a message of `tool`: must be"),
            (r#"{"chosen": "Hi", "rejected": "Ho"}"#, "a:1: `chosen` must be a dialog of turns"),
        ] {
            let found = content(line).unwrap_err();
            assert!(found.starts_with(want), "{found}");
        }
    }

    #[test]
    fn a_named_form_refuses_rows_without_its_keys() {
        let rows = Source::of("a", r#"{"prompt": "Hi"}"#).rows().unwrap();
        for form in FORMS {
            let read = form.content(&rows[0]);
            assert!(read.is_ok() || read.unwrap_err().to_string().contains('`'), "{}", form.name);
        }
        let error = Form::find("preference").unwrap().content(&rows[0]).unwrap_err().to_string();
        assert!(error.contains("`chosen`"), "{error}");
    }
}
