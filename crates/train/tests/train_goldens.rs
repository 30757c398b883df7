//! Training against PyTorch and TRL: scripts/train_goldens.py wrote the numbers, and says what they are.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "other tests use the rest")]
mod models;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value};

use wsd_nn::{Checkpoint, TemplateChoice, arch};
use wsd_train::{
    self as train, Decay, Encoder, Example, Layout, Learner, Native, NativeOptions, Objective, Preference, Sequence,
    State, Steps, Task, Totals, Trainee as _, Tuning, Watch,
};

fn golden() -> Value {
    models::json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/train_goldens.json"))
}

/// A fixture, ready to be trained.
struct Model {
    checkpoint: Checkpoint,
    layout: Layout,
    weights: Vec<f32>,
    native: Native,
}

fn model(name: &str) -> Model {
    let checkpoint = Checkpoint::open(&models::folder(name)).unwrap();
    let plan = arch::blueprint(&checkpoint.config).unwrap();
    let layout = Layout::new(&plan);
    let weights = layout.read(&checkpoint).unwrap();
    let options = NativeOptions { threads: 2, max_len: 256, recompute: false, trained: &|_| true };
    Model { checkpoint, weights, native: Native::new(&plan, &options).unwrap(), layout }
}

fn near(what: &str, found: f64, expected: &Value, relative: f64, absolute: f64) {
    let expected = expected.as_f64().unwrap();
    let error = (found - expected).abs();
    assert!(error <= relative * expected.abs() + absolute, "{what}: {found}, expected {expected}");
}

/// All tokens but the first and the middle one.
fn example(sequence: &Value) -> Option<Example> {
    let tokens: Vec<u32> = sequence["ids"].as_array()?.iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let middle = tokens.len() / 2;
    let learned = [1..middle, middle + 1..tokens.len()].into_iter().filter(|range| !range.is_empty()).collect();
    (tokens.len() > 3).then(|| Example::of(Sequence { tokens, learned }))
}

#[test]
fn loss_gradient_and_step_are_those_of_pytorch() {
    for (name, golden) in golden()["gradients"].as_object().unwrap() {
        let Model { layout, weights, mut native, .. } = model(name);
        let sequences = models::json(&models::folder(name).join("GOLDEN.json"));
        let examples: Vec<_> = sequences["sequences"].as_array().unwrap().iter().filter_map(example).collect();
        let examples: Vec<_> = examples.iter().collect();
        let totals = Totals::of(&examples);
        let objective = Objective::find("sft").unwrap();
        let grade =
            |example: &Example, logprobs: &[&[f32]]| objective.grade(&Preference::default(), totals, example, logprobs);
        let mut gradient = vec![0.0; layout.len()];
        let graded = native.pass(&weights, &examples, &grade, Some(&mut gradient)).unwrap();
        let loss = graded.iter().map(|graded| graded.measures[0].sum).sum::<f64>() / totals.targets;
        near(&format!("{name}: loss"), loss, &golden["loss"], 1e-5, 0.0);

        let mut learner = Learner::new(&layout, weights);
        let steps = Steps { weight_decay: 0.1, max_grad_norm: 0.5, ..Steps::default() };
        learner.step(&steps, 1, 1e-3, &gradient);
        for place in layout.places() {
            let golden = &golden["tensors"][&place.name];
            let values = &gradient[place.range.clone()];
            let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            near(&format!("{name}: norm of {}", place.name), norm, &golden["norm"], 2e-5, 1e-9);
            let last = values.len() - 1;
            for (index, at) in [0, values.len() / 3, 2 * values.len() / 3, last].into_iter().enumerate() {
                let what = format!("{name}: {} at {at}", place.name);
                near(&what, values[at].into(), &golden["gradient"][index], 1e-4, norm * 1e-5);
                let after = learner.weights[place.range.start + at].into();
                near(&format!("{what} after a step"), after, &golden["after"][index], 1e-6, 2e-6);
            }
        }
    }
}

struct Silent;

impl Watch for Silent {
    fn progress(&mut self, _row: &Map<String, Value>, _total_steps: usize, _left: f64) {}
    fn note(&mut self, _text: &str) {}
}

/// What a run of three steps over all examples at once writes down.
fn three_steps(objective: &str, preference: Preference, examples: impl Fn(&Encoder) -> Vec<Example>) -> Vec<Value> {
    let Model { checkpoint, layout, weights, mut native } = model("llama");
    let encoder = Encoder::new(&checkpoint, &TemplateChoice::Own, 300, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(&encoder);
    let steps = Steps {
        batch_size: examples.len(),
        max_steps: Some(3),
        learning_rate: 1e-3,
        lr_scheduler_type: Decay::Constant,
        warmup_ratio: 0.0,
        weight_decay: 0.1,
        logging_steps: 1,
        ..Steps::default()
    };
    let mut task = Task {
        folder: folder.path().into(),
        objective: Objective::find(objective).unwrap(),
        steps,
        preference,
        seed: 1,
        examples,
        evaluation: Vec::new(),
        stop: &AtomicBool::new(false),
    };
    task.refer(&mut native, &weights).unwrap();
    let (mut tuning, learnt, learning) = Tuning::new(&layout, weights, None, 1).unwrap();
    let mut state = State { learner: Learner::new(&learning, learnt), ..State::default() };
    train::run(&mut task, &mut native, &mut tuning, &mut state, &mut Silent).unwrap();
    let rows = fs_err::read_to_string(folder.path().join(train::METRICS_FILE)).unwrap();
    rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect()
}

fn pair(row: &Value) -> [&str; 3] {
    [0, 1, 2].map(|index| row[index].as_str().unwrap())
}

#[test]
fn answers_are_learnt_as_by_trl() {
    let golden = golden();
    let pairs = golden["pairs"].as_array().unwrap();
    let rows = three_steps("sft", Preference::default(), |encoder| {
        let example = |[prompt, chosen, _]: [&str; 3]| Example::of(encoder.completion(prompt, chosen).unwrap());
        pairs.iter().map(|row| example(pair(row))).collect()
    });
    for (step, (row, expected)) in rows.iter().zip(golden["sft"].as_array().unwrap()).enumerate() {
        near(&format!("loss {step}"), row["loss"].as_f64().unwrap(), &expected["loss"], 1e-5, 0.0);
        near(&format!("norm {step}"), row["grad_norm"].as_f64().unwrap(), &expected["grad_norm"], 2e-5, 0.0);
    }
}

#[test]
fn preferences_are_learnt_as_by_trl() {
    let golden = golden();
    let pairs = golden["pairs"].as_array().unwrap();
    for run in golden["dpo"].as_array().unwrap() {
        let preference = Preference { beta: run["beta"].as_f64().unwrap(), ..Preference::default() };
        let rows = three_steps("dpo", preference, |encoder| {
            let example = |[prompt, chosen, rejected]: [&str; 3]| {
                let sequences = [chosen, rejected].map(|answer| encoder.completion(prompt, answer).unwrap());
                Example { sequences: sequences.into(), reference: Vec::new() }
            };
            pairs.iter().map(|row| example(pair(row))).collect()
        });
        for (step, (row, expected)) in rows.iter().zip(run["steps"].as_array().unwrap()).enumerate() {
            for (key, expected) in expected.as_object().unwrap() {
                near(&format!("{key} before step {step}"), row[key].as_f64().unwrap(), expected, 1e-5, 1e-4);
            }
        }
    }
}
