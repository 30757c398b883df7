//! Losses and gradients on a stand-in for a GPU against those of the CPU, and runs on it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "other tests use the rest")]
mod models;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use wsd_core::Values;
use wsd_nn::arch::{self, Blueprint};
use wsd_nn::gpu::Arithmetic;
use wsd_nn::kernels::dense::Precision;
use wsd_train::{
    AdapterEntry, Choice, Example, Finished, Layout, ModelOptions, Needs, Objective, Pass, REWARD, Reporter, Sequence,
    Steps, Task, Term, Totals, TrainableModel, Trained, Trainer, TrainerOptions, run,
};

/// A stand-in, or `None` where there is none, which is told.
fn stand_in(precision: Precision) -> Option<Arithmetic> {
    Arithmetic::stand_in(precision).map_err(|reason| println!("skipped: {reason}")).ok()
}

/// The models that a GPU differentiates.
fn dense() -> Vec<(models::Model, Blueprint)> {
    let of = |model: models::Model| {
        let blueprint = arch::blueprint(&model.checkpoint.config).unwrap();
        (model, blueprint)
    };
    models::all().into_iter().map(of).filter(|(_, blueprint)| blueprint.experts.is_none() && !blueprint.sinks).collect()
}

/// Examples of a chosen and a rejected sequence each, of which some tokens are targets.
fn examples(model: &models::Model) -> Vec<Example> {
    let sequence = |tokens: &[u32]| {
        let middle = tokens.len() / 2;
        Sequence { tokens: tokens.to_vec(), target_ranges: vec![1..middle, middle + 1..tokens.len()] }
    };
    let example = |tokens: &Vec<u32>| {
        let sequences = vec![sequence(&tokens[..6]), sequence(&tokens[2..13])];
        let labels = [0.0, 1.0].repeat(30);
        Example { sequences, reference: vec![-30.0, -40.0], labels, ..Example::default() }
    };
    model.sequences.iter().skip(1).take(1).map(example).collect()
}

/// A loss over examples.
struct Case<'a> {
    objective: &'static Objective,
    examples: &'a [Example],
    weights: &'a [f32],
    parameters: &'a [f32],
    reference: &'a [f32],
}

impl Case<'_> {
    /// The loss and the gradient of `len` numbers.
    fn pass(&self, model: &mut TrainableModel, len: usize) -> (f64, Vec<f32>) {
        let (examples, mut gradient) = (self.examples.iter().collect::<Vec<_>>(), vec![0.0; len]);
        let loss = (self.objective.make)(&Values::default());
        let pass = Pass {
            weights: self.weights,
            parameters: self.parameters,
            reference: self.reference,
            examples: &examples,
            totals: Totals::of(&examples),
            loss: &*loss,
            needs: self.objective.needs,
            weight: 0.7,
        };
        let outputs = model.pass(&pass, Some(&mut gradient)).unwrap();
        (outputs.iter().map(|output| output.measures[0].sum).sum(), gradient)
    }
}

fn model(blueprint: &Blueprint, recompute: bool, trained: &dyn Fn(&str) -> Trained) -> TrainableModel {
    let options = ModelOptions { max_len: blueprint.max_len.min(64), recompute, trained, ..ModelOptions::default() };
    TrainableModel::try_new(blueprint, &options).unwrap()
}

/// The length of the difference of two lists as a share of the second's length.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let differences = found.iter().zip(expected).map(|(found, expected)| f64::from(found - expected));
    let of = square(&mut expected.iter().map(|value| f64::from(*value)));
    (square(&mut differences.into_iter()) / of).sqrt()
}

/// Products of floats, and the largest share by which losses and gradients may differ.
const EXACT: (Precision, f64) = (Precision::F32, 1e-4);
/// Products of bfloat16, likewise: the rounding of operands, 1e-3 on average, adds up over layers.
const ROUNDED: (Precision, f64) = (Precision::Bf16, 3e-2);

/// Compares the loss and the gradient on a stand-in with those of the CPU; those of floats tensor by
/// tensor.
fn compare(
    name: &str,
    case: &Case<'_>,
    layout: &Layout,
    make: &dyn Fn() -> TrainableModel,
    (precision, most): (Precision, f64),
) {
    let Some(gpu) = stand_in(precision) else { return };
    let (expected, gradient) = case.pass(&mut make(), layout.len());
    let (loss, found) = case.pass(&mut make().on_gpu(gpu).unwrap(), layout.len());
    let whole = distance(&found, &gradient);
    println!("{name} in {precision:?}: loss {loss} for {expected}, gradient within {whole:.1e}");
    assert!((loss - expected).abs() < most * expected.abs().max(1.0), "{name} in {precision:?}: {loss}, {expected}");
    assert!(whole < most, "{name} in {precision:?}: the gradient is off by {whole}");
    for place in layout.places().iter().filter(|_| precision == Precision::F32) {
        let [found, expected] = [&found, &gradient].map(|gradient| &gradient[place.range.clone()]);
        let error = distance(found, expected);
        // Biases of keys have no effect on a softmax.
        let is_noise = expected.iter().all(|value| value.abs() < 1e-6);
        assert!(error < 1e-3 || is_noise, "{name}: {} is off by {error}", place.name);
    }
}

/// Weights whose logits are of the size of a trained model's: matrices of half the size, in the
/// numbers that bfloat16 has.
fn calm(layout: &Layout, weights: &[f32]) -> Vec<f32> {
    let mut calm = weights.to_vec();
    for place in layout.places() {
        let factor = if place.is_matrix() { 0.5 } else { 1.0 };
        let rounded = |weight: f32| f32::from_bits(((factor * weight).to_bits() + 0x8000) & 0xffff_0000);
        calm[place.range.clone()].iter_mut().for_each(|weight| *weight = rounded(*weight));
    }
    calm
}

/// Some of the models by name.
fn some(names: &[&str]) -> Vec<(models::Model, Blueprint)> {
    dense().into_iter().filter(|(model, _)| names.contains(&&*model.name)).collect()
}

#[test]
fn gradients_of_every_dense_architecture_are_those_of_the_cpu() {
    for (index, (model_of, blueprint)) in dense().iter().enumerate() {
        let layout = Layout::new(blueprint);
        let weights = layout.read(&model_of.checkpoint).unwrap();
        let (examples, objective) = (examples(model_of), Objective::find("sft").unwrap());
        let case = Case { objective, examples: &examples, weights: &weights, parameters: &[], reference: &[] };
        let make = || model(blueprint, index % 2 == 0, &|_| Trained::Whole);
        compare(&model_of.name, &case, &layout, &make, EXACT);
    }
}

#[test]
fn gradients_in_bfloat16_are_close_to_those_of_the_cpu() {
    for (model_of, blueprint) in &some(&["gemma3_text", "gpt2", "qwen2", "smollm3"]) {
        let layout = Layout::new(blueprint);
        let reference = calm(&layout, &layout.read(&model_of.checkpoint).unwrap());
        let drift = |(index, weight): (usize, &f32)| weight + (index as f32 * 0.37).sin() * 0.03;
        let weights: Vec<_> = reference.iter().enumerate().map(drift).collect();
        let (examples, make) = (examples(model_of), || model(blueprint, false, &|_| Trained::Whole));
        for objective in ["sft", "dpo", "distill"].map(|name| Objective::find(name).unwrap()) {
            let weights = if objective.name == "sft" { &reference } else { &weights };
            let case = Case { objective, examples: &examples, weights, parameters: &[], reference: &reference };
            let name = format!("{}, {}", model_of.name, objective.name);
            // The difference of two close distributions is small beside their rounding.
            let most = if objective.needs.rows() { 2.0 * ROUNDED.1 } else { ROUNDED.1 };
            compare(&name, &case, &layout, &make, (ROUNDED.0, most));
        }
    }
}

#[test]
fn gradients_of_every_kind_of_numbers_are_those_of_the_cpu() {
    for (model_of, plain) in &some(&["gemma2", "llama"]) {
        let (vocabulary, reward) = ([plain.vocab, plain.hidden], [1, plain.hidden]);
        let blueprint = &plain.clone().with_heads(|name| match name {
            "lm_head.weight" => Some(&vocabulary),
            REWARD => Some(&reward),
            _ => None,
        });
        let layout = Layout::new(blueprint);
        let mut reference = layout.read(&model_of.checkpoint).unwrap();
        let head = &mut reference[layout.get(REWARD).unwrap().range.clone()];
        head.iter_mut().enumerate().for_each(|(index, value)| *value = (index as f32 * 1.3).cos() * 0.2);
        let drift = |(index, weight): (usize, &f32)| weight + (index as f32 * 0.37).sin() * 0.03;
        let weights: Vec<_> = reference.iter().enumerate().map(drift).collect();
        let mut examples = examples(model_of);
        for objective in ["dpo", "orpo", "distill", "step_reward"].map(|name| Objective::find(name).unwrap()) {
            if objective.needs == Needs::Rewards {
                examples.iter_mut().for_each(|example| example.sequences.truncate(1));
            }
            let case =
                Case { objective, examples: &examples, weights: &weights, parameters: &[], reference: &reference };
            let name = format!("{}, {}", model_of.name, objective.name);
            compare(&name, &case, &layout, &|| model(blueprint, false, &|_| Trained::Whole), EXACT);
        }
    }
}

#[test]
fn a_teacher_of_another_blueprint_is_read_on_the_gpu() {
    let all = some(&["gpt_neox", "llama"]);
    let [(teacher, other), (student, blueprint)] = &all[..] else { panic!("two models") };
    let layout = Layout::new(blueprint);
    let weights = layout.read(&student.checkpoint).unwrap();
    let reference = Layout::new(other).read(&teacher.checkpoint).unwrap();
    let (examples, objective) = (examples(student), Objective::find("distill").unwrap());
    let case = Case { objective, examples: &examples, weights: &weights, parameters: &[], reference: &reference };
    let make = || model(blueprint, false, &|_| Trained::Whole).with_teacher(other).unwrap();
    compare("llama by gpt_neox", &case, &layout, &make, EXACT);
}

/// On a GPU the weights are given without the changes, which it adds itself.
#[test]
fn gradients_of_low_rank_changes_are_those_of_the_cpu() {
    for (model_of, blueprint) in &some(&["phi3", "qwen2"]) {
        let layout = Layout::new(blueprint);
        let start = calm(&layout, &layout.read(&model_of.checkpoint).unwrap());
        let entry = AdapterEntry::find("lora").unwrap();
        let rank = entry.settings.iter().find(|setting| setting.name == "r").unwrap();
        let values = Values::default().with(rank, 2usize).unwrap();
        let mut adapter = (entry.make)(&layout, start.clone(), &values).unwrap();
        let mut parameters = adapter.start(1);
        parameters.iter_mut().enumerate().for_each(|(index, value)| *value += (index as f32 * 0.7).sin() * 0.05);
        let (own, merged) = (adapter.layout().clone(), adapter.merge(&parameters).to_vec());
        let (examples, objective) = (examples(model_of), Objective::find("sft").unwrap());
        let case = Case { objective, examples: &examples, weights: &merged, parameters: &parameters, reference: &[] };
        let make = || model(blueprint, false, &|name| adapter.trained(name));
        let (expected, gradient) = case.pass(&mut make(), own.len());
        for (precision, most) in [EXACT, ROUNDED] {
            let Some(gpu) = stand_in(precision) else { return };
            let mut model = make().on_gpu(gpu).unwrap();
            assert!(model.adds_changes());
            let case = Case { weights: &start, ..case };
            let (loss, found) = case.pass(&mut model, own.len());
            let error = distance(&found, &gradient);
            println!("{} in {precision:?}: loss {loss} for {expected}, gradient within {error:.1e}", model_of.name);
            assert!((loss - expected).abs() < most * expected && error < most, "{}: {error}", model_of.name);
        }
    }
}

/// Stops a run after some steps.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Reporter for StopAfter<'_> {
    fn progress(&mut self, row: &Map<String, Value>, _total_steps: usize, _seconds_left: f64) {
        self.1.store(row["step"] == self.0, Ordering::Relaxed);
    }
}

fn term(objective: &str) -> Term {
    let sequence =
        |row: u32, len: u32| Sequence::targets_from(2, (0..len).map(|at| (row * 7 + at * 3) % 250).collect());
    let pair = |row: u32| Example { sequences: vec![sequence(row, 6), sequence(row + 3, 5)], ..Example::default() };
    Term::new(&Choice::of(Objective::find(objective).unwrap()), (0..6).map(pair).collect())
}

fn task<'a>(folder: &Path, objective: &str, stop: &'a AtomicBool) -> Task<'a> {
    let steps = Steps {
        batch_size: 2,
        gradient_accumulation_steps: 2,
        max_steps: Some(4),
        learning_rate: 5e-3,
        logging_steps: 1,
        save_steps: 2,
        ..Steps::default()
    };
    Task { folder: folder.into(), terms: vec![term(objective)], steps, seed: 3, stop }
}

#[test]
fn runs_on_a_gpu_resume_to_the_same_bits_and_learn_what_the_cpu_learns() {
    let all = some(&["qwen3", "smollm3"]);
    let [(student, blueprint), (other, other_blueprint)] = &all[..] else { panic!("two models") };
    let weights = Layout::new(blueprint).read(&student.checkpoint).unwrap();
    let teacher = Layout::new(other_blueprint).read(&other.checkpoint).unwrap();
    for (objective, adapter) in [("dpo", "full"), ("sft", "lora"), ("distill", "dora")] {
        let Some(gpu) = stand_in(Precision::Bf16) else { return };
        let trainer = |gpu: Option<Arithmetic>| {
            let adapter = Choice::of(AdapterEntry::find(adapter).unwrap());
            let options = TrainerOptions { adapter, gpu, seed: 9, max_len: 16, ..TrainerOptions::default() };
            let trainer = Trainer::try_new(blueprint, weights.clone(), &options).unwrap();
            match objective {
                "distill" => trainer.with_teacher(other_blueprint, teacher.clone()).unwrap(),
                _ => trainer,
            }
        };
        let stop = AtomicBool::new(false);
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let mut whole = trainer(Some(gpu.clone()));
        run(&mut task(folders[0].path(), objective, &stop), &mut whole, &mut ()).unwrap();
        let mut interrupted = task(folders[1].path(), objective, &stop);
        let stopped = run(&mut interrupted, &mut trainer(Some(gpu.clone())), &mut StopAfter(3, &stop)).unwrap();
        assert_eq!(stopped, Finished::Stopped);
        stop.store(false, Ordering::Relaxed);
        let mut resumed = trainer(Some(gpu));
        assert_eq!(run(&mut interrupted, &mut resumed, &mut ()).unwrap(), Finished::Completed);
        assert!(whole.state.parameters == resumed.state.parameters, "{objective}, {adapter}");
        let mut cpu = trainer(None);
        let start = cpu.state.parameters.clone();
        run(&mut task(folders[2].path(), objective, &stop), &mut cpu, &mut ()).unwrap();
        let change = |trained: &[f32]| trained.iter().zip(&start).map(|(end, start)| end - start).collect::<Vec<_>>();
        let error = distance(&change(&whole.state.parameters), &change(&cpu.state.parameters));
        println!("{objective}, {adapter}: the change of the parameters is within {error:.1e} of the CPU's");
        assert!(error < 0.2, "{objective}, {adapter}: {error}");
    }
}

#[test]
fn models_and_sizes_that_a_gpu_has_not_are_refused_with_the_way_out() {
    let Some(gpu) = stand_in(Precision::Bf16) else { return };
    for model_of in models::all() {
        let blueprint = arch::blueprint(&model_of.checkpoint.config).unwrap();
        let error =
            model(&blueprint, false, &|_| Trained::Whole).on_gpu(gpu.clone()).err().map(|error| error.to_string());
        let expected = blueprint.experts.map(|_| "it has a mixture of experts");
        assert_eq!(error.is_some(), expected.is_some(), "{}", model_of.name);
        assert!(error.is_none_or(|error| error.contains(expected.unwrap()) && error.contains("--device cpu")));
    }
    let (model_of, blueprint) = &dense()[0];
    let weights = Layout::new(blueprint).read(&model_of.checkpoint).unwrap();
    let options = TrainerOptions { gpu: Some(gpu), max_len: 1 << 20, ..TrainerOptions::default() };
    let mut trainer = Trainer::try_new(blueprint, weights, &options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = run(&mut task(folder.path(), "sft", &AtomicBool::new(false)), &mut trainer, &mut ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("not enough memory") && text.contains("1024 MiB are free"), "{text}");
}
