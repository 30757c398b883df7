//! HellaSwag (Zellers et al. 2019, arXiv 1905.07830) with the texts of lm-evaluation-harness (task
//! `hellaswag`, version 1).

use std::sync::LazyLock;

use regex::Regex;

use super::choices;
use crate::{Form, Item, ReadOptions, Row, Source, SourceError, Task, python};

/// Lines of one task in the text form: context, label, four endings.
const LINES: usize = 6;

/// The task.
pub(super) static HELLASWAG: Task = Task {
    name: "hellaswag",
    about: "endings of everyday situations; scored",
    file: "HellaSwag's hellaswag_val.jsonl, or its text form of six lines a task",
    form: Form::Raw,
    metrics: choices::NORMALIZED,
    read,
    grade: choices::grade,
    program: None,
    export: None,
    follow_up: None,
};

fn read(source: &Source, _: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    if source.text().trim_start().starts_with(['{', '[']) {
        return source.rows()?.iter().enumerate().map(|(index, row)| item(index, row)).collect();
    }
    let lines: Vec<&str> = source.text().lines().collect();
    let group = |(index, lines): (usize, &[&str])| {
        let line = index * LINES + 1;
        let &[context, label, ref endings @ ..] = lines else {
            return Err(source.fault_at(line, "a task must have six lines"));
        };
        let label = label.trim().parse().ok().filter(|&label: &usize| label < endings.len());
        let label = label.filter(|_| endings.len() + 2 == LINES);
        let label = label
            .ok_or_else(|| source.fault_at(line + 1, "a task must have a label from 0 to 3 on its second line"))?;
        let endings: Vec<String> = endings.iter().map(|ending| cleaned(ending)).collect();
        Ok(choices::item(index.to_string(), cleaned(context), &endings, label))
    };
    lines.chunks(LINES).enumerate().map(group).collect()
}

fn item(index: usize, row: &Row) -> Result<Item, SourceError> {
    let (start, end) = (row.text("ctx_a")?, row.text("ctx_b")?);
    let context = format!("{}: {start} {}", row.text("activity_label")?, capitalized(end));
    let endings: Vec<String> = row.texts("endings")?.iter().map(|ending| cleaned(ending)).collect();
    let label = row.id("label")?.parse().ok().filter(|&label: &usize| label < endings.len());
    let label = label.ok_or_else(|| row.fault("`label` must be the index of an ending"))?;
    Ok(choices::item(index.to_string(), cleaned(&context), &endings, label))
}

/// The text with its first letter in upper case and the others in lower case: `str.capitalize()`.
fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or(String::new(), |first| first.to_uppercase().collect::<String>() + &chars.as_str().to_lowercase())
}

/// The text without the brackets of WikiHow articles.
fn cleaned(text: &str) -> String {
    static BRACKETS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[.*?\]").ok());
    let text = python::strip(text).replace(" [title]", ". ");
    let text = BRACKETS.as_ref().map_or(text.clone(), |brackets| brackets.replace_all(&text, "").into_owned());
    text.replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cleaned_as_in_the_harness() {
        let row = r#"{"ctx_a": "A man [header] sits.", "ctx_b": "he", "activity_label": "Roof",
            "endings": ["runs [title] up.", "b", "c", "d"], "label": "1"}"#
            .replace('\n', " ");
        let items = HELLASWAG.items(&Source::of("x.jsonl", row), &ReadOptions::default()).unwrap();
        assert_eq!((items[0].prompt.as_str(), items[0].choices[0].as_str()), ("Roof: A man sits. He", " runs. up."));
        let text = "Roof: A man sits. he\n3\nruns.\nb\nc\nd\n";
        let items = HELLASWAG.items(&Source::of("x.txt", text), &ReadOptions::default()).unwrap();
        assert_eq!((items[0].index("gold"), items[0].choices.len()), (Some(3), 4));
        let fault = HELLASWAG.items(&Source::of("x.txt", "a\nb\n"), &ReadOptions::default()).unwrap_err().to_string();
        assert!(fault.starts_with("x.txt:2: a task must have a label"), "{fault}");
    }
}
