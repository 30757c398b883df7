//! IFEval (Zhou et al. 2023, arXiv 2311.07911): instructions that can be checked by rules, graded as
//! the official grader and lm-evaluation-harness (task `ifeval`, version 4) do.

mod arguments;
mod instructions;
mod keywords;
mod language;
mod structure;

use serde_json::{Map, Value, json};

pub use instructions::{INSTRUCTIONS, Instruction};

use crate::{Form, Item, Metric, ReadOptions, Response, Row, Score, Source, SourceError, Task, Verdict, python};

/// The most tokens in an answer, as lm-evaluation-harness.
const MAX_TOKENS: usize = 1280;

/// The task.
pub static IFEVAL: Task = Task {
    name: "ifeval",
    about: "instructions that rules can check, all 25 types",
    file: "IFEval's input_data.jsonl, with `key`, `prompt`, `instruction_id_list` and `kwargs`",
    form: Form::Chat,
    metrics: &[
        Metric::new("prompt_strict", "prompt_level_strict_acc,none"),
        Metric::new("inst_strict", "inst_level_strict_acc,none"),
        Metric::new("prompt_loose", "prompt_level_loose_acc,none"),
        Metric::new("inst_loose", "inst_level_loose_acc,none"),
    ],
    read,
    grade,
    program: None,
    export: None,
    follow_up: None,
};

fn read(source: &Source, _: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    source.rows()?.iter().map(item).collect()
}

fn item(row: &Row) -> Result<Item, SourceError> {
    let (names, kwargs) = (row.texts("instruction_id_list")?, row.value("kwargs")?);
    let kwargs: Vec<Map<String, Value>> = serde_json::from_value(kwargs.clone())
        .map_err(|_| row.fault("`kwargs` must be a list of objects, one for each instruction"))?;
    if kwargs.len() != names.len() {
        return Err(row.fault(format!("`kwargs` must have {} objects, got {}", names.len(), kwargs.len())));
    }
    for (name, kwargs) in names.iter().zip(&kwargs) {
        let Some(instruction) = Instruction::find(name) else {
            return Err(row.fault(format!("there is no instruction `{name}`")));
        };
        if let Some(key) = instruction.needs.iter().find(|key| kwargs.get(**key).is_none_or(Value::is_null)) {
            return Err(row.fault(format!("the instruction `{name}` needs `{key}` in its `kwargs`")));
        }
    }
    Ok(Item {
        id: row.id("key")?,
        prompt: row.text("prompt")?.to_owned(),
        max_tokens: MAX_TOKENS,
        doc: json!({"instruction_id_list": names, "kwargs": kwargs}),
        ..Item::default()
    })
}

/// Tells for each instruction whether an answer follows it: strictly, and in the loose form, in which
/// the first or last line may be left out and asterisks do not count.
#[must_use]
pub fn follows(names: &[String], kwargs: &[Map<String, Value>], answer: &str) -> Vec<(bool, bool)> {
    let variants = variants(answer);
    let follows = |name: &String, kwargs: &Map<String, Value>| {
        let Some(instruction) = Instruction::find(name) else { return (false, false) };
        let check = |text: &str| !python::strip(text).is_empty() && (instruction.check)(kwargs, text);
        (check(answer), variants.iter().any(|text| check(text)))
    };
    names.iter().zip(kwargs).map(|(name, kwargs)| follows(name, kwargs)).collect()
}

/// The answer with and without its first line, its last line and asterisks.
fn variants(answer: &str) -> Vec<String> {
    let lines: Vec<&str> = answer.split('\n').collect();
    let joined = |lines: &[&str]| python::strip(&lines.join("\n")).to_owned();
    let count = lines.len();
    let cut = [
        answer.to_owned(),
        joined(&lines[1..]),
        joined(&lines[..count - 1]),
        joined(lines.get(1..count - 1).unwrap_or_default()),
    ];
    cut.into_iter().flat_map(|text| [text.replace('*', ""), text]).collect()
}

fn grade(item: &Item, response: Response<'_>) -> Verdict {
    let field = |key: &str| item.doc.get(key).cloned().unwrap_or_default();
    let names: Vec<String> = serde_json::from_value(field("instruction_id_list")).unwrap_or_default();
    let kwargs: Vec<Map<String, Value>> = serde_json::from_value(field("kwargs")).unwrap_or_default();
    let followed = follows(&names, &kwargs, response.text);
    let share = |of: fn(&(bool, bool)) -> bool| Score {
        sum: followed.iter().filter(|pair| of(pair)).count() as f64,
        count: followed.len() as f64,
    };
    let missed: Vec<_> =
        names.iter().zip(&followed).filter(|(_, pair)| !pair.0).map(|(name, _)| name.as_str()).collect();
    Verdict::default()
        .with("prompt_strict", Score::of(followed.iter().all(|pair| pair.0)))
        .with("inst_strict", share(|pair| pair.0))
        .with("prompt_loose", Score::of(followed.iter().all(|pair| pair.1)))
        .with("inst_loose", share(|pair| pair.1))
        .noted(missed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loose_form_leaves_lines_and_asterisks_out() {
        let names = ["startend:quotation".to_owned(), "punctuation:no_comma".to_owned()];
        let followed = follows(&names, &[Map::new(), Map::new()], "Sure, here it is:\n*\"All is well\"*");
        assert_eq!(followed, [(false, true), (false, true)]);
        assert_eq!(follows(&names, &[Map::new(), Map::new()], " \n"), [(false, false), (false, false)]);
    }

    #[test]
    fn faults_name_the_key() {
        let read = |row: &str| IFEVAL.items(&Source::of("x", row), &ReadOptions::default()).unwrap_err().to_string();
        let row = |name: &str, kwargs: &str| {
            format!("{{\"key\": 1, \"prompt\": \"a\", \"instruction_id_list\": [\"{name}\"], \"kwargs\": {kwargs}}}")
        };
        for (row, want) in [
            (row("a:b", "[{}]"), "x:1: there is no instruction `a:b`"),
            (row("startend:quotation", "[]"), "x:1: `kwargs` must have 1 objects, got 0"),
            (
                row("length_constraints:number_words", "[{\"relation\": \"at least\"}]"),
                "x:1: the instruction `length_constraints:number_words` needs `num_words` in its `kwargs`",
            ),
        ] {
            assert!(read(&row).starts_with(want), "{}", read(&row));
        }
    }
}
