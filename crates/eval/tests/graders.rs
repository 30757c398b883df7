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
    // The harness takes a random letter in the place of one outside a to z.
    let is_random = |kwargs: &Kwargs| {
        let letter = kwargs.get("letter").and_then(Value::as_str);
        letter.is_some_and(|letter| !letter.chars().all(|c| c.is_ascii_alphabetic()))
    };
    // Without NLTK's parameters sentences are divided by common knowledge, which differs in places.
    let is_approximate = |name: &str| name.ends_with("number_sentences") && !wsd_eval::has_nltk_parameters();
    for (index, (strict_got, loose_got)) in got.into_iter().enumerate() {
        for (got, want, mode) in [(strict_got, strict, "strict"), (loose_got, loose, "loose")] {
            let is_left_out = is_random(&kwargs[index]) || is_approximate(&names[index]);
            let want = if is_left_out { b'?' } else { want.as_bytes()[index] };
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

#[test]
fn published_win_rates_are_reproduced() {
    let Some(folder) = data() else { return };
    // AlpacaEval's leaderboard (weighted_alpaca_eval_gpt4_turbo): win rate, standard error, discrete.
    for (name, want) in [
        ("vicuna-7b-v1.5", [4.797_493_939_167_703, 0.665_596_067_697_191_8, 4.534_161_490_683_23]),
        ("phi-2-sft", [3.977_567_775_217_392, 0.609_827_141_729_237_3, 3.478_260_869_565_217_2]),
    ] {
        let path = folder.join(format!("alpaca_eval/annotations__{name}.json"));
        let annotations = wsd_eval::alpaca::read_annotations(&wsd_eval::Source::read(&path).unwrap()).unwrap();
        let rates = wsd_eval::alpaca::WinRates::of(&annotations).unwrap();
        let got = [rates.win_rate, rates.standard_error, rates.discrete_win_rate];
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{name}: {got:?}");
        eprintln!("{name}: {rates:?}");
        assert_eq!((rates.n, rates.failed), (805, 0));
    }
}

#[test]
fn refusals_are_told_as_people_do() {
    let Some(folder) = data() else { return };
    // Completions of XSTest with people's labels, and the least agreement of the rule.
    for (name, least) in
        [("gpt4", 0.95), ("llama2new", 0.89), ("llama2orig", 0.90), ("mistralguard", 0.84), ("mistralinstruct", 0.86)]
    {
        let path = folder.join(format!("xstest/xstest_v2_completions_{name}.csv"));
        let rows = wsd_eval::Source::read(&path).unwrap().table().unwrap();
        let agrees = |row: &&wsd_eval::Row| {
            let refused = !row.text("final_label").unwrap().starts_with('1');
            wsd_eval::tasks::is_refusal(row.text("completion").unwrap()) == refused
        };
        let share = rows.iter().filter(agrees).count() as f64 / rows.len() as f64;
        assert!(rows.len() == 450 && share >= least, "{name}: {share}");
    }
}

#[test]
fn every_benchmark_file_is_read() {
    let Some(folder) = data() else { return };
    for (task, file, count) in [
        ("ifeval", "ifeval/input_data.jsonl", 541),
        ("gsm8k", "gsm8k/test.jsonl", 1319),
        ("humaneval", "humaneval/HumanEval.jsonl.gz", 164),
        ("mmlu", "mmlu/mmlu.csv", 1000),
        ("arc_easy", "arc/arc_easy_test.jsonl", 2376),
        ("arc_challenge", "arc/arc_challenge_test.jsonl", 1170),
        ("truthfulqa_mc1", "truthfulqa/TruthfulQA.csv", 817),
        ("truthfulqa_mc2", "truthfulqa/TruthfulQA.csv", 817),
        ("truthfulqa_gen", "truthfulqa/TruthfulQA.csv", 817),
        ("xstest", "xstest/xstest_prompts.csv", 450),
        ("strongreject", "safety/strongreject_dataset.csv", 313),
        ("hh_harmless", "hh_rlhf/test.jsonl.gz", 2312),
        ("alpaca_eval", "alpaca_eval/alpaca_eval_ques.json", 805),
        ("arena_hard", "arena_hard/question.jsonl", 500),
        ("mt_bench", "mt_bench/question.jsonl", 80),
    ] {
        let source = wsd_eval::Source::read(&folder.join(file)).unwrap();
        let items = Task::find(task).unwrap().items(&source, &Default::default()).unwrap();
        assert_eq!(items.len(), count, "{task}");
        // Each item is a row of prompts, and an empty answer is graded.
        assert!(items.iter().all(|item| item.record().is_ok()), "{task}");
        let task = Task::find(task).unwrap();
        let _ = (task.grade)(&items[0], Response { text: "", choices: &[] });
    }
    let hellaswag = wsd_eval::Source::read(&folder.join("hellaswag/hellaswag_val_full.txt.bz2")).unwrap_err();
    assert!(hellaswag.to_string().contains("bunzip2"), "{hellaswag}");
}

#[test]
fn canonical_solutions_of_humaneval_pass() {
    let Some(folder) = data() else { return };
    let source = wsd_eval::Source::read(&folder.join("humaneval/HumanEval.jsonl.gz")).unwrap();
    let task = Task::find("humaneval").unwrap();
    let items = task.items(&source, &Default::default()).unwrap();
    let program = task.program.unwrap();
    for (row, item) in source.rows().unwrap().iter().zip(&items).step_by(16) {
        let solution = program(item, row.text("canonical_solution").unwrap());
        assert_eq!(wsd_eval::Execution::default().python(&solution), wsd_eval::Outcome::Passed, "{}", item.id);
        let wrong = wsd_eval::Execution::default().python(&program(item, "    return None\n"));
        assert!(matches!(wrong, wsd_eval::Outcome::Failed(_)), "{}", item.id);
    }
}
