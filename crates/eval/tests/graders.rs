//! Verdicts equal those of lm-evaluation-harness, recorded by `scripts/eval_goldens.py`.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::PathBuf;

use serde_json::{Map, Value};
use wsd_eval::tasks::{gsm8k, ifeval};
use wsd_eval::{Item, Response, Task};

type Kwargs = Map<String, Value>;

/// Compares verdicts with a record such as `01?/011`: strict, then loose. Returns the number compared
/// and the instructions that differ.
fn compare(names: &[String], kwargs: &[Kwargs], answer: &str, want: &str) -> (usize, Vec<String>) {
    let got = ifeval::follows(names, kwargs, answer);
    let (strict, loose) = want.split_once('/').unwrap();
    assert_eq!((strict.len(), loose.len()), (got.len(), got.len()));
    let (mut compared, mut differing) = (0, Vec::new());
    for (index, (strict_got, loose_got)) in got.into_iter().enumerate() {
        for (got, want, mode) in [(strict_got, strict, "strict"), (loose_got, loose, "loose")] {
            let want = want.as_bytes()[index];
            compared += usize::from(want != b'?');
            if want != b'?' && got != (want == b'1') {
                differing.push(format!("{} {:?}, {mode}: {got}", names[index], kwargs[index]));
            }
        }
    }
    (compared, differing)
}

#[test]
fn instructions_are_checked_as_in_the_harness() {
    let goldens: Value = serde_json::from_str(include_str!("goldens/ifeval.json")).unwrap();
    let rules: Vec<(String, Kwargs)> = serde_json::from_value(goldens["instructions"].clone()).unwrap();
    let (names, kwargs): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    let answers: Vec<(String, String)> = serde_json::from_value(goldens["answers"].clone()).unwrap();
    let mut total = 0;
    let mut faults = Vec::new();
    for (answer, want) in &answers {
        let (compared, differing) = compare(&names, &kwargs, answer, want);
        total += compared;
        faults.extend(differing.into_iter().map(|fault| format!("{fault}\n    {answer:?}")));
    }
    assert!(total > 20_000, "{total}");
    assert!(faults.is_empty(), "{} of {total}:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn numbers_are_extracted_as_in_the_harness() {
    type Row = (String, String, String, String, f64, f64);
    let goldens: Vec<Row> = serde_json::from_str(include_str!("goldens/gsm8k.json")).unwrap();
    let task = Task::find("gsm8k").unwrap();
    for (gold, answer, strict, flexible, strict_match, flexible_match) in goldens {
        assert_eq!((gsm8k::strict(&answer), gsm8k::flexible(&answer)), (strict, flexible), "{answer:?}");
        let item = Item { doc: serde_json::json!({"answer": gold}), ..Item::default() };
        let verdict = (task.grade)(&item, Response { text: &answer, choices: &[] });
        let got = (verdict.scores["strict"].sum, verdict.scores["flexible"].sum);
        assert_eq!(got, (strict_match, flexible_match), "{gold:?} {answer:?}");
    }
}

/// The folder of benchmark files, or a note that the test is skipped.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("WSD_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: WSD_DATA does not name a folder of benchmark files");
    }
    folder
}

/// The variants of an answer, in the order of the script.
fn varied(text: &str, other: &str) -> [String; 8] {
    [
        text.to_owned(),
        text.to_uppercase(),
        text.to_lowercase(),
        format!("\"{text}\""),
        format!("{text}\n******\n{other}"),
        text.replace(',', ""),
        format!("Section 1\n{text}\n***\nSection 2 [x]\nP.S. *done*"),
        format!("<<Answer>>\n{text}\n- end"),
    ]
}

#[test]
fn answers_of_real_models_are_graded_as_in_the_harness() {
    let Some(folder) = data() else { return };
    let read = |name: &str| fs_err::read_to_string(folder.join(name)).unwrap();
    let files = ["text_davinci_003", "outputs__phi-2-sft", "outputs__vicuna-7b-v1.5", "gpt4_1106_preview"];
    let answers: Vec<Vec<Value>> =
        files.iter().map(|name| serde_json::from_str(&read(&format!("alpaca_eval/{name}.json"))).unwrap()).collect();
    let text = |file: usize, row: usize| answers[file][row % answers[file].len()]["output"].as_str().unwrap();
    let prompts = read("ifeval/input_data.jsonl");
    let (mut total, mut faults) = (0, Vec::new());
    for (index, (row, want)) in prompts.lines().zip(include_str!("goldens/ifeval_data.txt").lines()).enumerate() {
        let row: Value = serde_json::from_str(row).unwrap();
        let names: Vec<String> = serde_json::from_value(row["instruction_id_list"].clone()).unwrap();
        let kwargs: Vec<Kwargs> = serde_json::from_value(row["kwargs"].clone()).unwrap();
        let mut want = want.split(' ');
        assert_eq!(want.next().unwrap(), row["key"].to_string());
        for (number, want) in want.enumerate() {
            let answer = varied(text(number % 4, index * 7 + number * 101), text(number % 4, index));
            let (compared, differing) = compare(&names, &kwargs, &answer[number], want);
            total += compared;
            faults.extend(differing.into_iter().map(|fault| format!("{} variant {number}: {fault}", row["key"])));
        }
    }
    assert!(total > 10_000, "{total}");
    assert!(faults.is_empty(), "{} of {total}:\n{}", faults.len(), faults.join("\n"));
}
