//! Whole runs: several objectives, every optimizer and adapter, interruption, adapter folders.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "other tests use the rest")]
mod models;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use wsd_core::Values;
use wsd_nn::arch::{self, Blueprint};
use wsd_nn::{Checkpoint, Format};
use wsd_train::{
    ADAPTERS, Choice, Example, Finished, Layout, METRICS_FILE, OPTIMIZERS, Objective, Reporter, Sequence, Steps, Task,
    Term, Trainer, TrainerOptions, adapters, run, save_folder,
};

struct Start {
    checkpoint: Checkpoint,
    blueprint: Blueprint,
    weights: Vec<f32>,
}

fn start() -> Start {
    let checkpoint = Checkpoint::open(&models::folder("llama")).unwrap();
    let blueprint = arch::blueprint(&checkpoint.config).unwrap();
    let weights = Layout::new(&blueprint).read(&checkpoint).unwrap();
    Start { checkpoint, blueprint, weights }
}

fn term(objective: &str, weight: f64) -> Term {
    let example =
        |row: u32| Example::of(Sequence::targets_from(2, (0..6).map(|at| (row * 7 + at * 3) % 250).collect()));
    let mut term = Term::new(&Choice::of(Objective::find(objective).unwrap()), (0..10).map(example).collect());
    term.weight = wsd_train::Weight::constant(weight);
    term
}

fn task<'a>(folder: &Path, terms: Vec<Term>, stop: &'a AtomicBool) -> Task<'a> {
    let steps = Steps {
        batch_size: 3,
        gradient_accumulation_steps: 2,
        max_steps: Some(6),
        learning_rate: 5e-3,
        logging_steps: 1,
        save_steps: 2,
        ..Steps::default()
    };
    Task { folder: folder.into(), terms, steps, seed: 3, stop }
}

fn trained(folder: &Path, terms: Vec<Term>) -> Trainer {
    let Start { blueprint, weights, .. } = start();
    let options = TrainerOptions { keeps_reference: true, ..TrainerOptions::default() };
    let mut trainer = Trainer::try_new(&blueprint, weights, &options).unwrap();
    run(&mut task(folder, terms, &AtomicBool::new(false)), &mut trainer, &mut ()).unwrap();
    trainer
}

fn metrics(folder: &Path) -> Vec<Map<String, Value>> {
    let text = fs_err::read_to_string(folder.join(METRICS_FILE)).unwrap();
    text.lines().map(|row| serde_json::from_str(row).unwrap()).collect()
}

#[test]
fn several_objectives_add_up() {
    let folder = tempfile::tempdir().unwrap();
    trained(folder.path(), vec![term("sft", 1.0), term("distill", 0.5)]);
    let rows = metrics(folder.path());
    let number = |row: &Map<String, Value>, key: &str| row[key].as_f64().unwrap();
    for row in &rows {
        let sum = number(row, "sft/loss") + 0.5 * number(row, "distill/loss");
        assert!((number(row, "loss") - sum).abs() < 1e-9);
    }
    assert!(number(&rows[0], "distill/loss").abs() < 1e-9 && number(&rows[5], "distill/loss") > 0.0);
    assert!(number(&rows[5], "sft/loss") < number(&rows[0], "sft/loss"));
}

#[test]
fn a_heavier_distillation_stays_closer_to_the_start() {
    let distance = |weight: f64| {
        let folder = tempfile::tempdir().unwrap();
        trained(folder.path(), vec![term("sft", 1.0), term("distill", weight)]);
        metrics(folder.path())[5]["distill/loss"].as_f64().unwrap()
    };
    assert!(distance(20.0) < 0.5 * distance(0.0));
}

#[test]
fn an_objective_of_no_weight_changes_nothing() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let alone = trained(folders[0].path(), vec![term("sft", 1.0)]);
    let beside = trained(folders[1].path(), vec![term("sft", 1.0), term("distill", 0.0), term("starft", 0.0)]);
    assert!(alone.state.parameters == beside.state.parameters);
}

/// Stops a run after some steps.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Reporter for StopAfter<'_> {
    fn progress(&mut self, row: &Map<String, Value>, _total_steps: usize, _seconds_left: f64) {
        self.1.store(row["step"] == self.0, Ordering::Relaxed);
    }
}

#[test]
fn every_optimizer_and_adapter_resumes_to_the_same_bits() {
    for (optimizer, adapter) in
        OPTIMIZERS.iter().flat_map(|optimizer| ADAPTERS.iter().map(move |adapter| (optimizer, adapter)))
    {
        let Start { blueprint, weights, .. } = start();
        let options = TrainerOptions {
            optimizer: Choice::of(optimizer),
            adapter: Choice::of(adapter),
            seed: 9,
            keeps_reference: true,
            ..TrainerOptions::default()
        };
        let trainer = || Trainer::try_new(&blueprint, weights.clone(), &options).unwrap();
        let terms = || vec![term("sft", 1.0), term("distill", 0.5)];
        let stop = AtomicBool::new(false);
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut whole = trainer();
        run(&mut task(folders[0].path(), terms(), &stop), &mut whole, &mut ()).unwrap();
        let mut task = task(folders[1].path(), terms(), &stop);
        assert_eq!(run(&mut task, &mut trainer(), &mut StopAfter(3, &stop)).unwrap(), Finished::Stopped);
        stop.store(false, Ordering::Relaxed);
        let mut resumed = trainer();
        assert_eq!(run(&mut task, &mut resumed, &mut ()).unwrap(), Finished::Completed);
        assert!(whole.state.parameters == resumed.state.parameters, "{} {}", optimizer.name, adapter.name);
        assert!(whole.state.parameters != trainer().state.parameters);
    }
}

#[test]
fn a_changed_bit_in_a_checkpoint_is_refused_and_the_last_whole_one_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trained(folder.path(), vec![term("sft", 1.0)]);
    let latest = folder.path().join("checkpoint-6");
    let files = ["state.safetensors", "state.sha256"].map(|name| latest.join(name));
    for file in &files {
        let whole = fs_err::read(file).unwrap();
        // Bits all over the file, and a page of zeros.
        for flip in 0..100u64 {
            let bit = (wsd_core::splitmix64(flip) % (whole.len() as u64 * 8)) as usize;
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs_err::write(file, damaged).unwrap();
            let error = trainer.state.load_latest(folder.path()).unwrap_err().to_string();
            assert!(error.contains("checkpoint-6/state.safetensors: checksum: its SHA-256 differs"), "{error}");
            assert!(error.contains("hint: checkpoint-4 is whole; --resume --skip-damaged"), "{error}");
        }
        fs_err::write(file, &whole).unwrap();
    }
    assert!(trainer.state.load_latest(folder.path()).unwrap());
    let mut zeros = fs_err::read(&files[0]).unwrap();
    let page = zeros.len() / 2..zeros.len() / 2 + 4096;
    zeros[page].fill(0);
    fs_err::write(&files[0], zeros).unwrap();
    assert_eq!(wsd_train::set_aside_damaged(folder.path()).unwrap(), ["damaged-checkpoint-6"]);
    assert!(trainer.state.load_latest(folder.path()).unwrap());
    assert_eq!(trainer.state.step, 4);
}

#[test]
fn adapters_are_saved_loaded_and_merged_as_by_peft() {
    let Start { checkpoint, blueprint, weights } = start();
    let folder = tempfile::tempdir().unwrap();
    let lora = Choice::of(ADAPTERS.iter().copied().find(|entry| entry.name == "lora").unwrap());
    let rank = Values::default().with(lora.entry.settings[0], 4usize).unwrap();
    let lora = Choice { values: rank.or((lora.entry.defaults)()), ..lora };
    let options = TrainerOptions { adapter: lora.clone(), ..TrainerOptions::default() };
    let mut trainer = Trainer::try_new(&blueprint, weights.clone(), &options).unwrap();
    let stop = AtomicBool::new(false);
    run(&mut task(folder.path(), vec![term("sft", 1.0)], &stop), &mut trainer, &mut ()).unwrap();
    let saved = folder.path().join("adapter");
    assert!(trainer.save_adapter(&saved, &lora, "the-base").unwrap());

    let config = models::json(&saved.join("adapter_config.json"));
    for (key, value) in [
        ("peft_type", json!("LORA")),
        ("task_type", json!("CAUSAL_LM")),
        ("base_model_name_or_path", json!("the-base")),
        ("r", json!(4)),
        ("lora_alpha", json!(32.0)),
        ("bias", json!("none")),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    assert!(config["target_modules"].as_array().unwrap().contains(&json!("down_proj")));
    let bytes = fs_err::read(saved.join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
    assert_eq!(tensors.tensor(name).unwrap().shape(), [blueprint.query_width(), 4]);

    let layout = Layout::new(&blueprint);
    let (mut adapter, parameters) = adapters::load(&saved, &layout, weights.clone()).unwrap();
    let merged = adapter.merge(&parameters);
    assert!(merged != weights);
    let own = trainer.weights();
    assert!(merged.iter().zip(own).all(|(a, b)| (a - b).abs() <= 1e-6));

    let to = folder.path().join("merged");
    save_folder(&to, &checkpoint, Some(&models::folder("llama")), (&layout, merged), Format::F32).unwrap();
    assert!(layout.read(&Checkpoint::open(&to).unwrap()).unwrap() == merged);

    let mut refused = config;
    refused["modules_to_save"] = json!(["lm_head"]);
    fs_err::write(saved.join("adapter_config.json"), refused.to_string()).unwrap();
    let error = adapters::load(&saved, &layout, weights).err().unwrap().to_string();
    assert!(error.contains("`modules_to_save` is not supported"), "{error}");
}

/// Folders that PEFT wrote, and the weights that it merged; see scripts/peft_goldens.py.
#[test]
fn adapters_of_peft_are_merged_as_by_peft() {
    let Start { blueprint, weights, .. } = start();
    let layout = Layout::new(&blueprint);
    for name in ["lora", "dora", "oft"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft").join(name);
        let golden = models::json(&folder.join("GOLDEN.json"));
        let (mut adapter, parameters) = adapters::load(&folder, &layout, weights.clone()).unwrap();
        let changed = layout.places().iter().filter(|place| adapter.changes(&place.name)).map(|place| &place.name);
        assert_eq!(changed.collect::<Vec<_>>(), golden.as_object().unwrap().keys().collect::<Vec<_>>(), "{name}");
        let merged = adapter.merge(&parameters);
        for (tensor, expected) in golden.as_object().unwrap() {
            let range = layout.get(tensor).unwrap().range.clone();
            let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
            let (found, before) = (merged[range.clone()].iter().step_by(5), weights[range].iter().step_by(5));
            let far = found.clone().zip(before).filter(|(found, before)| (*found - *before).abs() > 1e-3).count();
            assert!(far > expected.len() / 10, "{name}: {tensor} is hardly changed");
            for (found, expected) in found.zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "{name}: {tensor}: {found}, expected {expected}");
            }
        }
    }
}

/// PEFT states the same adapter in several ways: modules by an expression or with exceptions, layers by
/// a pattern, the scale of rank-stabilized LoRA, and names within a model of several parts.
#[test]
fn adapters_stated_in_other_words_are_the_same() {
    let Start { blueprint, weights, .. } = start();
    let layout = Layout::new(&blueprint);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft/lora");
    let bytes = fs_err::read(source.join("adapter_model.safetensors")).unwrap();
    let merged = |changes: Value, prefix: &str| {
        let mut config = models::json(&source.join("adapter_config.json"));
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let renamed = stored.tensors().into_iter().map(|(name, view)| (name.replace("model.model.", prefix), view));
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        let weights_file = folder.path().join("adapter_model.safetensors");
        fs_err::write(weights_file, safetensors::serialize(renamed, None).unwrap()).unwrap();
        let (mut adapter, parameters) = adapters::load(folder.path(), &layout, weights.clone()).unwrap();
        adapter.merge(&parameters).to_vec()
    };
    let own = merged(json!({}), "model.model.");
    let expression = json!({"target_modules": r"(?:.*?(?:language|text).*?(?:q_proj|down_proj))"});
    assert_eq!(merged(expression, "model.model."), own);
    let pattern = json!({"layers_pattern": ["layers"], "layers_to_transform": [0, 1], "exclude_modules": ["k_proj"]});
    assert_eq!(merged(pattern, "model.model."), own);
    assert_eq!(merged(json!({}), "model.model.language_model."), own);
    // The scale is 6 / 3.
    let stabilized = merged(json!({"use_rslora": true, "lora_alpha": 2.0 * 3f64.sqrt()}), "model.model.");
    assert!(stabilized.iter().zip(&own).all(|(found, own)| (found - own).abs() < 1e-6));
}

#[test]
fn adapters_of_other_forms_are_refused_by_key() {
    let Start { blueprint, weights, .. } = start();
    let layout = Layout::new(&blueprint);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft/oft");
    let config = models::json(&source.join("adapter_config.json"));
    let refused = |key: &str, value: Value| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config.clone();
        config[key] = value;
        fs_err::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        fs_err::copy(source.join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors"))
            .unwrap();
        adapters::load(folder.path(), &layout, weights.clone()).err().unwrap().to_string()
    };
    for (key, value, message) in [
        ("use_cayley_neumann", json!(true), "`use_cayley_neumann` must be false, got true"),
        ("peft_type", json!("LOHA"), "`peft_type` must be LORA or OFT, got LOHA"),
        ("coft", json!(true), "`coft` is not supported"),
        ("init_lora_weights", json!("pissa"), "path_initial_model_for_weight_conversion"),
        ("oft_block_size", json!(5), "`oft.oft_block_size` must be a divisor of 32"),
        ("oft_block_size", json!(16), "must have shape [4, 120], got [8, 28]"),
        ("target_modules", json!(["q_proj", "k_proj", "down_proj"]), "k_proj.oft_R.weight"),
        ("target_modules", json!(["q_proj"]), "changes no matrix of this model"),
        ("target_modules", json!(["c_attn"]), "`oft.target_modules` must be some of"),
        ("layers_to_transform", json!([7]), "`oft.layers_to_transform` must be layers from 0 to 1, got 7"),
    ] {
        let error = refused(key, value);
        assert!(error.contains(message), "{key}: {error}");
    }
    let lora = ADAPTERS.iter().find(|entry| entry.name == "lora").unwrap();
    let wide = Values::default().with(lora.settings[0], 17usize).unwrap();
    let error = (lora.make)(&layout, weights.clone(), &wide).err().unwrap().to_string();
    assert!(
        error.contains("`lora.r` must be at most 16, the width of `model.layers.0.self_attn.k_proj.weight`"),
        "{error}"
    );
}

/// A partial adapter has the parameters it names, and leaves all other weights as they are.
#[test]
fn named_layers_are_trained_alone() {
    let Start { blueprint, weights, .. } = start();
    let partial = ADAPTERS.iter().copied().find(|entry| entry.name == "partial").unwrap();
    let values =
        Values::default().with(partial.settings[0], vec!["mlp.*".to_owned(), "*layernorm".to_owned()]).unwrap();
    let values = values.with(partial.settings[1], "1".to_owned()).unwrap();
    let adapter = Choice { entry: partial, values };
    let options = TrainerOptions { adapter, ..TrainerOptions::default() };
    let mut trainer = Trainer::try_new(&blueprint, weights.clone(), &options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    run(&mut task(folder.path(), vec![term("sft", 1.0)], &stop), &mut trainer, &mut ()).unwrap();
    assert_eq!(trainer.parameter_layout().places().len(), 5);
    let layout = Layout::new(&blueprint);
    let trained = trainer.weights();
    for place in layout.places() {
        let is_named = place.name.contains("layers.1.") && !place.name.contains("self_attn");
        assert_eq!(trained[place.range.clone()] != weights[place.range.clone()], is_named, "{}", place.name);
    }
}

/// A weight that is not a number stops the run before it is saved, and the message says where.
#[test]
fn a_run_that_diverges_keeps_its_last_checkpoint() {
    let Start { blueprint, weights, .. } = start();
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let mut trainer = Trainer::try_new(&blueprint, weights.clone(), &TrainerOptions::default()).unwrap();
    let mut task = task(folder.path(), vec![term("sft", 1.0)], &stop);
    assert_eq!(run(&mut task, &mut trainer, &mut StopAfter(3, &stop)).unwrap(), Finished::Stopped);
    stop.store(false, Ordering::Relaxed);
    // A learning rate beyond all numbers.
    task.steps.learning_rate = 1e38;
    task.steps.warmup_ratio = 0.0;
    let mut again = Trainer::try_new(&blueprint, weights.clone(), &TrainerOptions::default()).unwrap();
    let error = run(&mut task, &mut again, &mut ()).unwrap_err().to_string();
    let last = wsd_train::saved(folder.path()).unwrap().pop().unwrap().0;
    let message = format!("training stops, and checkpoint-{last} is whole\n  hint: lower `learning_rate`");
    assert!(last < 6 && error.contains(&message), "{error}");
    // What is whole can be gone on with.
    task.steps.learning_rate = 1e-3;
    assert!(again.state.load_latest(folder.path()).unwrap());
    assert!(again.state.parameters.iter().all(|value| value.is_finite()));
    // A weight that is not a number, from the start.
    let mut broken = weights;
    broken[7] = f32::NAN;
    let other = tempfile::tempdir().unwrap();
    task.folder = other.path().into();
    let mut trainer = Trainer::try_new(&blueprint, broken, &TrainerOptions::default()).unwrap();
    let error = run(&mut task, &mut trainer, &mut ()).unwrap_err().to_string();
    let starts = error.starts_with("step 1: the loss of sft on its example ");
    assert!(starts && error.contains(" is NaN; training stops, and no checkpoint was written yet"), "{error}");
}

#[test]
fn objectives_without_their_numbers_are_refused() {
    let Start { blueprint, weights, .. } = start();
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    for (objective, message) in [
        ("distill", "`keeps_reference` must be true for distill, got false"),
        (
            "reward",
            "`adapter.name` must be one that trains `score.weight`, such as full, for reward, got no such tensor",
        ),
    ] {
        let mut trainer = Trainer::try_new(&blueprint, weights.clone(), &TrainerOptions::default()).unwrap();
        let mut task = task(folder.path(), vec![term(objective, 1.0)], &stop);
        assert_eq!(run(&mut task, &mut trainer, &mut ()).unwrap_err().to_string(), message);
    }
}

/// The weight of an objective falls on a straight line and is 0 in the last step.
#[test]
fn a_weight_falls_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut falling = term("starft", 1.0);
    falling.weight = Objective::find("starft").unwrap().weight;
    trained(folder.path(), vec![term("sft", 1.0), falling]);
    let rows = metrics(folder.path());
    for (step, row) in (1..).zip(&rows) {
        let number = |key: &str| row[key].as_f64().unwrap();
        let weight = 0.5 * (1.0 - f64::from(step) / 6.0);
        assert!((number("loss") - number("sft/loss") - weight * number("starft/loss")).abs() < 1e-9, "{row:?}");
    }
    assert!(rows[5]["starft/loss"].as_f64().unwrap() > 0.0);
}
