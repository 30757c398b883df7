//! Checkpoints with numbers of the reference implementation (a GOLDEN.json each, which explains its
//! fields), and the comparison of an executor with them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wsd_nn::arch::{Head, Scaling};
use wsd_nn::{Checkpoint, Executor, Span};

/// The tolerance of the comparison, which is the uncertainty of the reference in float32.
const LOGPROB_TOLERANCE: f64 = 1e-4;
const LOGIT_TOLERANCE: f64 = 1e-3;

/// A checkpoint file or folder with the numbers of the reference.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) sequences: Vec<Value>,
}

/// The folders to search for checkpoints: the fixtures and the shared data.
fn roots() -> [PathBuf; 2] {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("WSD_DATA").map_or_else(|| manifest.join("../../../shared/data"), PathBuf::from);
    let fixtures = std::env::var_os("WSD_FIXTURES").map_or_else(|| manifest.join("tests/fixtures"), PathBuf::from);
    [fixtures, shared.join("weights")]
}

/// Lists a folder, sorted.
fn listing(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(folder) else {
        println!("skipped: there is no {}", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

/// Lists every folder with a GOLDEN.json, once per spelling of its configuration, and every GGUF
/// file.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for root in roots() {
        for folder in listing(&root).iter().filter(|folder| folder.join("config.json").exists()) {
            let golden = json(&folder.join("GOLDEN.json"));
            for file in ["config.json", "config_transformers5.json"].iter().filter(|file| folder.join(file).exists()) {
                let name = format!("{}/{file}", folder.display());
                cases.push(Case { name, checkpoint: open_with(folder, file), sequences: sequences(&golden) });
            }
        }
        cases.extend(gguf_cases(&root));
    }
    cases
}

/// Lists the files of `gguf/`. Their GOLDEN.json may refer to that of the folder with the same
/// weights.
fn gguf_cases(root: &Path) -> Vec<Case> {
    let folder = root.join("gguf");
    if !folder.exists() {
        return Vec::new();
    }
    let golden = json(&folder.join("GOLDEN.json"));
    let case = |(file, entry): (&String, &Value)| {
        let source = json(&root.join(entry["checkpoint"].as_str().unwrap()).join("GOLDEN.json"));
        let sequences = if entry.get("sequences").is_some() { sequences(entry) } else { sequences(&source) };
        Case { name: file.clone(), checkpoint: Checkpoint::open(&folder.join(file)).unwrap(), sequences }
    };
    golden["files"].as_object().unwrap().iter().map(case).collect()
}

/// Opens a folder with `file` as its config.json, a copy if that is another file.
fn open_with(folder: &Path, file: &str) -> Checkpoint {
    if file == "config.json" {
        return Checkpoint::open(folder).unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs_err::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let config = fs_err::read(folder.join(file)).unwrap();
    fs_err::remove_file(copy.path().join("config.json")).unwrap();
    fs_err::write(copy.path().join("config.json"), config).unwrap();
    Checkpoint::open(copy.path()).unwrap()
}

/// Returns the sequences of a case: of real models, the prompts.
fn sequences(golden: &Value) -> Vec<Value> {
    golden.get("sequences").or_else(|| golden.get("prompts")).unwrap().as_array().unwrap().clone()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Computes the logits of every position of `tokens`, appended to a slot.
pub(crate) fn rows(model: &mut dyn Executor, slot: u64, tokens: &[u32]) -> Vec<Vec<f32>> {
    let start = model.cached(slot);
    let hidden = model.forward(&[Span { rows: 0..tokens.len(), ..Span::chain(slot, start, tokens) }]).unwrap();
    project(model, &hidden)
}

pub(crate) fn project(model: &mut dyn Executor, hidden: &[f32]) -> Vec<Vec<f32>> {
    let mut logits = Vec::new();
    model.project(Head::VOCABULARY, hidden, &mut logits).unwrap();
    logits.chunks(model.blueprint().vocab).map(<[f32]>::to_vec).collect()
}

pub(crate) fn log_sum_exp(row: &[f32]) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(most) + row.iter().map(|logit| f64::from(logit - most).exp()).sum::<f64>().ln()
}

fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32
}

/// Compares an executor with the reference; returns the largest error of a log-probability.
pub(crate) fn meet(name: &str, model: &mut dyn Executor, sequences: &[Value]) -> f64 {
    let mut worst = 0.0f64;
    for (slot, sequence) in sequences.iter().enumerate() {
        let slot = slot as u64;
        let tokens = ids(&sequence["ids"]);
        let rows = rows(model, slot, &tokens);
        for (index, expected) in sequence["logprobs"].as_array().unwrap().iter().enumerate().skip(1) {
            let row = &rows[index - 1];
            let error = f64::from(row[tokens[index] as usize]) - log_sum_exp(row) - expected.as_f64().unwrap();
            assert!(error.abs() <= LOGPROB_TOLERANCE, "{name}: log-probability {index} is off by {error}");
            worst = worst.max(error.abs());
        }
        let last = rows.last().unwrap();
        for pair in sequence["last_top20"].as_array().unwrap() {
            let error = f64::from(last[pair[0].as_u64().unwrap() as usize]) - pair[1].as_f64().unwrap();
            assert!(error.abs() <= LOGIT_TOLERANCE, "{name}: logit of {} is off by {error}", pair[0]);
        }
        let error = log_sum_exp(last) - sequence["last_logsumexp"].as_f64().unwrap();
        assert!(error.abs() <= LOGIT_TOLERANCE, "{name}: logsumexp is off by {error}");
        // A step beyond the original length of LongRoPE changes all of its positions.
        let is_stretched = model.blueprint().ropes.iter().any(|rope| matches!(rope.scaling, Scaling::Long { .. }));
        let is_stepwise = is_stretched || slot as usize + 1 == sequences.len();
        let expected = ids(&sequence["greedy_ids"]);
        greedy(name, model, (slot, last), &expected, if is_stepwise { 1 } else { expected.len() });
        model.release(slot);
    }
    worst
}

/// Compares the greedy tokens after the logits `last` of a slot, `size` tokens per step. As each is
/// compared, the steps may take in the expected ones.
fn greedy(name: &str, model: &mut dyn Executor, (slot, last): (u64, &[f32]), expected: &[u32], size: usize) {
    let mut found = vec![argmax(last)];
    for tokens in expected.chunks(size) {
        found.extend(rows(model, slot, tokens).iter().map(|row| argmax(row)));
    }
    assert_eq!(found[..expected.len()], *expected, "{name}: greedy tokens");
}

/// Returns the longest sequence of a case with its greedy continuation.
pub(crate) fn longest(case: &Case) -> Vec<u32> {
    let full = |sequence: &Value| [ids(&sequence["ids"]), ids(&sequence["greedy_ids"])].concat();
    case.sequences.iter().map(full).max_by_key(Vec::len).unwrap()
}

/// Returns true for cases without LongRoPE, whose change of all positions has its own test.
pub(crate) fn steady_cases() -> impl Iterator<Item = Case> {
    cases().into_iter().filter(|case| !is_stretched(case))
}

pub(crate) fn is_stretched(case: &Case) -> bool {
    case.checkpoint.config.get("rope_scaling").is_some_and(|scaling| scaling["short_factor"].is_array())
}
