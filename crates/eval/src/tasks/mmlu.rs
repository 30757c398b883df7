//! MMLU (Hendrycks et al. 2021, arXiv 2009.03300) with the prompt of lm-evaluation-harness (group
//! `mmlu`): the letters are scored.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::json;

use super::choices;
use crate::{Form, Item, ReadOptions, Source, SourceError, Task};

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];
/// Columns of a file of one subject.
const COLUMNS: usize = 6;

/// The task.
pub(super) static MMLU: Task = Task {
    name: "mmlu",
    about: "questions of 57 subjects with four choices; scored",
    file: "MMLU's CSV of one subject (question, four choices, letter), or a CSV with `prompt` and `answer`",
    form: Form::Raw,
    metrics: choices::PLAIN,
    read,
    grade: choices::grade_plain,
    program: None,
    export: None,
    follow_up: None,
};

/// A question with its four choices and the index of the right one.
struct Question {
    text: String,
    choices: Vec<String>,
    gold: usize,
}

impl Question {
    fn parse(source: &Source, line: usize, fields: &[String]) -> Result<Self, SourceError> {
        let [text, choices @ .., letter] = fields else {
            return Err(source.fault_at(line, "a row must have a question, four choices and a letter"));
        };
        let gold = LETTERS.iter().position(|known| known == letter);
        let gold =
            gold.ok_or_else(|| source.fault_at(line, format!("the answer must be A, B, C or D, got {letter}")))?;
        Ok(Self { text: text.trim().to_owned(), choices: choices.to_vec(), gold })
    }

    /// Splits a prompt that ends with four lettered lines.
    fn fields(prompt: &str, letter: &str) -> Option<Vec<String>> {
        static LETTERED: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"(?s)\A(.*?)\s*\nA\. (.*?)\nB\. (.*?)\nC\. (.*?)\nD\. (.*)\z").ok());
        let found = LETTERED.as_ref()?.captures(prompt)?;
        Some((1..COLUMNS).map(|group| found[group].to_owned()).chain([letter.to_owned()]).collect())
    }

    fn context(&self) -> String {
        let lines = self.choices.iter().zip(LETTERS).map(|(choice, letter)| format!("{letter}. {choice}\n"));
        format!("{}\n{}Answer:", self.text, lines.collect::<String>())
    }
}

fn read(source: &Source, options: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    let shots = options.shots.unwrap_or(0);
    let examples = match (&options.examples, shots) {
        (_, 0) => Vec::new(),
        (Some(examples), _) => questions(examples)?,
        (None, _) => {
            return Err(source.fault(
                "worked examples need the subject's development file\n  hint: name it with \
                                     --examples mmlu=FILE",
            ));
        }
    };
    if examples.len() < shots {
        return Err(source.fault(format!("{shots} worked examples need as many rows, got {}", examples.len())));
    }
    let shown = examples[..shots].iter().map(|example| format!("{} {}\n\n", example.context(), LETTERS[example.gold]));
    let above = format!("{}{}", description(source), shown.collect::<String>());
    let items = questions(source)?.into_iter().enumerate().map(|(index, question)| {
        let letters = LETTERS.map(str::to_owned);
        let mut item =
            choices::item(index.to_string(), format!("{above}{}", question.context()), &letters, question.gold);
        item.doc["subject"] = json!(subject(source));
        item
    });
    Ok(items.collect())
}

/// The subject, which names the files of the benchmark: `astronomy_test.csv`.
fn subject(source: &Source) -> Option<String> {
    let name = source.path().file_stem()?.to_str()?;
    let subject = ["_test", "_val", "_dev"].iter().find_map(|end| name.strip_suffix(end))?;
    Some(subject.replace('_', " "))
}

fn description(source: &Source) -> String {
    subject(source).map_or(String::new(), |subject| {
        format!("The following are multiple choice questions (with answers) about {subject}.\n\n")
    })
}

fn questions(source: &Source) -> Result<Vec<Question>, SourceError> {
    let records = source.records()?;
    if records.first().is_some_and(|(_, fields)| fields.iter().any(|name| name == "prompt")) {
        return source
            .table()?
            .iter()
            .map(|row| {
                let fields = Question::fields(row.text("prompt")?, row.text("answer")?.trim());
                let fields =
                    fields.ok_or_else(|| row.fault("`prompt` must end with the lines of the choices A to D"))?;
                Question::parse(source, row.line(), &fields)
            })
            .collect();
    }
    records
        .into_iter()
        .map(|(line, fields)| match fields.len() {
            COLUMNS => Question::parse(source, line, &fields),
            count => Err(source.fault_at(line, format!("a row must have {COLUMNS} fields, got {count}"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_those_of_the_harness() {
        let source = Source::of("data/high_school_biology_test.csv", "\"What, then?\",a,b,c,d,C\n");
        let options = ReadOptions { shots: Some(1), examples: Some(Source::of("d", "Q?,1,2,3,4,A\n")) };
        let items = MMLU.items(&source, &options).unwrap();
        assert_eq!(
            items[0].prompt,
            "The following are multiple choice questions (with answers) about high school biology.\n\n\
             Q?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: A\n\nWhat, then?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
        );
        assert_eq!((items[0].index("gold"), items[0].choices.len()), (Some(2), 4));
        let form = Source::of("mmlu.csv", "system,prompt,answer\nx,\"Q?\n\nA. 1\nB. 2\nC. 3\nD. 4\",D\n");
        let item = &MMLU.items(&form, &ReadOptions::default()).unwrap()[0];
        assert_eq!((item.prompt.as_str(), item.index("gold")), ("Q?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:", Some(3)));
        let fault = MMLU.items(&Source::of("x.csv", "a,b\n"), &ReadOptions::default()).unwrap_err().to_string();
        assert!(fault.starts_with("x.csv:1: a row must have 6 fields, got 2\n  hint: `mmlu` reads"), "{fault}");
    }
}
