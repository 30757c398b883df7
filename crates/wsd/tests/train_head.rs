//! Draft heads as their users make and use them.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "support/kills.rs"]
mod kills;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kills::{finish, strike};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures").join(name)
}

/// A folder with rows and the file of a run over them.
fn lay_out(folder: &Path, run: &str, more: &str) -> PathBuf {
    let row = |i| serde_json::json!({"prompt": format!("Count {i}."), "completion": format!(" {i}, {}.", i + 1)});
    let rows: String = (0..16).map(|i| row(i).to_string() + "\n").collect();
    fs_err::write(folder.join("rows.jsonl"), rows).unwrap();
    let file = folder.join(format!("{run}.toml"));
    let text = format!(
        "output = {:?}\nseed = 5\nthreads = 2\n[model]\nfrom = {:?}\ntemplate = \"plain\"\n[data]\ntrain = [{rows:?}]\n\
         eval = [{rows:?}]\n[head]\nintermediate_size = 32\n{more}\n[train]\nmax_steps = 60\nbatch_size = 4\n\
         learning_rate = 1e-3\nsave_steps = 5\neval_steps = 20\nlogging_steps = 5\n",
        folder.join(run),
        fixture("llama"),
        rows = folder.join("rows.jsonl"),
    );
    fs_err::write(&file, text).unwrap();
    file
}

fn wsd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
    command.args(arguments);
    command
}

fn train(file: &Path) -> Command {
    let mut command = wsd(&["train", "head", "--quiet", "--resume", "--config"]);
    command.arg(file);
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_head_is_trained_killed_resumed_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|run| lay_out(folder.path(), run, ""));
    strike(1, finish(train(&whole)), || train(&killed));
    finish(train(&killed));
    let head = folder.path().join("whole/head");
    let weights = |run: &str| {
        let file = folder.path().join(run).join("head").join(wsd::nn::draft::WEIGHTS_FILE);
        fs_err::read(file).unwrap()
    };
    assert!(weights("whole") == weights("killed"), "the bits differ");

    let base = fixture("llama");
    let [base, head] = [&base, &head].map(|path| path.display().to_string());
    let answer = |more: &[&str]| {
        let mut command =
            wsd(&["generate", "--raw", "Count 3.", "--base", &base, "-n", "40", "--json", "--temperature", "0.8"]);
        let output = command.args(more).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let alone = answer(&["--strategy", "base"]);
    let headed = answer(&["--strategy", "head", "--head", &head, "--head-nodes", "12"]);
    assert_eq!(headed["text"], alone["text"]);
    assert!(!headed["text"].as_str().unwrap().is_empty());

    // Refusals name what is wrong and the way out.
    let refused = |arguments: &[&str]| {
        let mut command = wsd(&["generate", "--raw", "Count 3.", "--strategy", "head"]);
        let output = command.args(arguments).output().unwrap();
        assert!(!output.status.success());
        told(&output)
    };
    assert!(refused(&["--base", &base]).contains("proposals of a draft head (--head FOLDER)"));
    let other = fixture("qwen2").display().to_string();
    let message = refused(&["--base", &other, "--head", &head]);
    assert!(message.contains("`base.fingerprint` must be") && message.contains("hint:"), "{message}");
    let message = refused(&["--base", &base, "--head", &base]);
    assert!(message.contains("missing draft_head.json"), "{message}");

    // A run goes on as it began, or not at all.
    let text = fs_err::read_to_string(&killed).unwrap();
    fs_err::write(&killed, text.replace("intermediate_size = 32", "intermediate_size = 48")).unwrap();
    let message = told(&train(&killed).output().unwrap());
    assert!(message.contains("`head.intermediate_size` was 32, now 48"), "{message}");
    fs_err::write(&killed, &text).unwrap();
    fs_err::remove_file(folder.path().join("killed/features.bin")).unwrap();
    let message = told(&train(&killed).output().unwrap());
    assert!(message.contains("features.bin: features: missing"), "{message}");
    let mut again = wsd(&["train", "head", "--config"]);
    let message = told(&again.arg(&whole).output().unwrap());
    assert!(message.contains("--resume goes on with it"), "{message}");
}
