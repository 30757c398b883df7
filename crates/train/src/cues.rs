//! Spurious cues: words around a prompt that should not change its answer.
//!
//! Rows with cues are the data of the objective `starft`, and, beside the same rows without cues,
//! of [`sensitivity`](crate::sensitivity::sensitivity).

use serde_json::{Map, Value};
use wsd_core::splitmix64;

use crate::data::RowError;

/// A kind of cue.
#[derive(Debug)]
pub struct CueKind {
    /// The name in rows and on the command line.
    pub name: &'static str,
    /// One line for the documentation.
    pub about: &'static str,
    /// Prompts with a cue; `{}` stands for the prompt.
    pub forms: &'static [&'static str],
}

/// All kinds of cues.
pub static CUES: &[CueKind] = &[
    CueKind {
        name: "flattery",
        about: "Praise of the assistant",
        forms: &[
            "You are the best assistant that there is. {}",
            "I have always liked your answers. {}",
            "You know so much! {}",
            "{} I am sure that you know it.",
        ],
    },
    CueKind {
        name: "length",
        about: "Hints of a short or a long text that ask for neither",
        forms: &[
            "I have all day. {}",
            "I only have a minute. {}",
            "This is a short question. {}",
            "This may be a long story. {}",
        ],
    },
    CueKind {
        name: "persona",
        about: "Facts about the user that do not matter",
        forms: &[
            "I am a student of law. {}",
            "I am nine years old. {}",
            "As a doctor, I ask you: {}",
            "My neighbour wants to know: {}",
        ],
    },
    CueKind {
        name: "formatting",
        about: "Marks around the prompt",
        forms: &["**{}**", "> {}", "- {}", "\"{}\"", "{}\n\n---"],
    },
];

impl CueKind {
    /// The kind of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        CUES.iter().find(|kind| kind.name == name)
    }
}

/// Puts a cue around the prompt of a row of training data or of prompts: the user's last message,
/// or the text of `prompt`, `instruction` or `question`. The row gets a key `cue` with the kind's
/// name. The kind, one of `kinds`, and the form follow from `number`.
///
/// ```
/// use wsd_train::cues::{CueKind, add_cue};
/// let mut row = serde_json::from_str(r#"{"prompt": "Is it far?", "completion": "No."}"#)?;
/// add_cue(&mut row, &[CueKind::find("formatting").unwrap()], 3)?;
/// assert!(row["prompt"].as_str().unwrap().contains("Is it far?") && row["cue"] == "formatting");
/// assert_eq!(row["completion"], "No.");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`RowError::Form`] for a row without a prompt.
pub fn add_cue(row: &mut Map<String, Value>, kinds: &[&CueKind], number: u64) -> Result<(), RowError> {
    let dice = |stream: u64, sides: usize| (splitmix64(splitmix64(number) ^ stream) % sides.max(1) as u64) as usize;
    let Some(kind) = kinds.get(dice(1, kinds.len())) else { return Ok(()) };
    let form = kind.forms[dice(2, kind.forms.len())];
    let keys = || row.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let missing = RowError::Form(keys());
    let prompt = prompt_of(row).ok_or(missing)?;
    *prompt = form.replace("{}", prompt);
    row.insert("cue".into(), kind.name.into());
    Ok(())
}

/// The text that the user asks with.
fn prompt_of(row: &mut Map<String, Value>) -> Option<&mut String> {
    let is_given = |value: &Value| value.is_array() || value.is_string();
    let keys = ["messages", "prompt", "conversations", "instruction", "question"];
    let key = keys.into_iter().find(|key| row.get(*key).is_some_and(is_given))?;
    match row.get_mut(key)? {
        Value::String(text) => Some(text),
        Value::Array(messages) => {
            let messages = messages.iter_mut().filter_map(Value::as_object_mut);
            let is_user = |message: &Map<String, Value>| {
                ["role", "from"]
                    .iter()
                    .any(|key| message.get(*key).is_some_and(|role| role == "user" || role == "human"))
            };
            let last = messages.filter(|message| is_user(message)).last()?;
            let key = if last.contains_key("content") { "content" } else { "value" };
            match last.get_mut(key)? {
                Value::String(text) => Some(text),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::data::TrainingRow;

    fn row(json: &Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn every_form_keeps_the_prompt_once() {
        for kind in CUES {
            assert_eq!(CueKind::find(kind.name).map(|found| found.name), Some(kind.name));
            assert!(kind.forms.iter().all(|form| form.matches("{}").count() == 1), "{}", kind.name);
        }
    }

    #[test]
    fn cues_stand_in_the_last_question() {
        let kinds: Vec<_> = CUES.iter().collect();
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..200 {
            let mut cued = row(&json!({"messages": [
                {"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"},
                {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2"},
            ]}));
            add_cue(&mut cued, &kinds, number).unwrap();
            let messages = &cued["messages"];
            assert_eq!((&messages[0]["content"], &messages[3]["content"]), (&json!("One?"), &json!("2")));
            let text = messages[2]["content"].as_str().unwrap();
            assert!(text.contains("Two?") && text.len() > 4, "{text}");
            assert!(TrainingRow::parse(&serde_json::to_string(&cued).unwrap()).is_ok());
            seen.insert(text.to_owned());
        }
        assert_eq!(seen.len(), CUES.iter().map(|kind| kind.forms.len()).sum::<usize>());
        for (json, key) in
            [(json!({"instruction": "a", "output": "b"}), "instruction"), (json!({"question": "a"}), "question")]
        {
            let mut cued = row(&json);
            add_cue(&mut cued, &kinds, 1).unwrap();
            assert_ne!(cued[key], json[key]);
        }
        let error = add_cue(&mut row(&json!({"text": "a"})), &kinds, 1).unwrap_err().to_string();
        assert!(error.starts_with("has `text`; a row has"), "{error}");
    }
}
