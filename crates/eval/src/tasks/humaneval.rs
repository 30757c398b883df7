//! HumanEval (Chen et al. 2021, arXiv 2107.03374) with the prompt and the stop strings of
//! lm-evaluation-harness (task `humaneval`, version 1). Answers are executed only if the user allows it.

use serde_json::json;

use crate::{Form, Item, Metric, ReadOptions, Response, Row, Source, SourceError, Task, Verdict};

/// Strings that end the body of a function.
const STOPS: [&str; 5] = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"];
/// The most tokens in an answer, as lm-evaluation-harness.
const MAX_TOKENS: usize = 1024;

/// The task.
pub(super) static HUMANEVAL: Task = Task {
    name: "humaneval",
    about: "Python functions; executed with --allow-execution",
    file: "HumanEval.jsonl or HumanEval.jsonl.gz",
    form: Form::Raw,
    metrics: &[Metric::new("pass@1", "pass@1,create_test")],
    read,
    grade,
    program: Some(program),
    export: Some(export),
    follow_up: None,
};

fn read(source: &Source, _: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    let item = |row: &Row| {
        Ok(Item {
            id: row.id("task_id")?,
            prompt: row.text("prompt")?.to_owned(),
            stop: STOPS.map(str::to_owned).into(),
            max_tokens: MAX_TOKENS,
            doc: json!({"entry_point": row.text("entry_point")?, "test": row.text("test")?}),
            ..Item::default()
        })
    };
    source.rows()?.iter().map(item).collect()
}

/// Nothing can be told without execution.
fn grade(_: &Item, _: Response<'_>) -> Verdict {
    Verdict::default().noted("not executed")
}

/// The program that checks an answer: the prompt continued by it, and the tests.
fn program(item: &Item, answer: &str) -> String {
    let entry = item.text("entry_point");
    let code = match fenced(answer) {
        // A conversation answers with the whole function, whose imports stand in the prompt.
        Some(block) if block.contains(&format!("def {entry}")) => {
            let head = item.prompt.find("def ").map_or("", |at| &item.prompt[..at]);
            format!("{head}{block}")
        }
        Some(block) => format!("{}{block}", item.prompt),
        None => format!("{}{answer}", item.prompt),
    };
    format!("{code}\n{}\ncheck({entry})\n", item.text("test"))
}

/// The first block of code between fences.
fn fenced(answer: &str) -> Option<&str> {
    let (_, rest) = answer.split_once("```")?;
    let (_, body) = rest.split_once('\n')?;
    Some(body.split("```").next().unwrap_or(body))
}

/// The samples in the form of the benchmark's own program.
fn export(_: &str, samples: &[crate::Sample]) -> (String, String) {
    let row = |sample: &crate::Sample| format!("{}\n", json!({"task_id": sample.item.id, "completion": sample.output}));
    ("samples.jsonl".into(), samples.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_hold_prompt_answer_and_tests() {
        let item = Item {
            prompt: "import math\n\n\ndef f(x):\n".into(),
            doc: json!({"entry_point": "f", "test": "def check(c):\n    assert c(1) == 2\n"}),
            ..Item::default()
        };
        let end = "\ndef check(c):\n    assert c(1) == 2\n\ncheck(f)\n";
        assert_eq!(program(&item, "    return x + 1"), format!("import math\n\n\ndef f(x):\n    return x + 1{end}"));
        let chat = "Here:\n```python\ndef f(x):\n    return 2\n```\nDone.";
        assert_eq!(program(&item, chat), format!("import math\n\n\ndef f(x):\n    return 2\n{end}"));
    }
}
