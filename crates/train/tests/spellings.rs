//! Models and adapters of every architecture, written and read again: the engine finds the numbers of
//! the trainer, in files that look like those of transformers and PEFT.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "other tests use the rest")]
mod models;

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;
use wsd_core::{Head, Values, logprob};
use wsd_nn::arch::{self, Blueprint};
use wsd_nn::{Adapter, Checkpoint, Cpu, CpuOptions, Executor as _, Format, Span, Spelling};
use wsd_train::{
    ADAPTERS, Choice, Example, Layout, ModelOptions, Objective, Pass, Sequence, Totals, TrainableModel, Trained,
    Trainer, TrainerOptions, adapters, merge, save_checkpoint, save_folder,
};

/// Weights that differ from those of a checkpoint.
fn changed(weights: &[f32]) -> Vec<f32> {
    let change = |(index, weight): (usize, &f32)| weight + (index as f32 * 0.37).sin() * 0.02;
    weights.iter().enumerate().map(change).collect()
}

/// The mean loss of all tokens after the first, by the trainer.
fn trainers_loss(blueprint: &Blueprint, weights: &[f32], sequences: &[Vec<u32>]) -> f64 {
    let max_len = blueprint.max_len.min(512);
    let options = ModelOptions { threads: 1, max_len, trained: &|_| Trained::Frozen, ..ModelOptions::default() };
    let mut model = TrainableModel::try_new(blueprint, &options).unwrap();
    let example = |tokens: &Vec<u32>| {
        Example::of(Sequence { tokens: tokens.clone(), target_ranges: std::iter::once(1..tokens.len()).collect() })
    };
    let examples: Vec<_> = sequences.iter().map(example).collect();
    let examples: Vec<_> = examples.iter().collect();
    let totals = Totals::of(&examples);
    let objective = Objective::find("sft").unwrap();
    let loss = (objective.make)(&Values::default());
    let pass = Pass {
        weights,
        parameters: &[],
        reference: &[],
        examples: &examples,
        totals,
        loss: &*loss,
        needs: objective.needs,
        weight: 1.0,
    };
    model.pass(&pass, None).unwrap().iter().map(|output| output.measures[0].sum).sum::<f64>() / totals.targets
}

/// The same by the engine, with the adapter of a folder.
fn engines_loss(checkpoint: &Checkpoint, adapter: Option<&Path>, sequences: &[Vec<u32>]) -> f64 {
    let mut cpu = Cpu::load_with(checkpoint, CpuOptions { exact: true, ..CpuOptions::default() }).unwrap();
    if let Some(folder) = adapter {
        let spelling = Spelling::of(cpu.blueprint());
        cpu.adapt(&Adapter::open(folder, &spelling).unwrap()).unwrap();
    }
    let (mut sum, mut count) = (0.0, 0.0);
    for (slot, tokens) in (0..).zip(sequences) {
        let states = cpu.forward(&[Span { rows: 0..tokens.len() - 1, ..Span::chain(slot, 0, tokens) }]).unwrap();
        let mut rows = Vec::new();
        cpu.project(Head::VOCABULARY, &states, &mut rows).unwrap();
        for (row, token) in rows.chunks_exact(cpu.blueprint().vocab).zip(&tokens[1..]) {
            sum -= logprob(row, *token).unwrap();
            count += 1.0;
        }
        cpu.release(slot);
    }
    sum / count
}

/// The longer sequences of a model.
fn sequences(model: &models::Model) -> Vec<Vec<u32>> {
    model.sequences.iter().filter(|tokens| tokens.len() > 3).cloned().collect()
}

/// The names and shapes of the tensors in the files of a folder.
fn stored(folder: &Path) -> BTreeMap<String, Vec<usize>> {
    let files = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    let tensors = |file| {
        let bytes = fs_err::read(file).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
        tensors.into_iter().map(|(name, view)| (name, view.shape().to_vec())).collect::<Vec<_>>()
    };
    files.flat_map(tensors).collect()
}

#[test]
fn models_are_written_as_their_architecture_is_spelled() {
    for model in models::all() {
        let name = &model.name;
        let checkpoint = &model.checkpoint;
        let blueprint = arch::blueprint(&checkpoint.config).unwrap();
        let layout = Layout::new(&blueprint);
        let sequences = sequences(&model);
        let start = layout.read(checkpoint).unwrap();
        let [own, engines] =
            [trainers_loss(&blueprint, &start, &sequences), engines_loss(checkpoint, None, &sequences)];
        assert!((own - engines).abs() < 2e-5 * engines, "{name}: {own}, by the engine {engines}");
        let weights = changed(&start);
        let to = tempfile::tempdir().unwrap();
        let folder = to.path().join("model");
        let source = models::folder(name);
        save_folder(&folder, checkpoint, Some(&source), (&layout, &weights), Format::F32).unwrap();
        let written = Checkpoint::open(&folder).unwrap();
        assert!(layout.read(&written).unwrap() == weights, "{name}: other weights are read than written");
        let [own, engines] =
            [trainers_loss(&blueprint, &weights, &sequences), engines_loss(&written, None, &sequences)];
        assert!((own - engines).abs() < 2e-5 * engines, "{name}: {own}, by the engine {engines}");
        let expected: Vec<_> = stored(&source).into_iter().filter(|(name, _)| !name.starts_with("lm_head")).collect();
        let found: Vec<_> = stored(&folder).into_iter().filter(|(name, _)| !name.starts_with("lm_head")).collect();
        // Matrices in MXFP4 have other names than others.
        assert!(found == expected || name == "gpt_oss_mxfp4", "{name}: {found:?}, expected {expected:?}");
        println!("{name}: off by {:.1e}", (own - engines).abs());
        // As they are, with a head that is stored though it is tied.
        let folder = to.path().join("checkpoint");
        save_checkpoint(&folder, &merge::in_format(checkpoint, Format::F32).unwrap(), Some(&source)).unwrap();
        assert!(stored(&folder) == stored(&source) || name == "gpt_oss_mxfp4", "{name}: {:?}", stored(&folder));
        assert!(layout.read(&Checkpoint::open(&folder).unwrap()).unwrap() == start, "{name}: other weights");
    }
}

#[test]
fn adapters_are_written_as_their_architecture_is_spelled() {
    let lora = ADAPTERS.iter().copied().find(|entry| entry.name == "lora").unwrap();
    for model in models::all() {
        let name = &model.name;
        let blueprint = arch::blueprint(&model.checkpoint.config).unwrap();
        let layout = Layout::new(&blueprint);
        let sequences = sequences(&model);
        let weights = layout.read(&model.checkpoint).unwrap();
        let choice = Choice { entry: lora, values: Values::default().with(lora.settings[0], 2usize).unwrap() };
        let options = TrainerOptions { adapter: choice, threads: 1, max_len: 64, ..TrainerOptions::default() };
        let mut trainer = Trainer::try_new(&blueprint, weights.clone(), &options).unwrap();
        let parameters = &mut trainer.state.parameters;
        parameters.iter_mut().enumerate().for_each(|(index, value)| *value += (index as f32 * 0.7).sin() * 0.05);
        let to = tempfile::tempdir().unwrap();
        let folder = to.path().join("adapter");
        assert!(trainer.save_adapter(&folder, &options.adapter, "the-base").unwrap());
        let merged = trainer.weights().to_vec();
        let (mut adapter, parameters) = adapters::load(&folder, &layout, weights.clone()).unwrap();
        assert!(adapter.merge(&parameters) == merged, "{name}: another adapter is read than written");
        let own = trainers_loss(&blueprint, &merged, &sequences);
        let engines = engines_loss(&model.checkpoint, Some(&folder), &sequences);
        assert!((own - engines).abs() < 1e-4 * engines, "{name}: {own}, by the engine {engines}");
        let change = (own - trainers_loss(&blueprint, &weights, &sequences)).abs();
        assert!(change > 1e-4, "{name}: the adapter changes the loss by {change} alone");
        let config: Value = models::json(&folder.join("adapter_config.json"));
        println!("{name}: off by {:.1e}, {}", (own - engines).abs(), config["target_modules"]);
    }
}

/// The names that PEFT gives to the adapters of a GPT-2.
#[test]
fn adapters_of_gpt2_have_its_modules() {
    let model = models::all().into_iter().find(|model| model.name == "gpt2").unwrap();
    let blueprint = arch::blueprint(&model.checkpoint.config).unwrap();
    let weights = Layout::new(&blueprint).read(&model.checkpoint).unwrap();
    let lora = ADAPTERS.iter().copied().find(|entry| entry.name == "lora").unwrap();
    let saved = |targets: &[&str]| {
        let targets: Vec<_> = targets.iter().map(|name| (*name).to_owned()).collect();
        let values = Values::default().with(lora.settings[0], 2usize).unwrap();
        let choice = Choice { entry: lora, values: values.with(lora.settings[2], targets).unwrap() };
        let options = TrainerOptions { adapter: choice, max_len: 64, ..TrainerOptions::default() };
        let trainer = Trainer::try_new(&blueprint, weights.clone(), &options).unwrap();
        let to = tempfile::tempdir().unwrap();
        let folder = to.path().join("adapter");
        assert!(trainer.save_adapter(&folder, &options.adapter, "the-base").unwrap());
        let config: Value = models::json(&folder.join("adapter_config.json"));
        (stored(&folder), config)
    };
    let (tensors, config) = saved(&["c_attn"]);
    let (hidden, prefix) = (blueprint.hidden, "base_model.model.transformer.h.0.attn.c_attn");
    assert_eq!(tensors[&format!("{prefix}.lora_A.weight")], [2, hidden]);
    assert_eq!(tensors[&format!("{prefix}.lora_B.weight")], [3 * hidden, 2]);
    assert_eq!((&config["target_modules"][0], &config["fan_in_fan_out"]), (&"c_attn".into(), &true.into()));
    let (_, config) = saved(&["o_proj"]);
    assert_eq!(config["target_modules"][0], "transformer.h.0.attn.c_proj");
}
