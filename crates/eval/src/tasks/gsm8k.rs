//! GSM8K (Cobbe et al. 2021, arXiv 2110.14168): grade-school word problems, with the prompt and the
//! two metrics of lm-evaluation-harness (task `gsm8k`, version 3).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::json;

use crate::{Form, Item, Metric, ReadOptions, Response, Score, Source, SourceError, Task, Verdict, python};

/// Worked examples in the paper of Weak-to-Strong Decoding.
const SHOTS: usize = 4;
/// The most tokens in an answer, as lm-evaluation-harness.
const MAX_TOKENS: usize = 256;
/// Strings that end an answer.
const STOPS: [&str; 3] = ["Question:", "</s>", "<|im_end|>"];
/// The extraction where nothing was found.
const INVALID: &str = "[invalid]";

const METRICS: &[Metric] =
    &[Metric::new("strict", "exact_match,strict-match"), Metric::new("flexible", "exact_match,flexible-extract")];

/// GSM8K with worked examples, the first ones of `train.jsonl`.
pub static GSM8K: Task = Task {
    name: "gsm8k",
    about: "grade-school word problems, 4 worked examples",
    read: |source, options| read(source, options, SHOTS),
    ..GSM8K_ZERO_TASK
};

/// GSM8K without examples.
pub static GSM8K_ZERO: Task = GSM8K_ZERO_TASK;

const GSM8K_ZERO_TASK: Task = Task {
    name: "gsm8k_zero",
    about: "grade-school word problems, no examples",
    file: "GSM8K's test.jsonl, with `question` and `answer`",
    form: Form::Raw,
    metrics: METRICS,
    read: |source, options| read(source, options, 0),
    grade,
    program: None,
    export: None,
    follow_up: None,
};

fn read(source: &Source, options: &ReadOptions, shots: usize) -> Result<Vec<Item>, SourceError> {
    let examples = examples(source, options, options.shots.unwrap_or(shots))?;
    let rows = source.rows()?;
    let item = |(index, row): (usize, &crate::Row)| {
        let (question, answer) = (row.text("question")?, row.text("answer")?);
        Ok(Item {
            id: index.to_string(),
            prompt: format!("{examples}Question: {question}\nAnswer:"),
            stop: STOPS.map(str::to_owned).into(),
            max_tokens: MAX_TOKENS,
            doc: json!({"answer": answer}),
            ..Item::default()
        })
    };
    rows.iter().enumerate().map(item).collect()
}

/// The first `shots` rows of the file of examples, as text above the question.
fn examples(source: &Source, options: &ReadOptions, shots: usize) -> Result<String, SourceError> {
    if shots == 0 {
        return Ok(String::new());
    }
    let beside;
    let examples = match &options.examples {
        Some(examples) => examples,
        None => {
            let path = source.path().with_file_name("train.jsonl");
            if !path.exists() {
                return Err(source.fault(format!(
                    "{shots} worked examples need GSM8K's train.jsonl beside this file\n  hint: name it with \
                     --examples gsm8k=FILE, or take `gsm8k_zero`"
                )));
            }
            beside = Source::read(&path)?;
            &beside
        }
    };
    let rows = examples.rows()?;
    if rows.len() < shots {
        return Err(examples.fault(format!("the file must have {shots} worked examples, got {}", rows.len())));
    }
    let example =
        |row: &crate::Row| Ok(format!("Question: {}\nAnswer: {}\n\n", row.text("question")?, row.text("answer")?));
    rows[..shots].iter().map(example).collect()
}

fn grade(item: &Item, response: Response<'_>) -> Verdict {
    let gold = normalized(item.text("answer"));
    let (strict, flexible) = (strict(response.text), flexible(response.text));
    let pass = |extracted: &str| Score::of(normalized(extracted) == gold);
    Verdict::default().with("strict", pass(&strict)).with("flexible", pass(&flexible)).noted(flexible)
}

/// The number after the first `####`.
#[must_use]
pub fn strict(answer: &str) -> String {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"#### (\-?[0-9\.\,]+)").ok());
    let found = PATTERN.as_ref().and_then(|pattern| pattern.captures(answer));
    found.map_or(INVALID.into(), |found| python::strip(&found[1]).to_owned())
}

/// The last number of the answer.
///
/// ```
/// assert_eq!(wsd_eval::tasks::gsm8k::flexible("So 3 and $1,250."), "$1,250.");
/// ```
#[must_use]
pub fn flexible(answer: &str) -> String {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(-?[$0-9.,]{2,})|(-?[0-9]+)").ok());
    let found = PATTERN.as_ref().and_then(|pattern| pattern.find_iter(answer).last());
    found.map_or(INVALID.into(), |found| python::strip(found.as_str()).to_owned())
}

/// An answer without what the comparison ignores: commas, dollar signs, all up to the last `#### `,
/// a final period, case.
fn normalized(text: &str) -> String {
    let text = text.replace([',', '$'], "");
    let text = text.rfind("#### ").map_or(text.as_str(), |at| &text[at + 5..]);
    // Python's `\.$` also matches before a final line break.
    let text = match text.strip_suffix('\n') {
        Some(line) if line.ends_with('.') => format!("{}\n", &line[..line.len() - 1]),
        _ => text.strip_suffix('.').unwrap_or(text).to_owned(),
    };
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(answer: &str, output: &str) -> (f64, f64) {
        let item = Item { doc: json!({"answer": answer}), ..Item::default() };
        let verdict = grade(&item, Response { text: output, choices: &[] });
        (verdict.scores["strict"].sum, verdict.scores["flexible"].sum)
    }

    #[test]
    fn the_two_metrics_of_the_harness() {
        let gold = "He has 2 * 600 = <<2*600=1200>>1200.\n#### 1,200";
        for (output, want) in [
            (" It is 1200.\n#### 1200", (1.0, 1.0)),
            (" #### 1,200. Then 5", (1.0, 0.0)),
            (" The answer is $1,200.", (0.0, 1.0)),
            (" #### -1200", (0.0, 0.0)),
            ("", (0.0, 0.0)),
        ] {
            assert_eq!(verdict(gold, output), want, "{output}");
        }
    }

    #[test]
    fn faults_name_the_line_and_what_is_read() {
        let other = Source::of("x.jsonl", "{\"prompt\": \"a\"}\n");
        let text = GSM8K_ZERO.items(&other, &ReadOptions::default()).unwrap_err().to_string();
        assert_eq!(
            text,
            "x.jsonl:1: needs `question`, has: prompt\n  hint: `gsm8k_zero` reads GSM8K's test.jsonl, with `question` \
             and `answer`"
        );
        let source = Source::of("nowhere/test.jsonl", "{\"question\": \"a\", \"answer\": \"#### 1\"}\n");
        let text = GSM8K.items(&source, &ReadOptions::default()).unwrap_err().to_string();
        assert!(text.contains("4 worked examples need GSM8K's train.jsonl"), "{text}");
        let options = ReadOptions { shots: Some(1), examples: Some(source.clone()) };
        let items = GSM8K.items(&source, &options).unwrap();
        assert_eq!(items[0].prompt, "Question: a\nAnswer: #### 1\n\nQuestion: a\nAnswer:");
    }
}
