//! The program as its users run it: flags in, streams and exit codes out.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use wsd::models::BUILTIN_ABOUT;

/// The result of a run of the program.
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
    /// The line about the built-in pair.
    about: String,
}

struct Wsd {
    folder: tempfile::TempDir,
}

impl Wsd {
    /// The program in an empty folder.
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", self.folder.path());
        command.env_remove("NO_COLOR").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run_with(&self, args: &[&str], stdin: &[u8]) -> Run {
        let mut child = self.command(args).spawn().unwrap();
        // A program that does not read its input may end before all of it is written.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        // The line about the built-in pair is looked for in one test and would stand in most others.
        let (about, err) = text(stderr).split_inclusive('\n').partition(|line| line.starts_with(BUILTIN_ABOUT));
        Run { code: status.code(), out: text(stdout), err, about }
    }

    fn run(&self, args: &[&str]) -> Run {
        self.run_with(args, b"")
    }

    fn json(&self, args: &[&str]) -> Value {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{}", run.err);
        assert_eq!(run.out.lines().count(), 1, "one object on one line");
        serde_json::from_str(&run.out).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        fs_err::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.path(name)).unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::join(self.folder.path(), name)
    }

    /// Makes the folder that of a model, with the files of the built-in base.
    fn copy_base(&self) {
        for file in fs_err::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/base")).unwrap() {
            let file = file.unwrap();
            fs_err::copy(file.path(), self.path(file.file_name().to_str().unwrap())).unwrap();
        }
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn help() {
    let wsd = Wsd::new();
    for (name, args) in [
        ("help", vec!["--help"]),
        ("help_generate", vec!["generate", "--help"]),
        ("help_generate_short", vec!["generate", "-h"]),
        ("help_score", vec!["score", "--help"]),
        ("help_chat", vec!["chat", "--help"]),
        ("help_completions", vec!["completions", "--help"]),
    ] {
        let run = wsd.run(&args);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
        insta::assert_snapshot!(name, run.out);
    }
    assert_eq!(wsd.run(&["--version"]).out, format!("wsd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn refusals() {
    let wsd = Wsd::new();
    wsd.write("bad.toml", "[decode]\nwindow = 6\nthreshhold = 0.7\n");
    wsd.write("high.toml", "[decode]\nthreshold = 1.5\n");
    wsd.write("rows.jsonl", "{\"prompt\": \"a\"}\n{\"query\": \"b\"}\n\nnot json\n");
    wsd.write("good.jsonl", "{\"prompt\": \"a\"}\n");
    wsd.write("notes.txt", "do not touch");
    wsd.write("test.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"#### 4\"}\n");
    wsd.write("pytorch_model.bin", "PK");
    for (name, code, args) in [
        ("threshold", 2, &["generate", "--threshold", "1.5", "hi"][..]),
        ("window", 2, &["score", "--window", "0", "--prompt", "a", "--response", "b"]),
        ("strategy", 2, &["generate", "--strategy", "magic", "hi"]),
        ("flag", 2, &["generate", "--temprature", "1", "hi"]),
        ("raw_and_system", 2, &["generate", "--raw", "--system", "Be kind.", "hi"]),
        ("ids", 2, &["generate", "--prompt-ids", "1,two"]),
        ("config_key", 2, &["generate", "--config", "bad.toml", "hi"]),
        ("config_value", 2, &["generate", "--config", "high.toml", "hi"]),
        ("config_missing", 2, &["generate", "--config", "none.toml", "hi"]),
        ("output_without_input", 2, &["generate", "--output", "out.jsonl", "hi"]),
        ("threshold_below", 2, &["generate", "--threshold", "-1", "hi"]),
        ("threads", 2, &["generate", "--threads", "100000", "hi"]),
        ("stop", 2, &["generate", "--stop", "", "hi"]),
        ("dtype_unknown", 2, &["generate", "--dtype", "q7_k", "hi"]),
        ("score_strategy", 2, &["score", "--strategy", "base", "--prompt", "a", "--response", "b"]),
        ("path_missing", 1, &["generate", "--strategy", "base", "--base", "./nonexist", "hi"]),
        ("pickle", 1, &["generate", "--strategy", "base", "--base", "pytorch_model.bin", "hi"]),
        ("content", 1, &["generate", "--strategy", "base", "--base", "notes.txt", "hi"]),
        ("base_alone", 2, &["generate", "--base", "./nonexist", "hi"]),
        ("draft_alone", 2, &["chat", "--draft", "./nonexist"]),
        ("pair", 2, &["compare", "--pair", "smollm", "hi"]),
        ("foreign_command", 2, &["run", "model.gguf"]),
        ("foreign_model", 2, &["generate", "-m", "model.gguf", "hi"]),
        ("model_without_seat", 2, &["generate", "--model", "model.gguf", "hi"]),
        ("prompt_key", 1, &["generate", "--input", "good.jsonl", "--prompt-key", "goal"]),
        ("input_rows", 1, &["generate", "--input", "rows.jsonl", "--output", "out.jsonl"]),
        (
            "output_unwritable",
            1,
            &["generate", "--pair", "qwen2.5-0.5b+1.5b", "--input", "good.jsonl", "--output", "no/out.jsonl"],
        ),
        ("output_is_folder", 2, &["generate", "--input", "good.jsonl", "--output", "."]),
        ("output_foreign", 1, &["generate", "--input", "good.jsonl", "--output", "notes.txt"]),
        ("output_is_input", 2, &["generate", "--input", "good.jsonl", "--output", "./good.jsonl"]),
        ("empty_prompt", 2, &["generate", " "]),
        ("empty_response", 2, &["score", "--prompt", "a", "--response", ""]),
        ("template_missing", 1, &["generate", "--base-template", "none.jinja", "hi"]),
        ("raw_chat", 2, &["chat", "--raw"]),
        ("remote_engine", 1, &["generate", "--strategy", "base", "--base", "tgi+http://host/m", "hi"]),
        ("eval_task", 2, &["eval", "gsm9k=good.jsonl", "--out", "run"]),
        ("eval_file_alone", 2, &["eval", "good.jsonl", "--out", "run"]),
        ("eval_system", 2, &["eval", "gsm8k=good.jsonl", "--out", "run", "--systems", "base,magic"]),
        ("eval_file", 1, &["eval", "ifeval=good.jsonl", "--out", "run"]),
        ("eval_examples", 1, &["eval", "gsm8k=good.jsonl", "--out", "run"]),
        ("eval_rate", 2, &["eval", "gsm8k=good.jsonl", "--out", "run", "--rate", "gsm8k=magic"]),
        ("data_key", 1, &["data", "read", "rows.jsonl", "--out", "prompts.jsonl"]),
        ("data_foreign", 1, &["data", "read", "good.jsonl", "--out", "notes.txt"]),
        ("data_row", 1, &["data", "filter", "good.jsonl", "--out", "prompts.jsonl"]),
        ("data_share", 2, &["data", "filter", "good.jsonl", "--share", "a=0", "--out", "prompts.jsonl"]),
        ("data_against", 2, &["data", "filter", "good.jsonl", "--against", "gsm9k=x", "--out", "prompts.jsonl"]),
        ("data_eval", 2, &["data", "pair", "good.jsonl", "--eval", "1", "--out", "pairs"]),
        ("sweep_score", 2, &["sweep", "good.jsonl", "--out", "run", "--score"]),
        ("sweep_list", 2, &["sweep", "good.jsonl", "--out", "run", "--window", "1,6"]),
        ("sweep_windows", 2, &["sweep", "good.jsonl", "--out", "run", "--windows", "0"]),
        ("eval_judge", 2, &["eval", "gsm8k_zero=test.jsonl", "--out", "run", "--judge", "gsm8k_zero"]),
        ("foreign_layers", 2, &["generate", "-ngl", "99", "hi"]),
        ("foreign_context", 2, &["serve", "-c", "2048"]),
        ("foreign_listen", 2, &["serve", "--listen", "0.0.0.0"]),
        ("foreign_limit", 2, &["generate", "--input", "good.jsonl", "--limit", "2"]),
        ("foreign_slots", 2, &["serve", "--parallel", "4"]),
        ("foreign_input", 2, &["analyze", "--input", "good.jsonl", "--out", "run"]),
        ("serve_host", 2, &["serve", "--host", "here.example"]),
        ("serve_keys", 1, &["serve", "--api-key-file", "none.txt"]),
        ("foreign_system", 2, &["chat", "-sys", "Be kind."]),
        ("foreign_version", 2, &["version"]),
        ("foreign_stream", 2, &["generate", "--stream", "hi"]),
        ("foreign_greedy", 2, &["generate", "--greedy", "hi"]),
        ("foreign_sampled", 2, &["generate", "--do-sample", "hi"]),
        ("foreign_adapter", 2, &["generate", "--lora", "adapter", "hi"]),
        ("foreign_quantized", 2, &["serve", "--quantization", "awq"]),
        ("strategy_misspelt", 2, &["generate", "--strategy", "wds", "hi"]),
        // The draft, which would be loaded first, has no model in it.
        ("name_before_models", 1, &["generate", "--draft", "notes.txt", "--base", "nofile.gguf", "hi"]),
        ("remote_nobody", 1, &["generate", "--strategy", "base", "--base", "vllm+http://127.0.0.1:1/m", "hi"]),
    ] {
        let run = wsd.run(args);
        assert_eq!((run.code, run.out.as_str()), (Some(code), ""), "{name}: {}", run.err);
        insta::with_settings!({filters => vec![(r"/\S*/(\w+\.jsonl)", "[folder]/$1")]}, {
            insta::assert_snapshot!(format!("refusal_{name}"), run.err);
        });
    }
    assert!(!wsd.path("out.jsonl").exists(), "nothing is written for bad input");
    assert_eq!(wsd.read("notes.txt"), "do not touch");
}

#[test]
fn input_that_is_not_text() {
    let run = Wsd::new().run_with(&["generate"], b"caf\xe9 au lait");
    assert_eq!(run.code, Some(1));
    assert_eq!(run.err, "error: standard input is not UTF-8: invalid byte at offset 3\n");
}

#[test]
fn unknown_number_formats() {
    let run = Wsd::new().run(&["generate", "--dtype", "f17", "hi"]);
    assert_eq!((run.code, run.out.as_str()), (Some(2), ""));
    assert!(run.err.starts_with("error: `dtype` must be one of f32") && run.err.ends_with("got f17\n"), "{}", run.err);
}

#[test]
fn missing_models() {
    let run = Wsd::new().run(&["generate", "--base", "nobody/nothing", "--draft", "builtin:draft", "hi"]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("nobody/nothing") && run.err.contains("hint:"), "{}", run.err);
    let run = Wsd::new().run(&["generate", "--base", "builtin:huge", "hi"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(
        run.err,
        "error: there is no built-in model `builtin:huge`\n  hint: there are builtin:base, builtin:draft\n"
    );
}

#[test]
fn the_answer_is_the_same_in_every_form() {
    let wsd = Wsd::new();
    let whole = wsd.json(&["generate", "-n", "24", "--threshold", "0", "--json", "Hello"]);
    assert_eq!(
        keys(&whole),
        ["text", "tokens", "handover", "finish_reason", "usage", "timings", "calls"],
        "the documented fields"
    );
    assert_eq!(keys(&whole["tokens"][0]), ["id", "text", "logprob", "by", "confidence"]);
    assert_eq!(keys(&whole["handover"]), ["at", "confidence", "window", "threshold"]);
    assert_eq!(whole["handover"]["at"], 5, "a threshold of 0 is reached by the first full window");
    let tokens = whole["tokens"].as_array().unwrap();
    let joined: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    let text = whole["text"].as_str().unwrap();
    assert_eq!(joined, text);
    assert_eq!(whole["usage"]["draft_tokens"], tokens.iter().filter(|token| token["by"] == "draft").count());

    let plain = wsd.run_with(&["generate", "-n", "24", "--threshold", "0"], b"Hello\n");
    assert!(plain.code == Some(0) && plain.err.contains("switch at token 5, confidence"), "{}", plain.err);
    assert!(plain.err.contains("hint: the built-in pair knows nothing about this"), "{}", plain.err);
    assert_eq!(plain.out.trim_end_matches('\n'), text.trim_end_matches('\n'));
    let coloured = wsd.run(&["generate", "-n", "24", "--threshold", "0", "--color", "always", "Hello"]);
    let bare =
        ["\x1b[33m", "\x1b[36m", "\x1b[0m"].iter().fold(coloured.out.clone(), |text, code| text.replace(code, ""));
    assert_eq!(bare, plain.out);
    assert!(coloured.out.starts_with("\x1b[33m"), "the draft opens");
    assert!(coloured.err.contains("switch at token 5, confidence"), "{}", coloured.err);
    let quiet = wsd.run(&["generate", "-n", "24", "--threshold", "0", "--color", "always", "--quiet", "Hello"]);
    assert_eq!((quiet.out, quiet.err.as_str(), quiet.about.as_str()), (coloured.out, "", ""));
}

#[test]
fn every_strategy_answers_alone() {
    // Some have several sessions with one model, which is loaded for one answer.
    let needs_head = |recipe: &wsd::core::Recipe| recipe.needs.iter().any(|need| need.caps.drafts);
    for recipe in wsd::core::RECIPES.iter().filter(|recipe| !needs_head(recipe)) {
        let answer = Wsd::new().json(&["generate", "-n", "40", "--strategy", recipe.name, "--json", "Hello"]);
        assert!(answer["usage"]["completion_tokens"].as_u64() > Some(0), "{}", recipe.name);
    }
}

#[test]
fn options_override_the_settings_file() {
    let wsd = Wsd::new();
    wsd.write("wsd.toml", "[decode]\nmax_tokens = 3\nstrategy = \"base\"\n");
    let short = wsd.json(&["generate", "--json", "Hello"]);
    assert_eq!((&short["usage"]["base_tokens"], &short["finish_reason"]), (&json!(3), &json!("length")));
    let drafted = wsd.json(&["generate", "--json", "--strategy", "draft", "-n", "2", "Hello"]);
    assert_eq!((&drafted["usage"]["draft_tokens"], &drafted["usage"]["base_tokens"]), (&json!(2), &json!(0)));
}

#[test]
fn token_ids_are_continued() {
    let answer = Wsd::new().json(&["generate", "--json", "-n", "4", "--strategy", "base", "--prompt-ids", "[5, 6, 7]"]);
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
}

#[test]
fn score_agrees_with_generate() {
    let wsd = Wsd::new();
    let (prompt, raw) = ("Long ago there lived", ["--json", "--raw"]);
    let answer = wsd.json(&[&["generate"][..], &raw, &["-n", "20", "--strategy", "base", prompt]].concat());
    let text = answer["text"].as_str().unwrap();
    let response = ["--prompt", prompt, "--response", text, "--threshold", "0.01"];
    let score = wsd.json(&[&["score"][..], &raw, &response].concat());
    assert_eq!(keys(&score), ["tokens", "handover"]);
    assert_eq!(keys(&score["tokens"][0]), ["id", "text", "logprob", "confidence"]);
    assert_eq!(keys(&score["handover"]), ["at", "confidence"]);
    let field = |value: &Value, field| -> Vec<Value> {
        value["tokens"].as_array().unwrap().iter().map(|token| token[field].clone()).collect()
    };
    let joined: String = field(&score, "text").iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(joined, text);
    if field(&score, "id") == field(&answer, "id") {
        for (scored, written) in field(&score, "logprob").iter().zip(field(&answer, "logprob")) {
            assert!((scored.as_f64().unwrap() - written.as_f64().unwrap()).abs() < 1e-4);
        }
    }
    let confidences = field(&score, "confidence");
    assert!(confidences.iter().take(5).all(Value::is_null), "the first window is full at the sixth token");
    assert!(confidences.iter().skip(5).all(Value::is_f64));

    let after_ids = wsd.json(&["score", "--json", "--prompt-ids", "1,3,5,6", "--response", "abc"]);
    let joined: String = field(&after_ids, "text").iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(joined, "abc");
    let none = wsd.json(&["score", "--json", "--prompt-ids", "5,6", "--response-ids", "7", "--threshold", "1"]);
    assert_eq!((none["tokens"].as_array().unwrap().len(), &none["handover"]), (1, &Value::Null));
    let table = wsd.run(&["score", "--prompt", "Hi", "--response", "Hello there", "--threshold", "0"]);
    assert!(table.out.starts_with("   at       id    logprob  confidence  token\n"), "{}", table.out);
    assert!(!table.out.contains('\x1b'));
    let chart = wsd.run(&[
        "score",
        "--prompt",
        "Hi",
        "--response",
        "I'm happy to help.",
        "--threshold",
        "0",
        "--color",
        "always",
    ]);
    assert!(chart.out.contains('▲') && chart.out.contains("switch at token 5"), "{}", chart.out);
}

#[test]
fn a_response_from_a_file_is_scored_without_its_last_line_break() {
    let wsd = Wsd::new();
    let given = wsd.run(&["score", "--prompt", "Hi", "--response", "I'm happy to help.", "--json"]);
    let piped = wsd.run_with(&["score", "--prompt", "Hi", "--response", "-", "--json"], b"I'm happy to help.\r\n");
    assert!(!given.out.is_empty());
    assert_eq!(piped.out, given.out);
}

const ROWS: &str = r#"{"id": 1, "prompt": "Hello"}
{"id": 2.50, "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]}

{"context": [{"role": "user", "content": "Who are you?"}], "tags": ["a", {"b": null}]}
{"prompt": "Good morning", "id": 4}
"#;

/// A file of answers without what differs from run to run.
fn without_timings(text: &str) -> Vec<Value> {
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|mut row| {
        if let Some(wsd) = row.get_mut("wsd").and_then(Value::as_object_mut) {
            wsd.remove("timings");
        }
        row
    })
    .collect()
}

#[test]
fn a_file_is_answered_in_order_and_resumed_after_any_cut() {
    let wsd = Wsd::new();
    wsd.write("in.jsonl", ROWS);
    let args = ["generate", "-n", "12", "--input", "in.jsonl", "--output", "out.jsonl", "--parallel", "3"];
    let run = wsd.run(&args);
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.err.ends_with("4 rows in out.jsonl\n"), "{}", run.err);
    let whole = wsd.read("out.jsonl");
    let inputs = ROWS.lines().filter(|line| !line.is_empty());
    for (input, row) in inputs.zip(whole.lines()) {
        assert!(row.starts_with(input.strip_suffix('}').unwrap()), "the row's own text stands first, untouched: {row}");
    }
    let rows = without_timings(&whole);
    assert_eq!(keys(&rows[0]), ["id", "prompt", "output", "wsd"]);
    assert_eq!(keys(&rows[0]["wsd"]), ["handover", "finish_reason", "usage", "settings"]);
    assert_eq!(rows[0]["wsd"]["settings"]["threshold"], 0.8);
    assert_eq!(rows[3]["output"], wsd.json(&["generate", "-n", "12", "--json", "Good morning"])["text"]);

    let second_end = whole.match_indices('\n').nth(1).unwrap().0 + 1;
    for cut in [0, 1, second_end - 1, second_end, second_end + 30, whole.len() - 1, whole.len()] {
        wsd.write("out.jsonl", &whole[..cut]);
        let run = wsd.run(&args);
        assert_eq!(run.code, Some(0), "{}", run.err);
        let again = wsd.read("out.jsonl");
        let kept = whole[..cut].rfind('\n').map_or(0, |at| at + 1);
        assert_eq!(again[..kept], whole[..kept], "rows that were there are kept to the byte");
        assert_eq!(without_timings(&again), rows, "cut at {cut}");
    }
}

#[test]
fn a_file_answered_with_other_settings_is_not_resumed() {
    let wsd = Wsd::new();
    wsd.write("in.jsonl", "{\"prompt\": \"Hello\"}\n{\"prompt\": \"Hi\"}\n");
    let args = ["generate", "-n", "4", "-t", "0.7", "--input", "in.jsonl", "--output", "out.jsonl", "--quiet"];
    assert_eq!(wsd.run(&args).code, Some(0));
    let (whole, other) = (wsd.read("out.jsonl"), ["--window", "3", "--chunk-tokens", "2", "--threads", "1"]);
    let run = wsd.run(&[&args[..], &other].concat());
    assert_eq!(
        (run.code, run.err.as_str()),
        (
            Some(1),
            "error: out.jsonl:1: this row was answered with other settings: `window` 6, now 3\n  hint: name another \
             output, or take the same settings\n"
        )
    );
    assert_eq!(wsd.read("out.jsonl"), whole);
    assert_eq!(wsd.run(&[&args[..], &other[2..]].concat()).code, Some(0), "what changes the speed may change");
}

#[test]
fn rows_of_a_list_are_sampled_with_their_own_seeds() {
    let wsd = Wsd::new();
    wsd.write("in.json", "[{\"instruction\": \"Hi\", \"seed\": 1},\n {\"question\": \"Hi\", \"seed\": 2}]\n");
    let args = ["generate", "-n", "12", "-t", "1", "--input", "in.json", "--output", "out.jsonl", "--quiet"];
    let run = wsd.run(&args);
    assert_eq!(run.code, Some(0), "{}", run.err);
    let rows = without_timings(&wsd.read("out.jsonl"));
    for (row, seed) in rows.iter().zip(["1", "2"]) {
        let alone = wsd.json(&["generate", "-n", "12", "-t", "1", "--seed", seed, "--json", "Hi"]);
        assert_eq!(row["output"], alone["text"], "seed {seed}");
    }
    assert_ne!(rows[0]["output"], rows[1]["output"]);
}

#[test]
fn a_table_is_sampled_to_standard_output() {
    let wsd = Wsd::new();
    wsd.write("in.csv", "id,goal\n1,\"Hello, you\"\n2,Hi\n");
    let args = ["generate", "-n", "12", "-t", "1", "--seed", "7", "--input", "in.csv", "--prompt-key", "goal", "-q"];
    let run = wsd.run(&[&args[..], &["--samples", "2"]].concat());
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    let rows = without_timings(&run.out);
    let drawn: Vec<_> =
        rows.iter().map(|row| (row["id"].as_str().unwrap(), row["sample_seed"].as_u64().unwrap())).collect();
    assert_eq!(drawn, [("1", 7), ("1", 8), ("2", 7), ("2", 8)]);
    for row in &rows {
        let (seed, prompt) = (row["sample_seed"].to_string(), row["goal"].as_str().unwrap());
        let alone = wsd.json(&["generate", "-n", "12", "-t", "1", "--seed", &seed, "--json", "-p", prompt]);
        assert_eq!(row["output"], alone["text"]);
    }
}

#[test]
fn the_built_in_pair_is_introduced_and_its_limits_are_told() {
    let wsd = Wsd::new();
    let run = wsd.run(&["generate", "-n", "8", "What is the capital of France?"]);
    assert!(run.about.contains("is a toy") && run.about.contains("wsd pairs"), "{}", run.about);
    assert!(run.err.contains("hint: the built-in pair knows nothing about this"), "{}", run.err);
    assert!(run.err.ends_with("· cut at 8 tokens (--max-tokens)\n"), "{}", run.err);
    let known = wsd.run(&["generate", "Where does the bread come from?"]);
    assert!(!known.err.contains("hint") && !known.err.contains("cut at"), "{}", known.err);
    let short = wsd.json(&["generate", "--json", "--max-draft-tokens", "3", "Where does the bread come from?"]);
    assert_eq!((&short["draft_end"], &short["handover"]), (&json!({"at": 3, "reason": "length"}), &Value::Null));
    let told = wsd.run(&["generate", "--max-draft-tokens", "3", "Where does the bread come from?"]);
    assert!(told.err.contains("· the draft reached its limit at token 3, the base continued\n"), "{}", told.err);
}

#[test]
fn pairs_are_listed_and_resolved() {
    let wsd = Wsd::new();
    let listed = wsd.run(&["pairs", "--json"]);
    let pairs: Vec<Value> = listed.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(pairs.len() >= 3 && pairs.iter().all(|pair| pair["licence"].is_string()), "{}", listed.out);
    let shown = wsd.run(&["pairs"]);
    assert!(pairs.iter().all(|pair| shown.out.contains(pair["name"].as_str().unwrap())), "{}", shown.out);
    let name = pairs[0]["name"].as_str().unwrap();
    let missing = wsd.run(&["generate", "--pair", name, "hi"]);
    assert!(missing.code == Some(1) && missing.err.contains(pairs[0]["draft"].as_str().unwrap()), "{}", missing.err);
    // Models of one's own take the place of the pair's, and its rule stays.
    wsd.write("in.jsonl", "{\"prompt\": \"Hello\"}\n");
    let own = ["--base", "builtin:base", "--draft", "builtin:draft"];
    let run = wsd.run(&[&["generate", "-n", "4", "--input", "in.jsonl", "--pair", name], &own[..]].concat());
    let row: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(row["wsd"]["settings"]["threshold"], pairs[0]["threshold"]);
}

#[test]
fn a_base_of_one_s_own_needs_no_draft_where_no_recipe_at_hand_does() {
    let wsd = Wsd::new();
    wsd.copy_base();
    wsd.write("in.jsonl", "{\"prompt\": \"Hello\"}\n");
    wsd.write("test.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"#### 4\"}\n");
    for strategy in ["base", "speculative"] {
        let args = ["generate", "--strategy", strategy, "--base", ".", "-n", "4"];
        let run = wsd.run(&[&args[..], &["What is 2 + 2?"]].concat());
        assert_eq!((run.code, run.about.as_str()), (Some(0), ""), "{}", run.err);
        assert!(!run.err.contains("built-in"), "{}", run.err);
        let run = wsd.run(&[&args[..], &["--input", "in.jsonl"]].concat());
        let row: Value = serde_json::from_str(&run.out).unwrap();
        let settings = &row["wsd"]["settings"];
        assert_eq!((&settings["base"], settings.get("draft")), (&json!("."), None));
    }
    let eval = ["eval", "gsm8k=test.jsonl", "--shots", "0", "--base", ".", "-n", "4", "--out", "run"];
    let run = wsd.run(&[&eval[..], &["--systems", "base,speculative"]].concat());
    assert_eq!((run.code, run.about.as_str()), (Some(0), ""), "{}", run.err);
    // The strategy of the file has no say in commands that run another one.
    wsd.write("wsd.toml", "[models]\nbase = \".\"\n[decode]\nstrategy = \"base\"\n");
    for args in [
        &["sweep", "in.jsonl", "--out", "sweep"][..],
        &["calibrate", "in.jsonl", "--out", "sweep"],
        &["analyze", "in.jsonl", "--out", "analysis"],
        &["compare", "hi"],
        &["eval", "gsm8k=test.jsonl", "--shots", "0", "--out", "other"],
        &["bench", "wsd"],
    ] {
        let run = wsd.run(args);
        let told = "error: `draft` must be given where `base` is (in wsd.toml), got none\n  hint: name both models";
        assert!(run.code == Some(2) && run.err.starts_with(told), "{args:?}: {:?} {}", run.code, run.err);
    }
    assert_eq!(wsd.run(&["generate", "-n", "4", "hi"]).code, Some(0));
}

#[test]
fn sampling_is_taken_from_the_files_of_a_model() {
    let wsd = Wsd::new();
    wsd.copy_base();
    wsd.write("generation_config.json", r#"{"do_sample": true, "temperature": 0.9, "top_k": 20, "max_length": 9}"#);
    wsd.write("in.jsonl", "{\"prompt\": \"Hello\"}\n");
    let args = ["generate", "--strategy", "base", "--base", ".", "-n", "8", "-v"];
    let run = wsd.run(&[&args[..], &["Hello"]].concat());
    assert!(run.err.contains("from the model's files: temperature 0.9, top_k 20"), "{}", run.err);
    let settings = |more: &[&str]| {
        let run = wsd.run(&[&args[..], &["--input", "in.jsonl"], more].concat());
        let row: Value = serde_json::from_str(&run.out).unwrap();
        [&row["wsd"]["settings"]["temperature"], &row["wsd"]["settings"]["top_k"]].map(Value::clone)
    };
    assert_eq!(settings(&[]), [json!(0.9), json!(20)]);
    assert_eq!(settings(&["-t", "0.5"]), [json!(0.5), json!(20)], "what is set wins");
    assert_eq!(settings(&["--generation-config=false"]), [json!(0.0), json!(0)]);
}

#[test]
fn no_model_is_loaded_for_rows_that_are_there() {
    let wsd = Wsd::new();
    wsd.copy_base();
    wsd.write("generation_config.json", r#"{"do_sample": true, "temperature": 0.9}"#);
    wsd.write("in.jsonl", "{\"prompt\": \"Hello\"}\n{\"prompt\": \"Goodbye\"}\n");
    wsd.write("prompts.jsonl", "{\"id\": \"1\", \"prompt\": \"Hello\"}\n");
    wsd.write("test.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"#### 4\"}\n");
    wsd.write("bench.jsonl", "{\"question_id\": 81, \"category\": \"writing\", \"turns\": [\"Hi\", \"And then?\"]}\n");
    assert_eq!(wsd.run(&["data", "read", "prompts.jsonl", "--out", "read.jsonl", "-q"]).code, Some(0));
    let own = ["--base", ".", "--draft", ".", "--draft-template", "plain", "-n", "8"];
    let commands = [
        &["generate", "--input", "in.jsonl", "--output", "out.jsonl"][..],
        &["eval", "gsm8k_zero=test.jsonl", "--out", "run", "--systems", "base,wsd"],
        &["eval", "mt_bench=bench.jsonl", "--out", "turns", "--systems", "base"],
        &["sweep", "in.jsonl", "--out", "sweep"],
        &["calibrate", "in.jsonl", "--out", "calibrated"],
        &["analyze", "in.jsonl", "--out", "analysis"],
        &["data", "sample", "read.jsonl", "--out", "answers", "--samples", "2", "-t", "1"],
        &["data", "score", "answers/wsd.jsonl", "--by", "likelihood,length", "--out", "scored.jsonl"],
        &["eval", "gsm8k_zero=test.jsonl", "--out", "rated", "--strategy", "base", "--rate", "gsm8k_zero=likelihood"],
    ];
    let run = |args: &[&str]| wsd.run(&[args, &own].concat());
    let first = commands.map(|args| {
        let found = run(args);
        assert!(found.code == Some(0) && found.err.contains("loaded in"), "{args:?}: {}", found.err);
        found.out
    });
    // Weights that no longer load fail every command that loads them.
    wsd.write("model.safetensors", "damaged");
    assert_eq!(run(&["generate", "hi"]).code, Some(1));
    for (args, first) in commands.iter().zip(first) {
        let again = run(args);
        assert_eq!((again.code, &again.out), (Some(0), &first), "{args:?}: {}", again.err);
        assert!(!again.err.contains("loaded in"), "{args:?}: {}", again.err);
    }
}

#[test]
fn no_file_is_left_by_a_command_whose_models_are_missing() {
    let wsd = Wsd::new();
    wsd.write("in.jsonl", "{\"prompt\": \"Hello\"}\n");
    wsd.write("prompts.jsonl", "{\"id\": \"1\", \"prompt\": \"Hello\"}\n");
    wsd.write("test.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"#### 4\"}\n");
    assert_eq!(wsd.run(&["data", "read", "prompts.jsonl", "--out", "read.jsonl", "-q"]).code, Some(0));
    let sample = ["data", "sample", "read.jsonl", "--samples", "1", "-n", "4", "-q", "--out"];
    assert_eq!(wsd.run(&[&sample[..], &["answers"]].concat()).code, Some(0));
    let eval = ["eval", "gsm8k_zero=test.jsonl", "--out", "run", "--strategy", "base", "-n", "4", "-q"];
    assert_eq!(wsd.run(&eval).code, Some(0));
    let typo = ["--base", "./typo", "--draft", "./typo"];
    for args in [
        [&sample[..], &["left", "--systems", "wsd,base"], &typo].concat(),
        [&["data", "score", "answers/wsd.jsonl", "--by", "likelihood", "--out", "left.jsonl"][..], &typo].concat(),
        [&["sweep", "in.jsonl", "--out", "left"][..], &typo].concat(),
        [&["analyze", "in.jsonl", "--out", "left"][..], &typo].concat(),
        [&eval[..], &["--rate", "gsm8k_zero=guard", "--model", "judge=./typo"]].concat(),
    ] {
        let run = wsd.run(&args);
        assert!(run.code == Some(1) && run.err.contains("./typo"), "{args:?}: {:?} {}", run.code, run.err);
        for left in ["left", "left.jsonl", "run/ratings"] {
            assert!(!wsd.path(left).exists(), "{args:?}: {left}");
        }
    }
}

#[test]
fn a_name_that_is_repeated_counts_once() {
    let wsd = Wsd::new();
    wsd.write("prompts.jsonl", "{\"id\": \"1\", \"prompt\": \"Hello\"}\n");
    wsd.write("test.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"#### 4\"}\n");
    assert_eq!(wsd.run(&["data", "read", "prompts.jsonl", "--out", "read.jsonl", "-q"]).code, Some(0));
    let sample = ["data", "sample", "read.jsonl", "--samples", "1", "-n", "4", "--out", "answers"];
    let run = wsd.run(&[&sample[..], &["--systems", "wsd,base,wsd"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.err);
    let told: Vec<_> = run.err.lines().filter(|line| line.ends_with(":")).collect();
    assert_eq!(told, ["wsd:", "base:"], "{}", run.err);
    let score = ["data", "score", "answers/wsd.jsonl", "--by", "length,rules,length", "--out", "scored.jsonl", "-q"];
    assert_eq!(wsd.run(&score).code, Some(0));
    let row: Value = serde_json::from_str(&wsd.read("scored.jsonl")).unwrap();
    assert_eq!(row["wsd"]["settings"]["raters"], json!(["length", "rules"]));
    let eval = ["eval", "gsm8k_zero=test.jsonl", "--out", "run", "--strategy", "base", "-n", "4"];
    let run = wsd.run(&[&eval[..], &["--rate", "gsm8k_zero=length", "--rate", "gsm8k_zero=length"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert_eq!(run.err.matches("gsm8k_zero, base, length: ").count(), 1, "{}", run.err);
}

#[test]
fn the_card_of_a_scored_file_counts_all_its_rows() {
    let wsd = Wsd::new();
    let rows = [1, 2, 3].map(|id| format!("{{\"id\": \"{id}\", \"prompt\": \"Hello, {id}\"}}\n"));
    wsd.write("prompts.jsonl", &rows.concat());
    assert_eq!(wsd.run(&["data", "read", "prompts.jsonl", "--out", "read.jsonl", "-q"]).code, Some(0));
    let sample = ["data", "sample", "read.jsonl", "--samples", "1", "-n", "4", "--out", "answers", "-q"];
    assert_eq!(wsd.run(&sample).code, Some(0));
    // The built-in model marks nothing.
    let score = ["data", "score", "answers/wsd.jsonl", "--by", "grade,length", "--model", "judge=builtin:draft"];
    let score = [&score[..], &["--out", "scored.jsonl", "-q"]].concat();
    let scored = || {
        let run = wsd.run(&score);
        assert_eq!(run.code, Some(0), "{}", run.err);
        (wsd.read("scored.jsonl"), wsd.read("scored.jsonl.card.json"))
    };
    let first = scored();
    assert!(first.1.contains("\"unmarked\": 3"), "{}", first.1);
    assert_eq!(scored(), first, "of a finished file");
    let cut: String = first.0.split_inclusive('\n').take(2).collect();
    wsd.write("scored.jsonl", &cut);
    assert_eq!(scored(), first, "of a file that was resumed");
}

#[test]
fn manual_pages_are_written() {
    let wsd = Wsd::new();
    assert_eq!(wsd.run(&["man", "man1"]).code, Some(0));
    for page in ["wsd.1", "wsd-generate.1", "wsd-train-tokenizer.1"] {
        assert!(wsd.read(&format!("man1/{page}")).starts_with(".ie"), "{page}");
    }
}

#[test]
fn a_conversation_is_changed_and_loaded_again() {
    let wsd = Wsd::new();
    let turns =
        "\"\"\"\nWhere does\nthe duck live?\n\"\"\"\n/window 3\n/retry\nAnd the fox?\n/undo\n/save talk.jsonl\n";
    let run = wsd.run_with(&["chat", "-n", "4"], turns.as_bytes());
    assert_eq!((run.code, run.out.lines().count()), (Some(0), 3), "{}", run.err);
    let saved: Value = serde_json::from_str(&wsd.read("talk.jsonl")).unwrap();
    let texts: Vec<_> = saved["messages"].as_array().unwrap().iter().map(|message| &message["content"]).collect();
    assert_eq!((texts.len(), texts[0]), (2, &json!("Where does\nthe duck live?")));
    let run = wsd.run_with(&["chat", "-n", "4"], b"/load talk.jsonl\nAnd the fox?\n/save talk.jsonl\n");
    assert!(
        run.err.contains("2 messages from talk.jsonl") && run.err.contains("4 messages in talk.jsonl"),
        "{}",
        run.err
    );
    let run = wsd.run_with(&["chat", "-n", "4"], b"/retry\n");
    assert_eq!(run.err, "error: there is no message yet\n");
}

#[test]
fn rows_come_from_standard_input_too() {
    let wsd = Wsd::new();
    let rows = "\u{FEFF}{\"prompt\": \"Hello\"}\n{\"prompt\": \"Hi\"}\n";
    let args = ["generate", "-n", "4", "--output", "out.jsonl", "--input", "-"];
    let run = wsd.run_with(&args, rows.as_bytes());
    assert_eq!((run.code, wsd.read("out.jsonl").lines().count()), (Some(0), 2), "{}", run.err);
    let run = wsd.run_with(&args, b"{}");
    assert!(run.err.contains("standard input:1: needs `prompt`"), "{}", run.err);
}

#[test]
fn overridden_settings_are_reported() {
    let wsd = Wsd::new();
    wsd.write("wsd.toml", "[prompt]\nprefill = \"Sure\"\n");
    let run = wsd.run(&["generate", "-n", "2", "--raw", "Hello"]);
    let note = "note: `prefill` of wsd.toml left out: `raw` excludes the settings of a chat\n";
    assert!(run.err.starts_with(note), "{}", run.err);
    assert_eq!(wsd.run(&["generate", "-n", "2", "--raw", "--quiet", "Hello"]).err, "");
}

#[test]
fn a_text_far_beyond_the_context_is_refused_before_it_is_encoded() {
    let run = Wsd::new().run_with(&["generate"], "word ".repeat(4 << 20).as_bytes());
    assert_eq!(run.code, Some(1));
    assert!(
        run.err.starts_with("error: the prompt has 209") && run.err.contains("which holds 512 tokens"),
        "{}",
        run.err
    );
}

#[test]
fn a_damaged_tokenizer_is_an_error() {
    let wsd = Wsd::new();
    for file in fs_err::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/base")).unwrap() {
        let file = file.unwrap();
        fs_err::copy(file.path(), wsd.path(file.file_name().to_str().unwrap())).unwrap();
    }
    let mut bytes = fs_err::read(wsd.path("tokenizer.json")).unwrap();
    let decoder = bytes.windows(9).position(|window| window == b"\"decoder\"").unwrap();
    let key = decoder + bytes[decoder..].windows(10).position(|window| window == b"add_prefix").unwrap();
    bytes[key + 9] = 0xE9;
    fs_err::write(wsd.path("tokenizer.json"), bytes).unwrap();
    let run = wsd.run(&["generate", "--base", ".", "--strategy", "base", "-n", "2", "hi"]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.starts_with("error: the base model `.` cannot be loaded"), "{}", run.err);
    assert!(run.err.contains("tokenizer.json`: invalid unicode code point at line 26"), "{}", run.err);
    assert!(!run.err.contains("panicked"), "{}", run.err);
}

#[test]
fn a_row_that_cannot_be_answered_holds_its_error() {
    let wsd = Wsd::new();
    let long = json!({ "prompt": "word ".repeat(20_000) });
    wsd.write("in.jsonl", &format!("{{\"prompt\": \"Hello\"}}\n{long}\n{{\"prompt\": \"Hi\"}}\n"));
    let args = ["generate", "-n", "4", "--full", "--input", "in.jsonl", "--output", "out.jsonl", "--quiet"];
    for _ in 0..2 {
        let run = wsd.run(&args);
        assert_eq!(run.code, Some(1));
        assert!(
            run.err.ends_with("error: 1 of 3 rows could not be answered: see `error` in out.jsonl\n"),
            "{}",
            run.err
        );
        let rows = without_timings(&wsd.read("out.jsonl"));
        assert_eq!((keys(&rows[1]), rows.len()), (vec!["prompt", "error"], 3));
        assert!(rows[1]["error"].as_str().unwrap().starts_with("the prompt has"), "{}", rows[1]["error"]);
        assert_eq!(rows[2]["wsd"]["tokens"].as_array().unwrap().len(), 4);
    }
}

#[test]
fn a_conversation_by_pipe() {
    let wsd = Wsd::new();
    let turns = b"Hello\n\n/strategy base\nAnd you?\n/save talk.jsonl\n/reset\nHello\n/quit\nnever said\n";
    let run = wsd.run_with(&["chat", "-n", "6"], turns);
    assert_eq!(run.code, Some(0), "{}", run.err);
    insta::with_settings!({filters => vec![(r"\([\d.]+/s\)", "(speed)"), (r"[\d.]+ s ", "time ")]}, {
        insta::assert_snapshot!("chat_notes", run.err);
    });
    let saved: Value = serde_json::from_str(&wsd.read("talk.jsonl")).unwrap();
    let roles: Vec<_> = saved["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(saved["messages"][2]["content"], "And you?");

    let run = wsd.run_with(&["chat"], b"/threshold 7\nHello\n");
    assert_eq!((run.code, run.out.as_str()), (Some(2), ""));
    assert_eq!(run.err, "error: `threshold` must be a number from 0 to 1, got 7\n");
    let run = wsd.run_with(&["chat"], b"/temperature\n/temperature 0.5\n/temperature\n");
    assert_eq!((run.code, run.err.as_str()), (Some(0), "temperature 0\ntemperature 0.5\ntemperature 0.5\n"));
    let run = wsd.run_with(&["chat"], b"/save talk.jsonl\n");
    assert_eq!(run.err, "error: there are no messages to save\n");
    let run = wsd.run_with(&["chat", "-n", "2", "--quiet"], b"/threshold 0.5\nHello\n/exit\nnever said\n");
    assert_eq!((run.code, run.out.lines().count(), run.err.as_str()), (Some(0), 1, ""));
}

#[test]
fn a_conversation_outlives_the_context() {
    let wsd = Wsd::new();
    let run = wsd.run_with(
        &["chat", "-n", "30"],
        ["What colour is the fox?\n".repeat(60), "/save talk.jsonl\n".into()].concat().as_bytes(),
    );
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.err.contains("\nthe context is full: the oldest "), "{}", run.err);
    assert!(run.err.ends_with("\n120 messages in talk.jsonl\n"), "nothing that was said is lost: {}", run.err);
}

/// A terminal is had by way of util-linux's `script`.
#[cfg(target_os = "linux")]
#[test]
fn bytes_that_are_not_utf8_do_not_end_a_conversation() {
    let wsd = Wsd::new();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{} chat -n 4 --color never", env!("CARGO_BIN_EXE_wsd")), "/dev/null"]);
    script.current_dir(wsd.folder.path()).env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = script.spawn() else { return eprintln!("skipped: there is no `script`") };
    let mut stdin = child.stdin.take().unwrap();
    for typed in [&b"caf\xff\r"[..], b"/help\r", b"/quit\r"] {
        std::thread::sleep(std::time::Duration::from_millis(500));
        stdin.write_all(typed).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("not UTF-8 and is left out") && shown.contains("/strategy NAME"), "{shown}");
    assert_eq!(output.status.code(), Some(0), "{shown}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_while_a_pipe_is_silent_ends_the_chat() {
    use std::io::{BufRead as _, BufReader};

    let wsd = Wsd::new();
    let mut child = wsd.command(&["chat", "-n", "6"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Hello\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[cfg(unix)]
#[test]
fn a_closed_standard_output_is_no_error() {
    let wsd = Wsd::new();
    for args in [&["generate", "-q", "Hello"][..], &["generate", "-q", "--json", "Hello"], &["completions", "bash"]] {
        let mut child = wsd.command(args).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_of_answers_ends_when_it_is_closed() {
    use std::io::{BufRead as _, BufReader};

    let wsd = Wsd::new();
    wsd.write("in.jsonl", &"{\"prompt\": \"Hello\"}\n".repeat(40));
    let args = ["generate", "-n", "4", "--parallel", "1", "--quiet", "--input", "in.jsonl", "--output"];
    let first_row = |reader: &mut dyn std::io::Read| {
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).unwrap();
        assert!(line.starts_with("{\"prompt\": \"Hello\", \"output\":"), "{line}");
    };
    let ends_quietly = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    };
    let mut child = wsd.command(&[&args[..], &["/dev/stdout"]].concat()).spawn().unwrap();
    first_row(&mut child.stdout.take().unwrap());
    ends_quietly(child);

    assert!(Command::new("mkfifo").arg(wsd.path("fifo")).status().unwrap().success());
    let child = wsd.command(&[&args[..], &["fifo"]].concat()).spawn().unwrap();
    first_row(&mut fs_err::File::open(wsd.path("fifo")).unwrap());
    ends_quietly(child);
}

#[test]
fn completions_are_scripts() {
    let wsd = Wsd::new();
    for shell in ["bash", "zsh", "fish"] {
        let run = wsd.run(&["completions", shell]);
        assert_eq!(run.code, Some(0));
        assert!(run.out.contains("max-draft-tokens"), "{shell}");
        if shell == "bash" && Command::new("bash").arg("--version").output().is_ok() {
            let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            bash.stdin.take().unwrap().write_all(run.out.as_bytes()).unwrap();
            assert!(bash.wait().unwrap().success());
        }
    }
}

/// Two small models with different vocabularies, where the data folder is at hand.
fn real_pair() -> Option<[String; 2]> {
    let folder = std::env::var("WSD_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").to_owned());
    let pair = ["hf_babyllama_tok105", "hf_stories260k"].map(|name| format!("{folder}/weights/{name}"));
    let there = pair.iter().all(|path| Path::new(path).is_dir());
    if !there {
        eprintln!("skipped: {} is not there", pair[0]);
    }
    there.then_some(pair)
}

#[test]
fn real_models_tell_a_story_together() {
    let Some([base, draft]) = real_pair() else { return };
    let wsd = Wsd::new();
    let args = ["generate", "--base", &base, "--draft", &draft, "--raw", "-n", "80", "--json", "Once upon a time"];
    let story = wsd.json(&args);
    assert_eq!(story["text"], ", there was a little girl named Lily. She loved to play outside in the sunshine.");
    assert_eq!(story["handover"]["at"], 5);
    let sampled = |seed| wsd.json(&[&args[..], &["--temperature", "1", "--seed", seed]].concat())["text"].clone();
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));

    let run = wsd.run(&[&args[..], &["--dtype", "q8_0"]].concat());
    assert!(
        run.err.contains("matrices of the draft model stay as they are") && !run.err.contains("of the base model"),
        "{}",
        run.err
    );

    let run = wsd.run(&["generate", "--base", &base, "--draft", &draft, "Hello"]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("has no chat template\n  hint:"), "{}", run.err);
    let plain =
        ["generate", "--base", &base, "--draft", &draft, "--draft-template", "plain", "-n", "5", "--json", "Hi"];
    assert_eq!(wsd.json(&plain)["usage"]["completion_tokens"], 5);
}

#[test]
fn compare_shows_every_answer_and_pipes_stay_plain() {
    let wsd = Wsd::new();
    let run = wsd.run(&["compare", "-n", "24", "--svg", "picture.svg", "What colour is a fox?"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    let heads: Vec<_> = run.out.lines().filter(|line| ["base alone", "draft alone", "wsd"].contains(line)).collect();
    assert_eq!(heads, ["base alone", "draft alone", "wsd"]);
    assert!(!run.out.contains('\x1b') && run.out.contains('▸'), "{}", run.out);
    assert!(wsd.read("picture.svg").ends_with("</svg>\n"));

    let whole = wsd.json(&["compare", "--json", "--also", "nudging", "-n", "24", "What colour is a fox?"]);
    let answers = whole["answers"].as_array().unwrap();
    let names: Vec<_> = answers.iter().map(|answer| answer["strategy"].as_str().unwrap()).collect();
    assert_eq!(names, ["base", "draft", "nudging", "wsd"]);
    assert!(answers.iter().all(|answer| answer["usage"]["completion_tokens"].as_u64() > Some(0)));
    let refused = wsd.run(&["compare", "--strategy", "wsd", "Hi"]);
    assert!(refused.code == Some(2) && refused.err.contains("compares strategies"), "{}", refused.err);
}

#[test]
fn the_lab_measures_and_reports() {
    let wsd = Wsd::new();
    fs_err::create_dir(wsd.path("world")).unwrap();
    let key = json!({"type": "fact", "subject": "the fox", "value": "orange", "pool": ["orange", "yellow"]});
    let item = |task: &str, kind: &str, n: usize| {
        let messages = json!([{"role": "user", "content": format!("What colour is a fox, {n}?")}]);
        let reference = "The fox is orange.";
        let id = format!("{task}-{n}");
        json!({"id": id, "task": task, "kind": kind, "messages": messages, "key": key, "reference": reference})
    };
    let rows = (0..3).flat_map(|n| [item("helpful", "question", n), item("facts", "recall", n)]);
    wsd.write("world/eval.jsonl", &rows.map(|row| format!("{row}\n")).collect::<String>());
    let eval = [
        "lab",
        "eval",
        "--world",
        "world",
        "--out",
        "run",
        "-n",
        "20",
        "--limit",
        "2",
        "--timed-prompts",
        "1",
        "--timed-rounds",
        "1",
    ];
    let run = wsd.run(&eval);
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(
        run.out.contains("| base alone |") && run.out.contains("| WSD |") && !run.out.contains("in context"),
        "{}",
        run.out
    );
    let (results, samples) = (wsd.read("run/results.json"), wsd.read("run/samples/wsd.jsonl"));
    assert_eq!(samples.lines().count(), 4);
    // All is there, so that nothing is answered and no model is loaded.
    let whole = wsd.run(&eval);
    assert_eq!((whole.code, &whole.out, wsd.read("run/results.json")), (Some(0), &run.out, results.clone()));
    assert!(whole.err.contains("ablation.jsonl has its ") && !whole.err.contains("the built-in pair"), "{}", whole.err);
    for name in ["results.md", "figure.svg", "positions.svg", "ablation.svg", "manifest.json"] {
        assert!(wsd.path("run").join(name).exists(), "{name}");
    }
    let again = wsd.run(&["lab", "report", "run"]);
    assert_eq!((again.out, wsd.read("run/results.json")), (run.out, results));
    let more = wsd.run(&["lab", "eval", "--world", "world", "--out", "other", "--systems", "tuned"]);
    assert!(more.code == Some(2) && more.err.contains("--tuned"), "{}", more.err);
    // A draft of one's own leaves no base but the tuned one.
    wsd.copy_base();
    let own = ["lab", "eval", "--world", "world", "--out", "own", "-n", "8", "--limit", "1", "--parts", "table"];
    let own = wsd.run(&[&own[..], &["--systems", "pilot,tuned", "--draft", ".", "--tuned", "."]].concat());
    assert!(own.code == Some(0) && own.out.contains("| tuned base |"), "{} {}", own.out, own.err);
    let row: Value = serde_json::from_str(wsd.read("own/samples/tuned.jsonl").lines().next().unwrap()).unwrap();
    let settings = &row["wsd"]["settings"];
    assert_eq!((&settings["base"], &settings["base_template"]), (&json!("."), &json!("plain")));
    let drafts = ["lab", "eval", "--world", "world", "--out", "drafts", "--parts", "switch", "--limit", "2"];
    let drafts = wsd.run(&drafts);
    assert_eq!((drafts.code, drafts.out.as_str()), (Some(0), ""), "{}", drafts.err);
    let learned = wsd.run(&["train", "switch", "--input", "drafts/switch.jsonl"]);
    assert!(learned.code == Some(0) && learned.out.contains("switch_rule = \"learned\""), "{}", learned.err);
}

#[test]
fn the_engine_and_a_random_pair_are_measured() {
    let wsd = Wsd::new();
    let saved = wsd.run(&["bench", "engine", "tiny", "--dtype", "bf16", "--save", "model"]);
    assert_eq!(saved.code, Some(0), "{}", saved.err);
    for model in ["tiny", "model"] {
        let args = ["bench", "engine", model, "--repeats", "1", "--tokens", "2", "--context", "8", "--json"];
        let report = wsd.json(&args);
        let figures = report["figures"].as_array().unwrap();
        assert_eq!(figures.len(), 7);
        assert!(figures.iter().all(|figure| figure["seconds"].as_f64().unwrap() > 0.0), "{report}");
        assert_eq!(report["format"], if model == "tiny" { "Q8_0" } else { "BF16" });
    }
    let pair = ["bench", "wsd", "--base", "tiny", "--draft", "tiny", "--agreement", "0.7", "-n", "40"];
    let report = wsd.json(&[&pair[..], &["--max-draft-tokens", "64", "--repeats", "1", "--json"]].concat());
    let systems = report["systems"].as_array().unwrap();
    assert_eq!(systems.len(), 6);
    assert!(systems.iter().all(|system| system["tokens"] == 40), "{report}");
    assert!(systems.iter().all(|system| system["same_tokens_as"]["same"] != false), "{report}");
    let refused = wsd.run(&["bench", "wsd", "--base", "1b", "--draft", "tiny"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("one vocabulary, but `1b` has 32000 tokens and `tiny` has 2048"), "{}", refused.err);
    let refused = wsd.run(&["bench", "engine", "2b"]);
    assert!(refused.err.contains("the shapes are tiny, 150m, 1b, 3b, 8b"), "{}", refused.err);
}

#[test]
fn benchmarks_are_answered_graded_and_resumed() {
    let wsd = Wsd::new();
    let rows = [("2 + 2?", 4), ("3 + 3?", 6), ("1 + 2?", 3)];
    let row = |(question, answer): (&str, i32)| {
        format!("{}\n", json!({"question": question, "answer": format!("#### {answer}")}))
    };
    wsd.write("test.jsonl", &rows.map(row).concat());
    let args = ["eval", "gsm8k_zero=test.jsonl", "--out", "run", "--max-tokens", "8", "--systems", "wsd,base", "-q"];
    let first = wsd.run(&args);
    assert_eq!((first.code, first.err.as_str()), (Some(0), ""));
    assert!(first.out.starts_with("| gsm8k_zero | strict | flexible | n | failed |"), "{}", first.out);
    let results: Value = serde_json::from_str(&wsd.read("run/results.json")).unwrap();
    let systems = results["tasks"][0]["systems"].as_array().unwrap();
    assert_eq!(systems.iter().map(|system| &system["system"]).collect::<Vec<_>>(), ["base", "wsd"]);
    assert!(systems.iter().all(|system| system["n"] == 3 && system["failed"] == 0));
    assert!(wsd.read("run/lm_eval/base.json").contains("exact_match,strict-match"));

    // A file that was cut in a row is completed to the same answers.
    let whole = wsd.read("run/samples/gsm8k_zero/wsd.jsonl");
    let cut: String = whole.chars().take(whole.len() / 2).collect();
    wsd.write("run/samples/gsm8k_zero/wsd.jsonl", &cut);
    assert_eq!(wsd.run(&args).code, Some(0));
    let outputs = |text: &str| {
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["output"].clone());
        rows.collect::<Vec<_>>()
    };
    assert_eq!(outputs(&whole), outputs(&wsd.read("run/samples/gsm8k_zero/wsd.jsonl")));

    // Other settings and another file are refused.
    let other = wsd.run(&[&args[..], &["--temperature", "1"]].concat());
    assert!(
        other.code == Some(1) && other.err.contains("answered with other settings: `temperature`"),
        "{}",
        other.err
    );
    for (more, told) in [(["-n", "9"], "`max_tokens` 8, now 9"), (["--limit", "2"], "`limit` unset, now 2")] {
        let mut other = args.to_vec();
        other.retain(|word| !["--max-tokens", "8"].contains(word));
        other.extend(if more[0] == "-n" { more.to_vec() } else { [&["-n", "8"], &more[..]].concat() });
        let run = wsd.run(&other);
        assert!(run.code == Some(1) && run.err.contains(told), "{}", run.err);
    }
    wsd.write("test.jsonl", &row(rows[1]).repeat(2));
    let other = wsd.run(&args);
    assert!(other.err.contains("other settings: `file_sha256`"), "{}", other.err);
}

#[test]
fn programs_that_are_not_run_are_not_graded_in_silence() {
    let wsd = Wsd::new();
    let row = json!({
        "task_id": "HumanEval/0", "prompt": "def one():\n", "canonical_solution": "    return 1\n",
        "test": "def check(candidate):\n    assert candidate() == 1\n", "entry_point": "one",
    });
    wsd.write("HumanEval.jsonl", &format!("{row}\n"));
    let run = wsd.run(&["eval", "humaneval=HumanEval.jsonl", "--out", "run", "-n", "4", "--strategy", "base", "-q"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.err.contains("humaneval: nothing was graded") && run.err.contains("--allow-execution"), "{}", run.err);
}

#[test]
fn json_that_was_cut_is_a_failure() {
    let wsd = Wsd::new();
    wsd.write("list.json", "{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"minItems\": 9}");
    let args = ["generate", "--json-schema", "list.json", "-q", "Hello"];
    let cut = wsd.run(&[&args[..], &["-n", "4"]].concat());
    assert_eq!(cut.code, Some(1));
    assert!(cut.err.starts_with("error: the answer was cut at 4 tokens before its JSON ended\n"), "{}", cut.err);
    wsd.write("list.json", "{\"enum\": [true]}");
    let whole = wsd.run(&args);
    assert_eq!((whole.code, whole.out.as_str(), whole.err.as_str()), (Some(0), "true\n", ""));
}

#[test]
fn one_model_of_one_s_own_answers_alone() {
    let wsd = Wsd::new();
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/models/base");
    let run = wsd.run_with(&["chat", "--strategy", "base", "--base", base, "-n", "4"], b"Hello\n/strategy wsd\n");
    assert_eq!((run.code, run.out.lines().count()), (Some(2), 1), "{}", run.err);
    assert!(run.err.contains("error: `wsd` needs a draft model\n  hint: name one with --draft"), "{}", run.err);
    let alone = wsd.run(&["generate", "--strategy", "speculative", "--base", base, "-n", "4", "-q", "Hello"]);
    assert_eq!((alone.code, alone.err.as_str()), (Some(0), ""));
}

#[test]
fn the_statistics_are_short_and_explain_a_missing_switch() {
    let wsd = Wsd::new();
    let args = ["generate", "-n", "12", "Where does the bread come from?"];
    let (short, long) = (wsd.run(&args).err, wsd.run(&[&args[..], &["-v"]].concat()).err);
    assert!(!short.contains("/s)") && !short.contains("per step") && long.contains("/s)"), "{short}{long}");
    let run = wsd.run(&["generate", "--max-draft-tokens", "3", "-n", "12", "Where does the bread come from?"]);
    assert!(run.err.contains("no switch: the draft is shorter than the window of 6 tokens"), "{}", run.err);
}

#[test]
fn options_of_other_programs_with_a_like_here_are_taken() {
    for option in ["--n-predict", "--predict", "--num-predict", "--max-new-tokens"] {
        let args = ["generate", "--temp", "0", option, "4", "--repeat-penalty", "1.1", "--json", "Hello"];
        assert_eq!(Wsd::new().json(&args)["usage"]["completion_tokens"], 4, "{option}");
    }
}

#[test]
fn a_command_is_not_taken_from_a_file_that_nobody_named() {
    let wsd = Wsd::new();
    wsd.write("wsd.toml", "[decode]\nstep_command = \"touch ran\"\nstep_scorer = \"command\"\n");
    let reward = ["generate", "--strategy", "reward", "-n", "4", "Hello"];
    for args in [&reward[..], &["generate", "-n", "4", "hi"], &["serve", "--port", "0"], &["compare", "hi"]] {
        let run = wsd.run(args);
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{args:?}");
        let told = "error: wsd.toml: `step_command` must be given on the command line or in a file that --config \
                    names, got one in the working folder's own file\n  hint: ";
        assert!(run.err.starts_with(told), "{}", run.err);
    }
    assert!(!wsd.path("ran").exists());
    // A server of the file's author would be sent any secret of the environment.
    wsd.write("wsd.toml", "[models]\nbase = \"http://127.0.0.1:9/m\"\n[remote]\nbase_key_env = \"AWS_SECRET\"\n");
    let run = wsd.run(&["generate", "--strategy", "base", "hi"]);
    assert!(
        run.code == Some(2) && run.err.starts_with("error: wsd.toml: `base_key_env` must be given on"),
        "{}",
        run.err
    );
    let rating = "while read -r line; do touch ran; echo 1; done";
    wsd.write("own.toml", &format!("[decode]\nstep_command = \"{rating}\"\nstep_scorer = \"command\"\n"));
    let run = wsd.run(&[&reward[..], &["--config", "own.toml"]].concat());
    assert!(run.code == Some(0) && wsd.path("ran").exists(), "{}", run.err);
    fs_err::remove_file(wsd.path("wsd.toml")).unwrap();
    fs_err::remove_file(wsd.path("ran")).unwrap();
    let run = wsd.run(&[&reward[..], &["--step-scorer", "command", "--step-command", rating]].concat());
    assert!(run.code == Some(0) && wsd.path("ran").exists(), "{}", run.err);
}

#[test]
fn a_wrong_command_line_has_an_exit_code_of_its_own() {
    let wsd = Wsd::new();
    wsd.write("blank.jsonl", "{\"prompt\": \" \"}\n");
    wsd.write("rows.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}\n");
    for (code, args) in [
        (2, &["compress", "--model", "m", "--output", "o", "--steps", "1"][..]),
        (2, &["compress", "--model", "m", "--output", "o", "--method", "weighted"]),
        (2, &["compress", "--model", "m", "--output", "o", "--text", "rows.jsonl"]),
        (2, &["train", "sft"]),
        (2, &["train", "head"]),
        (2, &["train", "cues", "--input", "rows.jsonl", "--output", "rows.jsonl"]),
        (2, &["merge", "ties", "--base", "b", "--model", "c", "--model", "d", "--weight", "1", "--output", "o"]),
        (2, &["bench", "engine", "1b", "--tokens", "0"]),
        (2, &["bench", "engine", "none", "--save", "o"]),
        (2, &["bench", "wsd", "--repeats", "0"]),
        (2, &["bench", "serve", "--requests", "0"]),
        (2, &["lab", "report", "a", "b"]),
        (2, &["sweep", "gsm9k=a.jsonl", "--out", "o"]),
        (2, &["generate", ""]),
        // The fault is one of the file.
        (1, &["generate", "--input", "blank.jsonl"]),
        (1, &["generate", "--input", "rows.jsonl", "--raw"]),
        (1, &["generate", "--input", "none.jsonl"]),
        (1, &["bench", "engine", "none"]),
    ] {
        let run = wsd.run(args);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.err);
        assert!(run.err.starts_with("error: "), "{args:?}: {}", run.err);
        assert!(!run.err.contains("Usage:"), "the parser sees none of these: {args:?}: {}", run.err);
    }
}

#[test]
fn the_value_of_a_flag_is_no_prompt() {
    let wsd = Wsd::new();
    let answer = |flag: &[&str]| wsd.json(&[&["generate", "--json", "-n", "4"], flag, &["Once upon a time"]].concat());
    let text = |flag: &[&str]| answer(flag)["text"].clone();
    assert_eq!(text(&["--raw", "true"]), text(&["--raw"]));
    assert_eq!(text(&["--raw", "false"]), text(&[]));
    assert_ne!(text(&["--raw"]), text(&[]), "the flag matters");
    let run = wsd.run_with(&["generate", "-n", "4", "--generation-config", "false"], b"Hello");
    let same = wsd.run_with(&["generate", "-n", "4", "--generation-config=false"], b"Hello");
    assert_eq!((run.code, run.out), (Some(0), same.out), "{}", run.err);
}

#[test]
fn windows_and_thresholds_are_swept_and_proposed() {
    let wsd = Wsd::new();
    wsd.write(
        "prompts.jsonl",
        "{\"prompt\": \"Where does the bread come from?\"}\n{\"prompt\": \"How do I sweep the chimney?\"}\n",
    );
    let options = ["prompts.jsonl", "--max-draft-tokens", "24", "-q", "--out"];
    let sweep =
        wsd.run(&[&["sweep"], &options[..], &["sweep", "--windows", "4,6", "--thresholds", "0.5,0.8"]].concat());
    assert_eq!((sweep.code, sweep.err.as_str()), (Some(0), ""));
    let cells: Value = serde_json::from_str(&wsd.read("sweep/sweep.json")).unwrap();
    assert_eq!((cells["cells"].as_array().unwrap().len(), &cells["drafts"]), (4, &json!(2)));
    assert!(wsd.read("sweep/sweep.svg").starts_with("<svg "));
    // A draft is no longer than its answer may be, and each row is told.
    let short = ["sweep", "prompts.jsonl", "-n", "5", "--out", "short", "--parallel", "1"];
    let told = wsd.run(&short);
    assert!(told.code == Some(0) && told.err.contains("1 of 2 rows"), "{}", told.err);
    for draft in wsd.read("short/drafts.jsonl").lines() {
        let draft: Value = serde_json::from_str(draft).unwrap();
        assert!((1..=5).contains(&draft["tokens"].as_array().unwrap().len()), "{draft}");
    }
    let cells: Value = serde_json::from_str(&wsd.read("short/sweep.json")).unwrap();
    assert_eq!(cells["cells"].as_array().unwrap().len(), 60);
    let limited = wsd.run(&[&short[..], &["--limit", "1"]].concat());
    assert!(limited.code == Some(1) && limited.err.contains("`limit` unset, now 1"), "{}", limited.err);
    let own = wsd.run(&[&short[..], &["--threshold", "0.35"]].concat());
    assert!(own.code == Some(0) && own.err.contains("short/drafts.jsonl has its 2 rows already"), "{}", own.err);
    assert!(own.out.contains("0.35"), "the rule in use is in the default grid: {}", own.out);

    wsd.write("wsd.toml", "[decode]\nthreshold = 0.9 # the old one\n");
    let calibrated = wsd.run(&[&["calibrate"], &options[..], &["calibration", "--write"]].concat());
    assert_eq!(calibrated.code, Some(0), "{}", calibrated.err);
    assert!(calibrated.out.contains("| in use: window 6, threshold 0.9 |"), "{}", calibrated.out);
    assert!(calibrated.out.contains("2 prompts are few"), "{}", calibrated.out);
    let found: Value = serde_json::from_str(&wsd.read("calibration/calibration.json")).unwrap();
    let written = wsd.read("wsd.toml");
    assert!(written.contains(&format!("window = {}\n", found["proposal"]["window"])), "{written}");
    assert!(!written.contains("the old one"), "{written}");
}

#[test]
fn preference_data_is_built_step_by_step() {
    let wsd = Wsd::new();
    let row = |at: usize| {
        let dialog = |answer: &str| format!("\n\nHuman: {}\n\nAssistant: {answer}", QUESTIONS[at % 4]);
        format!("{}\n", json!({"chosen": dialog("The baker."), "rejected": dialog("No idea.")}))
    };
    // The last row repeats the first.
    wsd.write("hh.jsonl", &(0..5).map(row).collect::<String>());
    wsd.write("test.jsonl", "{\"question\": \"How do I sweep the old chimney?\", \"answer\": \"#### 4\"}\n");
    let run = |args: &[&str]| {
        let run = wsd.run(args);
        assert_eq!((run.code, run.out.as_str()), (Some(0), ""), "{}", run.err);
        run.err
    };
    run(&["data", "read", "hh.jsonl", "--label", "helpful", "--licence", "MIT", "--out", "read.jsonl"]);
    let other = wsd.run(&["data", "read", "test.jsonl", "--out", "read.jsonl"]);
    assert_eq!(other.code, Some(1));
    assert!(other.err.starts_with("error: read.jsonl: the file holds rows of hh, and would be"), "{}", other.err);
    let told = run(&[
        "data",
        "filter",
        "read.jsonl",
        "--against",
        "gsm8k_zero=test.jsonl",
        "--ngram",
        "6",
        "--out",
        "prompts.jsonl",
    ]);
    assert!(told.contains("left out: contaminated 1, equal 1\n"), "{told}");
    assert!(told.contains("gsm8k_zero: 1 prompts overlap") && told.contains("\"how do i sweep the old\""), "{told}");
    assert_eq!(wsd.read("prompts.jsonl").lines().count(), 3);

    // The data set's own preferences.
    run(&["data", "pair", "prompts.jsonl", "--eval", "0.34", "--out", "given"]);
    let pair: Value = serde_json::from_str(wsd.read("given/train.jsonl").lines().next().unwrap()).unwrap();
    assert_eq!(pair["chosen"], json!([{"role": "assistant", "content": "The baker."}]));
    assert_eq!(wsd.read("given/eval.jsonl").lines().count(), 1);
    let card = wsd.read("given/README.md");
    assert!(card.contains("| hh | helpful | MIT | 5 |") && card.contains("`wsd data filter`"), "{card}");

    // New answers, which an interrupted run resumes.
    let sample = ["data", "sample", "prompts.jsonl", "--strategy", "draft", "--samples", "2", "-n", "12", "-q"];
    let sample = [&sample[..], &["--temperature", "1", "--out", "answers"]].concat();
    run(&sample);
    let whole = wsd.read("answers/draft.jsonl");
    wsd.write("answers/draft.jsonl", &whole[..whole.len() / 2]);
    run(&sample);
    assert_eq!(wsd.read("answers/draft.jsonl"), whole);
    let greedy = wsd.run(&["data", "sample", "prompts.jsonl", "--strategy", "draft", "--out", "answers"]);
    assert!(greedy.code == Some(2) && greedy.err.contains("`temperature` must be above 0"), "{}", greedy.err);
    wsd.write("long.jsonl", &format!("{}\n", json!({"prompt": "fox ".repeat(3000)})));
    run(&["data", "read", "long.jsonl", "--out", "long_read.jsonl"]);
    let failed = wsd.run(&["data", "sample", "long_read.jsonl", "--samples", "1", "-t", "1", "--out", "long", "-q"]);
    assert_eq!(failed.code, Some(1), "{}", failed.err);
    assert!(failed.err.ends_with("error: 1 of 1 row could not be answered: see `error` in long\n"), "{}", failed.err);
    let score = ["data", "score", "answers/draft.jsonl", "prompts.jsonl", "--by", "length,likelihood", "-q"];
    run(&[&score[..], &["--out", "scored.jsonl"]].concat());
    assert_eq!(wsd.read("scored.jsonl").lines().count(), 12);
    let unnamed = wsd.run(&["data", "pair", "scored.jsonl", "--out", "pairs"]);
    assert_eq!(unnamed.code, Some(2));
    assert_eq!(unnamed.err, "error: `--by` must name a score of the answers; they have: given, length, likelihood\n");
    run(&["data", "pair", "scored.jsonl", "--by", "likelihood", "--out", "pairs"]);
    let pairs = wsd.read("pairs/train.jsonl");
    assert_eq!(pairs.lines().count(), 3);
    for line in pairs.lines() {
        let pair: Value = serde_json::from_str(line).unwrap();
        assert!(pair["score_chosen"].as_f64() > pair["score_rejected"].as_f64(), "{line}");
    }
}

const QUESTIONS: [&str; 4] = [
    "Where does the bread come from?",
    "Please tell me: how do I sweep the old chimney?",
    "Who lives in the river?",
    "What is two plus two?",
];

#[test]
fn a_pair_is_analyzed() {
    let wsd = Wsd::new();
    wsd.write("prompts.jsonl", "{\"prompt\": \"Where does the bread come from?\", \"answer\": \"The baker.\"}\n");
    let args = ["analyze", "prompts.jsonl", "--out", "analysis", "--aligned-key", "answer", "--layers", "3", "-q"];
    let args = [&args[..], &["--max-draft-tokens", "12", "--max-tokens", "12", "--prefixes", "0,4"]].concat();
    let run = wsd.run(&args);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    assert!(run.out.starts_with("1 prompts, 0 failed; window 6, threshold 0.8"), "{}", run.out);
    let measured: Value = serde_json::from_str(&wsd.read("analysis/measured.jsonl")).unwrap();
    let layers = measured["layers"].as_array().unwrap();
    assert_eq!((layers.len(), &layers[2][1]), (3, &measured["logprobs"]), "the last layer's are the model's own");
    assert_eq!(measured["prefixes"].as_array().unwrap().len(), 2);
    assert!(!measured["aligned_logprobs"].as_array().unwrap().is_empty());
    assert!(wsd.read("analysis/analysis.svg").starts_with("<svg "));
    assert_eq!(wsd.run(&args).code, Some(0), "the same command resumes");

    // The answers of AlpacaEval's form, and a key that no row has.
    wsd.write("alpaca.json", "[{\"instruction\": \"Where does the bread come from?\", \"output\": \"The baker.\"}]");
    let analyze = |key: &str| {
        let args = ["analyze", "alpaca.json", "--out", "alpaca", "--layers", "0", "--prefixes", "0", "-q"];
        wsd.run(&[&args[..], &["--max-draft-tokens", "4", "--max-tokens", "4", "--aligned-key", key]].concat())
    };
    let run = analyze("anser");
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("must name a text of the rows, got `anser`, which none of 1 has"), "{}", run.err);
    assert!(analyze("output").out.contains("| aligned | base | draft |"));
}
