//! The engine against numbers that the reference implementation wrote (GOLDEN.json of each checkpoint; its fields are
//! explained in it), and against itself: however a sequence is fed, the bits are the same.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wsd_nn::kernels::Simd;
use wsd_nn::{Checkpoint, Cpu, Executor, Span};

/// How near the reference is to be met. In float32 the reference itself is this uncertain.
const LOGPROB_TOLERANCE: f64 = 1e-4;
const LOGIT_TOLERANCE: f64 = 1e-3;

/// A checkpoint file or folder and the reference's numbers for it.
struct Case {
    name: String,
    checkpoint: Checkpoint,
    sequences: Vec<Value>,
}

/// Where checkpoints are looked for: beside this file and in the shared data.
fn roots() -> [PathBuf; 2] {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("WSD_DATA").map_or_else(|| manifest.join("../../../shared/data"), PathBuf::from);
    [manifest.join("tests/fixtures"), shared.join("weights")]
}

/// All that lies in a folder, sorted.
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

/// Every folder with a GOLDEN.json, once for each spelling of its configuration, and every GGUF file.
fn cases() -> Vec<Case> {
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

/// The files of `gguf/`, whose GOLDEN.json refers to that of the folder with the same weights where it has no numbers.
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

/// The folder with `file` in the place of its config.json.
fn open_with(folder: &Path, file: &str) -> Checkpoint {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs_err::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let config = fs_err::read(folder.join(file)).unwrap();
    fs_err::remove_file(copy.path().join("config.json")).unwrap();
    fs_err::write(copy.path().join("config.json"), config).unwrap();
    Checkpoint::open(copy.path()).unwrap()
}

/// Real models have prompts where random ones have sequences.
fn sequences(golden: &Value) -> Vec<Value> {
    golden.get("sequences").or_else(|| golden.get("prompts")).unwrap().as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Logits of every position of `tokens`, appended to a slot.
fn rows(cpu: &mut Cpu, slot: u64, tokens: &[u32]) -> Vec<Vec<f32>> {
    let start = cpu.cached(slot);
    let hidden = cpu.forward(&[Span { slot, start, tokens, rows: 0..tokens.len() }]).unwrap();
    project(cpu, &hidden)
}

fn project(cpu: &mut Cpu, hidden: &[f32]) -> Vec<Vec<f32>> {
    let mut logits = Vec::new();
    cpu.project(hidden, &mut logits).unwrap();
    logits.chunks(cpu.blueprint().vocab).map(<[f32]>::to_vec).collect()
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(most) + row.iter().map(|logit| f64::from(logit - most).exp()).sum::<f64>().ln()
}

fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32
}

/// Compares with the reference; returns the largest error of a log-probability.
fn meet(name: &str, cpu: &mut Cpu, sequences: &[Value]) -> f64 {
    let mut worst = 0.0f64;
    for (slot, sequence) in sequences.iter().enumerate() {
        let slot = slot as u64;
        let tokens = ids(&sequence["ids"]);
        let rows = rows(cpu, slot, &tokens);
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
        greedy(name, cpu, slot, last, &ids(&sequence["greedy_ids"]));
        cpu.release(slot);
    }
    worst
}

fn greedy(name: &str, cpu: &mut Cpu, slot: u64, last: &[f32], expected: &[u32]) {
    let mut row = last.to_vec();
    let mut found = Vec::new();
    for _ in expected {
        found.push(argmax(&row));
        row = rows(cpu, slot, &found[found.len() - 1..]).remove(0);
    }
    assert_eq!(found, expected, "{name}: greedy tokens");
}

#[test]
fn the_reference_is_met() {
    for case in cases() {
        let worst = meet(&case.name, &mut Cpu::load(&case.checkpoint).unwrap(), &case.sequences);
        println!("{}: log-probabilities within {worst:.1e}", case.name);
    }
}

#[test]
fn every_instruction_set_meets_the_reference() {
    for case in cases() {
        for simd in Simd::all() {
            meet(&case.name, &mut Cpu::load_for(&case.checkpoint, simd).unwrap(), &case.sequences);
        }
    }
}

/// The longest sequence of a case with its greedy continuation.
fn longest(case: &Case) -> Vec<u32> {
    let full = |sequence: &Value| [ids(&sequence["ids"]), ids(&sequence["greedy_ids"])].concat();
    case.sequences.iter().map(full).max_by_key(Vec::len).unwrap()
}

/// Without LongRoPE's change of all positions at some length, which has a test of its own.
fn steady_cases() -> impl Iterator<Item = Case> {
    cases().into_iter().filter(|case| !is_stretched(case))
}

fn is_stretched(case: &Case) -> bool {
    case.checkpoint.config.get("rope_scaling").is_some_and(|scaling| scaling["short_factor"].is_array())
}

#[test]
fn chunks_and_single_tokens_give_equal_bits() {
    for case in steady_cases() {
        let mut cpu = Cpu::load(&case.checkpoint).unwrap();
        let tokens = longest(&case);
        let whole = rows(&mut cpu, 0, &tokens);
        for (slot, size) in [(1, 1), (2, 3), (3, 5), (4, 16)] {
            let pieces: Vec<_> = tokens.chunks(size).flat_map(|piece| rows(&mut cpu, slot, piece)).collect();
            assert!(pieces == whole, "{} in pieces of {size}", case.name);
        }
        assert_eq!(cpu.slots(), 5);
    }
}

#[test]
fn company_in_a_batch_changes_no_bit() {
    for case in steady_cases() {
        let mut cpu = Cpu::load(&case.checkpoint).unwrap();
        let tokens = longest(&case);
        let alone = rows(&mut cpu, 0, &tokens);
        let (half, other) = (tokens.len() / 2, &tokens[3..]);
        let first = cpu
            .forward(&[
                Span { slot: 1, start: 0, tokens: &tokens[..half], rows: 0..half },
                Span { slot: 2, start: 0, tokens: other, rows: 0..0 },
                Span { slot: 3, start: 0, tokens: &[], rows: 0..0 },
            ])
            .unwrap();
        let second = cpu
            .forward(&[
                Span { slot: 2, start: other.len(), tokens: &other[..1], rows: 0..1 },
                Span { slot: 4, start: 0, tokens: &other[..7], rows: 6..7 },
                Span { slot: 1, start: half, tokens: &tokens[half..], rows: 1..tokens.len() - half },
            ])
            .unwrap();
        let width = cpu.blueprint().hidden;
        let (first, second) = (project(&mut cpu, &first), project(&mut cpu, &second[2 * width..]));
        assert!(first == alone[..half] && second == alone[half + 1..], "{}", case.name);
        assert_eq!(cpu.cached(2), other.len() + 1);
    }
}

#[test]
fn a_truncated_cache_is_as_good_as_a_fresh_one() {
    for case in steady_cases() {
        let mut cpu = Cpu::load(&case.checkpoint).unwrap();
        let tokens = longest(&case);
        let kept = tokens.len() / 3;
        let other: Vec<u32> = tokens[..kept].iter().chain(tokens.iter().rev()).copied().take(tokens.len()).collect();
        rows(&mut cpu, 0, &tokens);
        cpu.truncate(0, kept);
        assert_eq!(cpu.cached(0), kept);
        let edited = rows(&mut cpu, 0, &other[kept..]);
        assert!(edited == rows(&mut cpu, 1, &other)[kept..], "{}", case.name);
        cpu.truncate(0, usize::MAX);
        cpu.truncate(0, 0);
        assert_eq!((cpu.cached(0), cpu.slots()), (0, 2));
        cpu.release(0);
        assert_eq!(cpu.slots(), 1);
    }
}

#[test]
fn spans_that_cannot_be_run_are_errors_and_change_nothing() {
    let Some(case) = cases().into_iter().next() else { return };
    let mut cpu = Cpu::load(&case.checkpoint).unwrap();
    rows(&mut cpu, 0, &[5, 6, 7]);
    let (vocab, limit) = (cpu.blueprint().vocab as u32, cpu.blueprint().max_len);
    let good = Span { slot: 0, start: 3, tokens: &[1], rows: 0..1 };
    let long = vec![1; limit];
    #[allow(clippy::reversed_empty_ranges)]
    for (bad, word) in [
        (Span { slot: 1, start: 1, tokens: &[1], rows: 0..1 }, "0 are cached"),
        (Span { slot: 1, start: 0, tokens: &[vocab], rows: 0..1 }, "token"),
        (Span { slot: 1, start: 0, tokens: &[1], rows: 0..2 }, "rows"),
        (Span { slot: 1, start: 0, tokens: &[1], rows: 1..0 }, "rows"),
        (Span { slot: 0, start: 3, tokens: &long, rows: 0..0 }, "limit"),
        (good.clone(), "it is in the step twice"),
    ] {
        let error = cpu.forward(&[bad, good.clone()]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!((cpu.cached(0), cpu.slots()), (3, 1));
    }
    assert!(cpu.project(&[0.0; 3], &mut Vec::new()).is_err());
}

/// Where a file stretches positions by length, a sequence that grows over the border piece by piece ends like one that
/// came whole.
#[test]
fn crossing_the_border_of_long_rope_leaves_no_trace() {
    for mut case in cases().into_iter().filter(is_stretched) {
        let tokens = longest(&case);
        case.checkpoint.config.insert("original_max_position_embeddings".into(), (tokens.len() / 2).into());
        let mut cpu = Cpu::load(&case.checkpoint).unwrap();
        let whole = rows(&mut cpu, 0, &tokens);
        let grown: Vec<_> = tokens.chunks(3).flat_map(|piece| rows(&mut cpu, 1, piece)).collect();
        assert!(whole[tokens.len() / 2 + 2..] == grown[tokens.len() / 2 + 2..], "{}", case.name);
        cpu.truncate(0, 10);
        let again = rows(&mut cpu, 0, &tokens[10..13]);
        assert!(again == grown[10..13], "{}", case.name);
    }
}
