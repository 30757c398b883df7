//! Training against PyTorch and TRL: the numbers were written by scripts/train_goldens.py, which
//! explains them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "other tests use the rest")]
mod models;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::Value;
use wsd_core::Values;
use wsd_nn::{Checkpoint, TemplateChoice, arch};
use wsd_train::{
    Choice, Decay, Encoder, Example, Layout, METRICS_FILE, ModelOptions, Objective, OptimizerEntry, Pass, Sequence,
    StepInput, Steps, Task, Term, Totals, TrainableModel, Trained, Trainer, TrainerOptions, run,
};

fn golden() -> Value {
    models::json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/train_goldens.json"))
}

/// A checkpoint and its weights.
struct Model {
    checkpoint: Checkpoint,
    blueprint: arch::Blueprint,
    layout: Layout,
    weights: Vec<f32>,
}

fn model(name: &str) -> Model {
    let checkpoint = Checkpoint::open(&models::folder(name)).unwrap();
    let blueprint = arch::blueprint(&checkpoint.config).unwrap();
    let layout = Layout::new(&blueprint);
    let weights = layout.read(&checkpoint).unwrap();
    Model { checkpoint, blueprint, weights, layout }
}

fn near(what: &str, found: f64, expected: &Value, relative: f64, absolute: f64) {
    let expected = expected.as_f64().unwrap();
    let error = (found - expected).abs();
    assert!(error <= relative * expected.abs() + absolute, "{what}: {found}, expected {expected}");
}

/// An example whose targets are all tokens but the first and the middle one; `None` for a short
/// sequence.
fn example(sequence: &Value) -> Option<Example> {
    let tokens: Vec<u32> = sequence["ids"].as_array()?.iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let middle = tokens.len() / 2;
    let target_ranges = [1..middle, middle + 1..tokens.len()].into_iter().filter(|range| !range.is_empty()).collect();
    (tokens.len() > 3).then(|| Example::of(Sequence { tokens, target_ranges }))
}

#[test]
fn loss_gradient_and_step_are_those_of_pytorch() {
    for (name, golden) in golden()["gradients"].as_object().unwrap() {
        let Model { blueprint, layout, mut weights, .. } = model(name);
        let sequences = models::json(&models::folder(name).join("GOLDEN.json"));
        let examples: Vec<_> = sequences["sequences"].as_array().unwrap().iter().filter_map(example).collect();
        let examples: Vec<_> = examples.iter().collect();
        let totals = Totals::of(&examples);
        let objective = Objective::find("sft").unwrap();
        let loss = (objective.make)(&Values::default());
        let options =
            ModelOptions { threads: 2, max_len: 256, trained: &|_| Trained::Whole, ..ModelOptions::default() };
        let mut trainable = TrainableModel::try_new(&blueprint, &options).unwrap();
        let mut gradient = vec![0.0; layout.len()];
        let (needs, reference) = (objective.needs, &[][..]);
        let pass = Pass {
            weights: &weights,
            parameters: &[],
            reference,
            examples: &examples,
            totals,
            loss: &*loss,
            needs,
            weight: 1.0,
        };
        let outputs = trainable.pass(&pass, Some(&mut gradient)).unwrap();
        let loss = outputs.iter().map(|output| output.measures[0].sum).sum::<f64>() / totals.targets;
        near(&format!("{name}: loss"), loss, &golden["loss"], 1e-5, 0.0);

        let adamw = OptimizerEntry::find("adamw").unwrap();
        let decay = adamw.settings.iter().find(|setting| setting.name == "weight_decay").unwrap();
        let mut adamw = (adamw.make)(&layout, &Values::default().with(decay, 0.1).unwrap());
        let clipped = clipped(&gradient, 0.5);
        let (parameters, start) = (&mut weights[..], &[][..]);
        let (layout, learning_rate, step) = (&layout, 1e-3, 1);
        adamw.step(StepInput { parameters, gradient: &clipped, start, layout, learning_rate, step });
        for place in layout.places() {
            let golden = &golden["tensors"][&place.name];
            let values = &gradient[place.range.clone()];
            let norm = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            near(&format!("{name}: norm of {}", place.name), norm, &golden["norm"], 2e-5, 1e-9);
            let last = values.len() - 1;
            for (index, at) in [0, values.len() / 3, 2 * values.len() / 3, last].into_iter().enumerate() {
                let what = format!("{name}: {} at {at}", place.name);
                near(&what, values[at].into(), &golden["gradient"][index], 1e-4, norm * 1e-5);
                let after = weights[place.range.start + at].into();
                near(&format!("{what} after a step"), after, &golden["after"][index], 1e-6, 2e-6);
            }
        }
    }
}

/// A gradient of at most this norm, as `torch.nn.utils.clip_grad_norm_` clips it.
fn clipped(gradient: &[f32], max_norm: f64) -> Vec<f32> {
    let norm = gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    gradient.iter().map(|value| value * (max_norm / (norm + 1e-6)).min(1.0) as f32).collect()
}

/// The rows of metrics of a run of three steps over all examples at once.
fn three_steps(choice: &Choice<Objective>, examples: impl Fn(&Encoder) -> Vec<Example>) -> Vec<Value> {
    let Model { checkpoint, blueprint, weights, .. } = model("llama");
    let encoder = Encoder::try_new(&checkpoint, &TemplateChoice::Own, 300, None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(&encoder);
    let steps = Steps {
        batch_size: examples.len(),
        max_steps: Some(3),
        learning_rate: 1e-3,
        lr_scheduler_type: Decay::Constant,
        warmup_ratio: 0.0,
        logging_steps: 1,
        ..Steps::default()
    };
    let mut task = Task {
        folder: folder.path().into(),
        terms: vec![Term::new(choice, examples)],
        steps,
        seed: 1,
        stop: &AtomicBool::new(false),
    };
    let mut options = TrainerOptions { threads: 2, ..TrainerOptions::default() };
    let decay = options.optimizer.entry.settings.iter().find(|setting| setting.name == "weight_decay").unwrap();
    options.optimizer.values.set(decay, 0.1.into()).unwrap();
    let mut trainer = Trainer::try_new(&blueprint, weights, &options).unwrap();
    run(&mut task, &mut trainer, &mut ()).unwrap();
    let rows = fs_err::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
    rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect()
}

fn pair(row: &Value) -> [&str; 3] {
    [0, 1, 2].map(|index| row[index].as_str().unwrap())
}

#[test]
fn answers_are_learned_as_by_trl() {
    let golden = golden();
    let pairs = golden["pairs"].as_array().unwrap();
    let rows = three_steps(&Choice::of(Objective::find("sft").unwrap()), |encoder| {
        let example = |[prompt, chosen, _]: [&str; 3]| Example::of(encoder.completion(prompt, chosen).unwrap());
        pairs.iter().map(|row| example(pair(row))).collect()
    });
    for (step, (row, expected)) in rows.iter().zip(golden["sft"].as_array().unwrap()).enumerate() {
        near(&format!("loss {step}"), row["loss"].as_f64().unwrap(), &expected["loss"], 1e-5, 0.0);
        near(&format!("norm {step}"), row["grad_norm"].as_f64().unwrap(), &expected["grad_norm"], 2e-5, 0.0);
    }
}

#[test]
fn preferences_are_learned_as_by_trl() {
    let golden = golden();
    let pairs = golden["pairs"].as_array().unwrap();
    for run in golden["dpo"].as_array().unwrap() {
        let mut dpo = Choice::of(Objective::find("dpo").unwrap());
        dpo.values.set(dpo.entry.settings[0], run["beta"].as_f64().unwrap().into()).unwrap();
        let rows = three_steps(&dpo, |encoder| {
            let example = |[prompt, chosen, rejected]: [&str; 3]| {
                let sequences = [chosen, rejected].map(|answer| encoder.completion(prompt, answer).unwrap());
                Example { sequences: sequences.into(), ..Example::default() }
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
