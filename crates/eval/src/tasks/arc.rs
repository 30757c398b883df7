//! ARC (Clark et al. 2018, arXiv 1803.05457) with the prompt of lm-evaluation-harness (tasks `arc_easy`
//! and `arc_challenge`, version 1).

use serde::Deserialize;
use serde_json::Value;

use super::choices;
use crate::{Form, Item, ReadOptions, Row, Source, SourceError, Task};

/// The easy questions.
pub(super) static ARC_EASY: Task = Task { name: "arc_easy", about: "school science, easy set; scored", ..ARC };
/// The questions that retrieval and word statistics get wrong.
pub(super) static ARC_CHALLENGE: Task =
    Task { name: "arc_challenge", about: "school science, challenge set; scored", ..ARC };

const ARC: Task = Task {
    name: "",
    about: "",
    file: "ARC's questions, with `id`, `question` and `answerKey`",
    form: Form::Raw,
    metrics: choices::NORMALIZED,
    read,
    grade: choices::grade,
    program: None,
    export: None,
    follow_up: None,
};

/// A choice in AllenAI's form.
#[derive(Deserialize)]
struct Choice {
    text: String,
    label: String,
}

/// The choices in the form of the Hugging Face hub.
#[derive(Deserialize)]
struct Columns {
    text: Vec<String>,
    label: Vec<String>,
}

fn read(source: &Source, _: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    source.rows()?.iter().map(item).collect()
}

fn item(row: &Row) -> Result<Item, SourceError> {
    let fault = || row.fault("`question` must hold a stem and choices with texts and labels");
    let (stem, columns) = match row.value("question")? {
        Value::String(stem) => {
            let columns: Columns = serde_json::from_value(row.value("choices")?.clone()).map_err(|_| fault())?;
            (stem.clone(), columns)
        }
        question => {
            let stem = question.get("stem").and_then(Value::as_str).ok_or_else(fault)?;
            let choices = question.get("choices").cloned().unwrap_or_default();
            let choices: Vec<Choice> = serde_json::from_value(choices).map_err(|_| fault())?;
            let (text, label) = choices.into_iter().map(|choice| (choice.text, choice.label)).unzip();
            (stem.to_owned(), Columns { text, label })
        }
    };
    let key = row.text("answerKey")?;
    let gold = columns.label.iter().position(|label| label == key);
    let gold = gold.ok_or_else(|| row.fault(format!("`answerKey` must be the label of a choice, got {key}")))?;
    Ok(choices::item(row.id("id")?, format!("Question: {stem}\nAnswer:"), &columns.text, gold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_same_item() {
        let one = r#"{"id": "a", "question": {"stem": "Q?", "choices": [{"text": "x", "label": "1"},
            {"text": "y", "label": "2"}]}, "answerKey": "2"}"#
            .replace('\n', " ");
        let two = r#"{"id": "a", "question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]},
            "answerKey": "2"}"#
            .replace('\n', " ");
        let (one, two) = (one.as_str(), two.as_str());
        let read = |row: &str| ARC_EASY.items(&Source::of("x", row), &ReadOptions::default()).unwrap();
        assert_eq!(read(one), read(two));
        assert_eq!((read(one)[0].prompt.as_str(), read(one)[0].index("gold")), ("Question: Q?\nAnswer:", Some(1)));
    }
}
