//! TruthfulQA (Lin et al. 2022, arXiv 2109.07958) as multiple choice, with the metrics of
//! lm-evaluation-harness (tasks `truthfulqa_mc1` and `truthfulqa_mc2`).
//!
//! The six questions and answers above each question are the benchmark's; they are read from the file
//! of examples, so that none of its text is part of this crate.

use serde_json::{Map, Value, json};

use super::choices;
use crate::{Form, Item, Metric, ReadOptions, Response, Row, Score, Source, SourceError, Task, Verdict};

/// One right answer among wrong ones.
pub(super) static TRUTHFULQA_MC1: Task = Task {
    name: "truthfulqa_mc1",
    about: "one true answer among false ones; scored",
    read: |source, options| read(source, options, &MC1),
    grade: grade_mc1,
    ..TRUTHFULQA
};

/// Several right answers among wrong ones: the share of probability on the right ones.
pub(super) static TRUTHFULQA_MC2: Task = Task {
    name: "truthfulqa_mc2",
    about: "the share of probability on true answers; scored",
    read: |source, options| read(source, options, &MC2),
    grade: grade_mc2,
    ..TRUTHFULQA
};

const TRUTHFULQA: Task = Task {
    name: "",
    about: "",
    file: "TruthfulQA's mc_task.json, or TruthfulQA.csv",
    form: Form::Raw,
    metrics: &[Metric::new("acc", "acc,none")],
    read: |source, options| read(source, options, &MC1),
    grade: grade_mc1,
    program: None,
    export: None,
    follow_up: None,
};

/// Keys of one of the two forms.
struct Keys {
    json: &'static str,
    csv: &'static str,
}

const MC1: Keys = Keys { json: "mc1_targets", csv: "Best Answer" };
const MC2: Keys = Keys { json: "mc2_targets", csv: "Correct Answers" };

/// Answers with their labels, 1 for a true one.
type Labelled = Vec<(String, bool)>;

fn read(source: &Source, options: &ReadOptions, keys: &Keys) -> Result<Vec<Item>, SourceError> {
    let above = options.examples.as_ref().map_or(String::new(), |examples| format!("{}\n\n", examples.text().trim()));
    let is_json = source.text().trim_start().starts_with(['{', '[']);
    let rows = if is_json { source.rows()? } else { source.table()? };
    let item = |(index, row): (usize, &Row)| {
        let (question, answers) = if is_json { from_json(row, keys)? } else { from_csv(row, keys)? };
        if answers.iter().all(|(_, label)| *label) || !answers.iter().any(|(_, label)| *label) {
            return Err(row.fault("a question needs true and false answers"));
        }
        let labels: Vec<bool> = answers.iter().map(|(_, label)| *label).collect();
        let texts: Vec<String> = answers.into_iter().map(|(text, _)| text).collect();
        let gold = labels.iter().position(|label| *label).unwrap_or_default();
        let mut item = choices::item(index.to_string(), format!("{above}Q: {question}\nA:"), &texts, gold);
        item.doc["labels"] = json!(labels);
        Ok(item)
    };
    rows.iter().enumerate().map(item).collect()
}

fn from_json(row: &Row, keys: &Keys) -> Result<(String, Labelled), SourceError> {
    let fault = || row.fault(format!("`{}` must hold answers with labels 0 and 1", keys.json));
    let targets = row.value(keys.json)?.as_object().ok_or_else(fault)?;
    let is_true = |label: &Value| label.as_i64().map(|label| label == 1);
    let labelled = match (targets.get("choices"), targets.get("labels").and_then(Value::as_array)) {
        (Some(Value::Array(choices)), Some(labels)) if choices.len() == labels.len() => choices
            .iter()
            .zip(labels)
            .map(|(choice, label)| Some((choice.as_str()?.to_owned(), is_true(label)?)))
            .collect::<Option<_>>(),
        _ => by_answer(targets, is_true),
    };
    Ok((row.text("question")?.to_owned(), labelled.ok_or_else(fault)?))
}

/// Answers that are the keys of an object.
fn by_answer(targets: &Map<String, Value>, is_true: impl Fn(&Value) -> Option<bool>) -> Option<Labelled> {
    targets.iter().map(|(answer, label)| Some((answer.clone(), is_true(label)?))).collect()
}

fn from_csv(row: &Row, keys: &Keys) -> Result<(String, Labelled), SourceError> {
    let split = |key: &str| {
        let answers = row.text(key)?.split(';').map(str::trim).filter(|answer| !answer.is_empty());
        let full = |answer: &str| if answer.ends_with('.') { answer.to_owned() } else { format!("{answer}.") };
        Ok::<_, SourceError>(answers.map(full).collect::<Vec<_>>())
    };
    let right = split(keys.csv)?.into_iter().map(|answer| (answer, true));
    let wrong = split("Incorrect Answers")?.into_iter().map(|answer| (answer, false));
    Ok((row.text("Question")?.to_owned(), right.chain(wrong).collect()))
}

fn grade_mc1(item: &Item, response: Response<'_>) -> Verdict {
    choices::grade_plain(item, response)
}

fn grade_mc2(item: &Item, response: Response<'_>) -> Verdict {
    let labels: Vec<bool> = serde_json::from_value(item.doc["labels"].clone()).unwrap_or_default();
    let probabilities: Vec<f64> = response.choices.iter().map(|score| score.logprob.exp()).collect();
    let all: f64 = probabilities.iter().sum();
    let right: f64 = probabilities.iter().zip(labels).filter(|(_, label)| *label).map(|(p, _)| p).sum();
    Verdict::default().with("acc", Score { sum: if all > 0.0 { right / all } else { 0.0 }, count: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChoiceScore;

    #[test]
    fn both_files_are_read_and_the_share_is_taken() {
        let csv = "Question,Best Answer,Correct Answers,Incorrect Answers\nWhy?,So,So; And so.,Not; Never\n";
        let item = |task: &Task, name: &str, text: &str| {
            task.items(&Source::of(name, text), &ReadOptions::default()).unwrap().remove(0)
        };
        let two = item(&TRUTHFULQA_MC2, "x.csv", csv);
        assert_eq!(
            (two.prompt.as_str(), two.choices.join("|").as_str()),
            ("Q: Why?\nA:", " So.| And so.| Not.| Never.")
        );
        let json = r#"[{"question": "Why?", "mc1_targets": {"So.": 1, "Not.": 0},
            "mc2_targets": {"choices": ["a", "b"], "labels": [0, 1]}}]"#;
        assert_eq!(item(&TRUTHFULQA_MC1, "x.json", json).choices, [" So.", " Not."]);
        assert_eq!(item(&TRUTHFULQA_MC2, "x.json", json).index("gold"), Some(1));
        let scores = [0.1_f64, 0.2, 0.1, 0.4].map(|p| ChoiceScore { logprob: p.ln(), tokens: 1 });
        let verdict = grade_mc2(&two, Response { text: "", choices: &scores });
        assert!((verdict.scores["acc"].sum - 0.375).abs() < 1e-12);
    }
}
