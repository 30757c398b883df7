//! `wsd adapt` and `wsd compress` as their users run them: refused, stopped, killed, and still the
//! same model in the end.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "support/kills.rs"]
mod kills;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kills::{finish, strike};

const STREAMS: [&str; 4] = ["one", "two", "three", "four"];

fn wsd(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
    command.arg(arguments[0]).arg("--quiet").args(&arguments[1..]).current_dir(folder);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/llama");
    command.args(["--threads", "2", "--dtype", "f32"]).arg("--model").arg(model);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A folder with texts of some domains.
fn texts() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in STREAMS.into_iter().chain(["held-out"]) {
        let row = |i: usize| serde_json::json!({"text": format!("{name}: {i} and {} make {}.", i + 1, 2 * i + 1)});
        let rows: String = (0..60).map(|i| row(i).to_string() + "\n").collect();
        fs_err::write(folder.path().join(format!("{name}.jsonl")), rows).unwrap();
    }
    folder
}

fn adapt(folder: &Path, output: &str) -> Command {
    let mut command = wsd(&["adapt", "--eval", "old=held-out.jsonl", "--batch-size", "4", "--output", output], folder);
    for name in STREAMS {
        command.args(["--stream", &format!("{name}.jsonl")]);
    }
    command
}

/// A compression that is tuned for this many steps.
fn compress(folder: &Path, output: &str, steps: usize) -> Command {
    let mut command = wsd(&["compress", "--text", "one.jsonl", "--eval", "held-out.jsonl"], folder);
    command.args(["--max-length", "32", "--batch-size", "2", "--epochs", "3"]);
    command.args(["--steps", &steps.to_string(), "--output", output]);
    command
}

/// The error of a command that must fail with an exit code.
fn refused(mut command: Command, code: i32) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let told = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(code), "{told}");
    told
}

fn json(path: PathBuf) -> serde_json::Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

#[test]
fn a_stream_leaves_a_snapshot_of_each_domain() {
    let folder = texts();
    let first = adapt(folder.path(), "adapted").output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let told = String::from_utf8_lossy(&first.stdout);
    assert!(told.starts_with("perplexity after ") && told.lines().count() == 6, "{told}");
    let report = json(folder.path().join("adapted/report.json"));
    for (number, name) in (1usize..).zip(STREAMS) {
        let snapshot = folder.path().join(format!("adapted/after-{number}-{name}"));
        wsd::nn::Checkpoint::open(&snapshot).unwrap();
        assert_eq!(report[number], serde_json::json!([name, json(snapshot.join("scores.json"))]));
    }
    assert!(report[0][1]["old"] != report[4][1]["old"]);
    // The same command again does nothing, and another is refused.
    let again = adapt(folder.path(), "adapted").output().unwrap();
    assert_eq!((again.status.code(), &again.stdout), (Some(0), &first.stdout));
    let mut other = adapt(folder.path(), "adapted");
    other.args(["--eval", "new=one.jsonl", "--mask", "0.5"]);
    let told = refused(other, 1);
    assert!(told.contains("begun with other values of `eval`, `mask`\n  hint: "), "{told}");
}

#[test]
fn a_compressed_model_is_reported() {
    let folder = texts();
    finish(compress(folder.path(), "small", 8));
    let report = json(folder.path().join("small/report.json"));
    let [table] = report["tables"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!(table["name"], "model.embed_tokens.weight");
    assert!(table["rank"].as_u64().unwrap() > 0 && table["cosine"].as_f64().unwrap() > 0.5, "{table}");
    for (key, name) in [("before", "perplexity"), ("after", "divergence")] {
        assert!(report[key][name].as_f64().unwrap() > 0.0, "{report}");
    }
    assert!(report["bytes"][1].as_u64().unwrap() < report["bytes"][0].as_u64().unwrap(), "{report}");
    assert!(report["seconds_per_token"][0].as_f64().unwrap() > 0.0, "{report}");
    let model = wsd::nn::Checkpoint::open(&folder.path().join("small/model")).unwrap();
    assert!(model.config.contains_key(wsd::nn::arch::EMBEDDING_RANK));
    let mut weighted = compress(folder.path(), "weighted", 0);
    weighted.args(["--method", "weighted"]);
    finish(weighted);
    let of_texts = json(folder.path().join("weighted/report.json"));
    let divergence = |report: &serde_json::Value| report["before"]["divergence"].as_f64().unwrap();
    assert!(divergence(&of_texts) < divergence(&report), "{of_texts} {report}");
    weighted = compress(folder.path(), "kept", 0);
    weighted.args(["--keep", "3"]);
    finish(weighted);
    assert_eq!(json(folder.path().join("kept/report.json"))["tables"][0]["kept"], 3);
    let told = refused(compress(folder.path(), "small", 8), 1);
    assert!(told.contains("the folder holds a compressed model\n  hint: "), "{told}");
}

/// Limits are checked before the folder of results is made.
#[test]
fn options_outside_their_limits_are_refused() {
    let folder = texts();
    type Make = fn(&Path) -> Command;
    let (adapt, compress): (Make, Make) = (|folder| adapt(folder, "out"), |folder| compress(folder, "out", 8));
    let cases: [(Make, &[&str], &str); 7] = [
        (adapt, &["--max-length", "1"], "`max-length` must be at least 2, got 1"),
        (adapt, &["--learning-rate", "1000"], "`learning-rate` must be at least 0 and below 1000, got 1000"),
        (adapt, &["--mask", "1.5"], "`mask_share` must be from 0 to 1, got 1.5"),
        (adapt, &["--momentum", "2"], "`momentum` must be from 0 to 1, got 2"),
        (adapt, &["--eval", "old=one.jsonl"], "`eval` must be sets of different names, got `old` twice"),
        (compress, &["--share", "0"], "`share` must be above 0 and at most 1, got 0"),
        (compress, &["--rank", "33"], "`rank` must be from 1 to the model's width, 32, got 33"),
    ];
    for (make, arguments, message) in cases {
        let mut command = make(folder.path());
        command.args(arguments);
        let told = refused(command, 2);
        assert!(told.contains(message), "{arguments:?}: {told}");
        assert!(!folder.path().join("out").exists(), "{arguments:?}");
    }
    for (arguments, message) in [
        (["--batch-size", "0"], "`batch-size` must be at least 1, got 0"),
        (["--dtype", "q8_0"], "`dtype` must be bf16, f16 or f32, got Q8_0"),
    ] {
        for command in ["adapt --stream one.jsonl", "compress"] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_wsd"));
            program.args(command.split_whitespace()).args(["--model", "none", "--output", "out"]);
            program.args(arguments).current_dir(&folder);
            let told = refused(program, 2);
            assert!(told.contains(message), "{command}: {told}");
        }
    }
}

/// The bytes of files, with their names for messages.
fn bytes<'n>(run: &Path, names: &[&'n str]) -> Vec<(&'n str, Vec<u8>)> {
    names.iter().map(|name| (*name, fs_err::read(run.join(name)).unwrap())).collect()
}

/// Kills a command that writes into the folder it is given, and compares files of its end with those of
/// one that nobody kills.
fn same_bits(command: impl Fn(&Path, &str) -> Command, files: &[&str], seed: u64) {
    let folder = texts();
    let whole = finish(command(folder.path(), "whole"));
    strike(seed, whole, || command(folder.path(), "killed"));
    let killed = folder.path().join("killed");
    if !files.iter().all(|name| killed.join(name).exists()) {
        finish(command(folder.path(), "killed"));
    }
    let [whole, killed] = ["whole", "killed"].map(|run| bytes(&folder.path().join(run), files));
    for ((name, whole), (_, killed)) in whole.iter().zip(&killed) {
        assert!(whole == killed, "{name} differs");
    }
}

fn kill_adapt(more: &[&str], seed: u64) {
    let command = |folder: &Path, output: &str| {
        let mut command = adapt(folder, output);
        command.args(more);
        command
    };
    let files = [
        "after-1-one/model.safetensors",
        "after-3-three/model.safetensors",
        "after-4-four/model.safetensors",
        "checkpoint-60/state.safetensors",
        "report.json",
    ];
    same_bits(command, &files, seed);
}

fn kill_compress(steps: usize, seed: u64) {
    let state = format!("tuning/checkpoint-{steps}/state.safetensors");
    let files = ["factored/model.safetensors", &state, "model/model.safetensors"];
    same_bits(|folder, output| compress(folder, output, steps), &files, seed);
}

#[test]
fn killed_twenty_times_they_end_with_the_same_bits() {
    kill_adapt(&[], 3);
    kill_adapt(&["--reset"], 4);
    kill_adapt(&["--labels", "hard", "--adapter", "oft"], 5);
    kill_compress(1000, 6);
}

#[test]
fn what_takes_long_in_a_compression_is_told() {
    let folder = texts();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/llama");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
    command.args(["compress", "--eval", "held-out.jsonl", "--max-length", "32", "--epochs", "2", "--output", "small"]);
    let run = command.arg("--model").arg(model).current_dir(folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{told}");
    for part in [
        "embed_tokens.weight: singular vectors\n",
        "embed_tokens.weight: pass 2 of 2\n",
        "measuring perplexity and divergence on the held-out texts:\n",
        " rows/s\n",
        "measuring memory and speed of both models\n",
    ] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
}
