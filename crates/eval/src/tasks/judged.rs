//! Open questions whose answers people or models compare: AlpacaEval 2 (Dubois et al. 2024, arXiv
//! 2404.04475), Arena-Hard (Li et al. 2024, arXiv 2406.11939), TruthfulQA's open questions. Answers are
//! written in the form that the benchmarks' own programs read.

use serde_json::{Value, json};
use wsd_core::{ChatRole, Message};

use super::is_refusal;
use crate::{Form, Item, Metric, ReadOptions, Response, Row, Sample, Score, Source, SourceError, Task, Verdict};

/// The most tokens in an answer.
const MAX_TOKENS: usize = 1024;

/// AlpacaEval's 805 instructions.
pub(super) static ALPACA_EVAL: Task = Task {
    name: "alpaca_eval",
    about: "open instructions; writes model_outputs.json",
    file: "AlpacaEval's list of objects with `instruction`",
    read: read_alpaca,
    export: Some(export_alpaca),
    ..JUDGED
};

/// Arena-Hard's hard prompts.
pub(super) static ARENA_HARD: Task = Task {
    name: "arena_hard",
    about: "hard prompts of users; writes answers for Arena-Hard's judge",
    file: "Arena-Hard's question.jsonl, with `uid` and `prompt`",
    read: read_arena,
    export: Some(export_arena),
    ..JUDGED
};

/// MT-Bench's conversations of two turns.
pub(super) static MT_BENCH: Task = Task {
    name: "mt_bench",
    about: "conversations of two turns; writes answers for MT-Bench's judge",
    file: "MT-Bench's question.jsonl, with `question_id`, `category` and `turns`",
    read: read_mt_bench,
    export: Some(export_mt_bench),
    follow_up: Some(second_turn),
    ..JUDGED
};

/// TruthfulQA's questions, answered freely.
pub(super) static TRUTHFULQA_GEN: Task = Task {
    name: "truthfulqa_gen",
    about: "questions with common wrong answers; answers for a judge",
    file: "TruthfulQA.csv, with `Question`",
    read: read_truthfulqa,
    ..JUDGED
};

const JUDGED: Task = Task {
    name: "",
    about: "",
    file: "",
    form: Form::Chat,
    metrics: &[Metric::own("answered")],
    read: read_alpaca,
    grade,
    program: None,
    export: None,
    follow_up: None,
};

fn read_alpaca(source: &Source, _: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    let item = |(index, row): (usize, &Row)| {
        let doc = json!({"dataset": row.fields().get("dataset").cloned().unwrap_or(Value::Null)});
        let prompt = row.text("instruction")?.to_owned();
        Ok(Item { id: index.to_string(), prompt, max_tokens: MAX_TOKENS, doc, ..Item::default() })
    };
    source.rows()?.iter().enumerate().map(item).collect()
}

fn read_arena(source: &Source, _: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    let item = |row: &Row| {
        let doc = json!({"category": row.text_of(&["category", "cluster"])?});
        let prompt = row.text("prompt")?.to_owned();
        Ok(Item { id: row.id("uid")?, prompt, max_tokens: MAX_TOKENS, doc, ..Item::default() })
    };
    source.rows()?.iter().map(item).collect()
}

fn read_mt_bench(source: &Source, _: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    let item = |row: &Row| {
        let turns = row.texts("turns")?;
        let [first, ..] = turns.as_slice() else { return Err(row.fault("`turns` must have at least one text")) };
        let doc = json!({"category": row.text("category")?, "turns": turns});
        Ok(Item { id: row.id("question_id")?, prompt: first.clone(), max_tokens: MAX_TOKENS, doc, ..Item::default() })
    };
    source.rows()?.iter().map(item).collect()
}

/// The conversation up to the second question.
fn second_turn(item: &Item, answer: &str) -> Option<Item> {
    let question = item.doc["turns"].get(1)?.as_str()?;
    let messages = vec![
        Message::new(ChatRole::User, &item.prompt),
        Message::new(ChatRole::Assistant, answer),
        Message::new(ChatRole::User, question),
    ];
    Some(Item { prompt: String::new(), messages, ..item.clone() })
}

/// Answers to both turns; the second one holds the first in its conversation.
fn export_mt_bench(system: &str, samples: &[Sample]) -> (String, String) {
    let row = |sample: &Sample| {
        let first = sample.item.messages.get(1)?;
        let id = sample.item.id.parse::<u64>().map_or_else(|_| json!(sample.item.id), |id| json!(id));
        let row = json!({
            "question_id": id,
            "answer_id": format!("{system}-{}", sample.item.id),
            "model_id": system,
            "choices": [{"index": 0, "turns": [first.content, sample.output]}],
        });
        Some(format!("{row}\n"))
    };
    (format!("{system}.jsonl"), samples.iter().filter_map(row).collect())
}

fn read_truthfulqa(source: &Source, _: &ReadOptions) -> Result<Vec<Item>, SourceError> {
    let item = |(index, row): (usize, &Row)| {
        let doc = json!({"correct": row.text("Correct Answers")?, "incorrect": row.text("Incorrect Answers")?});
        let prompt = row.text("Question")?.to_owned();
        Ok(Item { id: index.to_string(), prompt, max_tokens: MAX_TOKENS, doc, ..Item::default() })
    };
    source.table()?.iter().enumerate().map(item).collect()
}

/// An answer that is neither empty nor a refusal counts as one.
fn grade(_: &Item, response: Response<'_>) -> Verdict {
    let is_answer = !response.text.trim().is_empty() && !is_refusal(response.text);
    Verdict::default().with("answered", Score::of(is_answer))
}

fn export_alpaca(system: &str, samples: &[Sample]) -> (String, String) {
    let row = |sample: &Sample| {
        json!({
            "dataset": sample.item.doc["dataset"],
            "instruction": sample.item.prompt,
            "output": sample.output,
            "generator": system,
        })
    };
    let rows: Vec<Value> = samples.iter().map(row).collect();
    ("model_outputs.json".into(), format!("{:#}\n", Value::from(rows)))
}

fn export_arena(system: &str, samples: &[Sample]) -> (String, String) {
    let row = |sample: &Sample| {
        let answer = json!({
            "uid": sample.item.id,
            "ans_id": format!("{system}-{}", sample.item.id),
            "model": system,
            "messages": [
                {"role": "user", "content": sample.item.prompt},
                {"role": "assistant", "content": {"answer": sample.output}},
            ],
        });
        format!("{answer}\n")
    };
    (format!("{system}.jsonl"), samples.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_written_as_the_benchmarks_read_them() {
        let source = Source::of("q.json", "[{\"instruction\": \"Say hi\", \"dataset\": \"koala\", \"output\": \"\"}]");
        let item = ALPACA_EVAL.items(&source, &ReadOptions::default()).unwrap().remove(0);
        let sample = Sample { item, output: "Hi".into(), scores: Vec::new(), error: None, wsd: None };
        let (name, text) = export_alpaca("wsd", std::slice::from_ref(&sample));
        let rows: Value = serde_json::from_str(&text).unwrap();
        let want = json!([{"dataset": "koala", "instruction": "Say hi", "output": "Hi", "generator": "wsd"}]);
        assert_eq!((name.as_str(), rows), ("model_outputs.json", want));
        let question = r#"{"question_id": 81, "category": "writing", "turns": ["Say hi", "Again"]}"#;
        let first = MT_BENCH.items(&Source::of("q", question), &ReadOptions::default()).unwrap().remove(0);
        let item = second_turn(&first, "Hi").unwrap();
        assert!(item.record().is_ok() && second_turn(&Item::default(), "Hi").is_none());
        let second = Sample { item, output: "Hi again".into(), ..sample.clone() };
        let (_, text) = export_mt_bench("wsd", &[second]);
        let row: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&row["question_id"], &row["choices"][0]["turns"]), (&json!(81), &json!(["Hi", "Hi again"])));
        let (name, text) = export_arena("wsd", std::slice::from_ref(&sample));
        let row: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((name.as_str(), &row["messages"][1]["content"]["answer"]), ("wsd.jsonl", &json!("Hi")));
    }
}
