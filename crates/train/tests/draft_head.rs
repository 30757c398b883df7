//! Draft heads in training: losses and gradients against PyTorch, whole runs, interruption, refusals.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../nn/tests/support/draft_weights.rs"]
mod draft_weights;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use wsd_core::Values;
use wsd_nn::arch::{self, DraftPlan};
use wsd_nn::draft::{BaseMark, CONFIG_FILE, DraftConfig, WEIGHTS_FILE};
use wsd_nn::{Checkpoint, CpuOptions, Device, DraftHead, DraftLayer, Format, KvFormat};
use wsd_train::draft_head::{
    FEATURES_FILE, Features, HeadFile, HeadTable, HeadTask, HeadTrainer, base_tables, save, train,
};
use wsd_train::{
    Choice, DraftExample, DraftLoss, DraftModel, Finished, METRICS_FILE, OptimizerEntry, Reporter, Sequence, Steps,
};

use draft_weights::Numbers;

const LOSS: DraftLoss = DraftLoss { feature_weight: 1.0, token_weight: 0.1 };

fn fixture(name: &str) -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures").join(name)).unwrap()
}

/// The weights of the goldens.
fn weights(plan: &DraftPlan) -> Vec<f32> {
    draft_weights::weights(plan).into_iter().flat_map(|(_, _, values)| values).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../nn/tests/goldens/fspad.json");
    let goldens: Value = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
    for case in goldens["cases"].as_array().unwrap() {
        let base = fixture(case["base"].as_str().unwrap());
        let plan = DraftPlan::new(&arch::blueprint(&base.config).unwrap(), case["ffn"].as_u64().unwrap() as usize);
        let plan = plan.with_branches(case["sampling"].as_bool().unwrap(), case["alignment"].as_bool().unwrap());
        let list = |key: &str| -> Vec<usize> {
            case[key].as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as usize).collect()
        };
        let tokens: Vec<u32> = list("tokens").into_iter().map(|token| token as u32).collect();
        let features = Numbers(11).take(tokens.len() * plan.layer.hidden);
        let example = DraftExample { tokens: &tokens, targets: list("targets"), features, inputs: Vec::new() };
        for threads in [1, 3] {
            let mut model = DraftModel::try_new(&plan, base_tables(&base).unwrap(), tokens.len(), threads).unwrap();
            let weights = weights(&plan);
            let mut gradient = vec![0.0; weights.len()];
            let outputs = model.pass(&weights, std::slice::from_ref(&example), LOSS, Some(&mut gradient));
            let measures = &outputs[0].measures;
            for (measure, key) in measures.iter().zip(["loss", "regression", "entropy"]) {
                let found = measure.sum / measure.weight;
                assert!((found - number(&case[key])).abs() < 1e-5, "{}: {key} {found} {}", case["base"], case[key]);
            }
            assert_eq!(measures[0].weight, 4.0);
            for place in model.layout().places() {
                let (golden, own) = (&case["gradients"][&place.name], &gradient[place.range.clone()]);
                let norm = own.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                assert!((norm - number(&golden["norm"])).abs() < 1e-4, "{}: {norm} {golden}", place.name);
                let count = own.len();
                for (at, want) in
                    [0, count / 3, 2 * count / 3, count - 1].into_iter().zip(golden["at"].as_array().unwrap())
                {
                    assert!((f64::from(own[at]) - number(want)).abs() < 1e-4, "{} at {at}: {golden}", place.name);
                }
            }
            // The mean of two equal examples is that of one.
            let mut twice = vec![0.0; weights.len()];
            model.pass(&weights, &[example.clone(), example.clone()], LOSS, Some(&mut twice));
            assert!(gradient.iter().zip(&twice).all(|(one, two)| (one - two).abs() < 1e-6));
        }
    }
}

fn sequences() -> Vec<Sequence> {
    let row =
        |row: u32| Sequence::targets_from(3, (0..14).map(|at| (row * 31 + at * at * (row % 3 + 1)) % 250).collect());
    (0..12).map(row).collect()
}

/// A run in a folder.
struct Setup {
    base: Checkpoint,
    rows: Vec<Sequence>,
    head: HeadTable,
    steps: Steps,
}

impl Setup {
    fn new() -> Self {
        let steps = Steps {
            batch_size: 4,
            max_steps: Some(9),
            learning_rate: 3e-3,
            logging_steps: 1,
            save_steps: 2,
            eval_steps: 3,
            ..Steps::default()
        };
        Self { base: fixture("llama"), rows: sequences(), head: HeadTable::default(), steps }
    }

    fn plan(&self) -> DraftPlan {
        let plan = DraftPlan::new(&arch::blueprint(&self.base.config).unwrap(), 40);
        plan.with_branches(self.head.feature_sampling, self.head.partial_alignment)
    }

    fn features(&self, folder: &Path, has_begun: bool, stop: &AtomicBool) -> wsd_train::Result<Option<Features>> {
        let rows: Vec<_> = self.rows.iter().collect();
        Features::open(folder, (&self.base, Device::Cpu), &rows, has_begun, (stop, &mut ()))
    }

    /// Runs until the end or until `reporter` stops it.
    fn run(&self, folder: &Path, stop: &AtomicBool, reporter: &mut dyn Reporter) -> (HeadTrainer, Finished) {
        let (trainer, finished) = self.try_run(folder, stop, reporter);
        (trainer, finished.unwrap())
    }

    fn try_run(
        &self,
        folder: &Path,
        stop: &AtomicBool,
        reporter: &mut dyn Reporter,
    ) -> (HeadTrainer, wsd_train::Result<Finished>) {
        let features = self.features(folder, false, &AtomicBool::new(false)).unwrap().unwrap();
        let (examples, evaluation) = self.rows.split_at(10);
        let optimizer = Choice { entry: OptimizerEntry::find("adamw").unwrap(), values: Values::default() };
        let tables = base_tables(&self.base).unwrap();
        let mut trainer = HeadTrainer::try_new(&self.plan(), tables, &optimizer, (5, 2, 14)).unwrap();
        let mut task = HeadTask {
            folder: folder.into(),
            examples: examples.iter().collect(),
            evaluation: evaluation.iter().collect(),
            features,
            head: self.head.clone(),
            steps: self.steps.clone(),
            seed: 5,
            stop,
        };
        let finished = train(&mut task, &mut trainer, reporter);
        (trainer, finished)
    }
}

/// Stops a run after the first row of metrics.
struct StopAtOnce<'a>(&'a AtomicBool);

impl Reporter for StopAtOnce<'_> {
    fn progress(&mut self, _: &Map<String, Value>, _: usize, _: f64) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let setup = Setup::new();
    let (trained, finished) = setup.run(whole.path(), &AtomicBool::new(false), &mut ());
    assert_eq!((finished, trained.state.step), (Finished::Completed, 9));
    let mut stops = 0;
    let again = loop {
        let stop = AtomicBool::new(false);
        let (trainer, finished) = setup.run(parts.path(), &stop, &mut StopAtOnce(&stop));
        if finished == Finished::Completed {
            break trainer;
        }
        stops += 1;
    };
    assert!(stops > 3, "{stops}");
    assert_eq!(again.state.parameters, trained.state.parameters);
    let rows = |folder: &Path| -> Vec<Value> {
        let text = fs_err::read_to_string(folder.join(METRICS_FILE)).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
    };
    let evaluations = |folder: &Path| -> Vec<Value> {
        rows(folder).iter().filter(|row| row.get("eval_loss").is_some()).map(|row| row["eval_loss"].clone()).collect()
    };
    assert_eq!(evaluations(parts.path()), evaluations(whole.path()));
    assert_eq!(evaluations(whole.path()).len(), 3);
}

#[test]
fn a_run_that_diverges_names_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::new();
    setup.run(folder.path(), &AtomicBool::new(false), &mut ());
    // The steps go on from there at a rate that no model survives.
    setup.steps = Steps { max_steps: Some(40), learning_rate: 1e38, ..setup.steps };
    let (_, finished) = setup.try_run(folder.path(), &AtomicBool::new(false), &mut ());
    let error = finished.unwrap_err().to_string();
    assert!(error.contains("model.") || error.contains("the loss on example"), "{error}");
    assert!(error.contains("is whole"), "{error}");
}

#[test]
fn every_ablation_learns() {
    for (feature_sampling, partial_alignment) in [(true, true), (false, true), (true, false), (false, false)] {
        let folder = tempfile::tempdir().unwrap();
        let mut setup = Setup::new();
        setup.head = HeadTable { feature_sampling, partial_alignment, feature_noise: 0.0, ..HeadTable::default() };
        setup.steps.max_steps = Some(80);
        setup.run(folder.path(), &AtomicBool::new(false), &mut ());
        let text = fs_err::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        let losses: Vec<f64> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).unwrap().get("feature_loss")?.as_f64())
            .collect();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.7 * first, "sampling {feature_sampling}, alignment {partial_alignment}: {first} to {last}");
    }
}

#[test]
fn a_saved_head_computes_what_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new();
    let (trainer, _) = setup.run(folder.path(), &AtomicBool::new(false), &mut ());
    let config = DraftConfig::new(BaseMark::of(&setup.base).unwrap(), 40);
    let to = folder.path().join("head");
    save(&to, &config, (trainer.layout(), &trainer.state.parameters), Format::F32).unwrap();
    let permissions = |file: &str| fs_err::metadata(to.join(file)).unwrap().permissions();
    assert_eq!(permissions(WEIGHTS_FILE), permissions(CONFIG_FILE));
    let head = DraftHead::open(&to).unwrap();
    assert_eq!(head.config, config);
    for place in trainer.layout().places() {
        assert_eq!(head.weights.get(&place.name).unwrap().to_f32(), trainer.state.parameters[place.range.clone()]);
    }
    // The loss of the trained head, from the outputs of the engine's layer.
    let rows: Vec<_> = setup.rows.iter().collect();
    let mut features = setup.features(folder.path(), true, &AtomicBool::new(false)).unwrap().unwrap();
    let options = CpuOptions { kv: Some(KvFormat::F32), ..CpuOptions::default() };
    let mut layer = DraftLayer::load(&head, &setup.base, options).unwrap();
    let mut model = DraftModel::try_new(&setup.plan(), base_tables(&setup.base).unwrap(), 14, 1).unwrap();
    for (index, row) in rows.iter().enumerate().take(3) {
        let values = features.read(index).unwrap();
        let pairs = row.tokens.len() - 2;
        let [_, aligned] = layer.extend(index as u64, &row.tokens[1..=pairs], &values[..pairs * 32]).unwrap();
        let distance = |pair: usize| -> f64 {
            let own = &aligned[pair * 32..][..32];
            let truth = &values[(pair + 1) * 32..][..32];
            let smooth = |(own, truth): (&f32, &f32)| {
                let error = f64::from(own - truth).abs();
                if error < 1.0 { 0.5 * error * error } else { error - 0.5 }
            };
            own.iter().zip(truth).map(smooth).sum::<f64>() / 32.0
        };
        let positions: Vec<_> = row.positions().collect();
        let want = positions.iter().map(|position| distance(position - 2)).sum::<f64>();
        let example = DraftExample { tokens: &row.tokens, targets: positions, features: values, inputs: Vec::new() };
        let outputs = model.pass(&trainer.state.parameters, &[example], LOSS, None);
        assert!((outputs[0].measures[1].sum - want).abs() < 1e-4, "{} {want}", outputs[0].measures[1].sum);
    }
}

#[test]
fn features_go_on_where_they_were_stopped_and_are_refused_by_name() {
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let setup = Setup::new();
    let go = AtomicBool::new(false);
    assert!(setup.features(whole.path(), false, &go).unwrap().is_some());
    let bytes = fs_err::read(whole.path().join(FEATURES_FILE)).unwrap();
    assert_eq!(bytes.len(), 12 * 14 * 32 * 2);
    // Stopped at once, then killed in the middle of a sequence.
    assert!(setup.features(parts.path(), false, &AtomicBool::new(true)).unwrap().is_none());
    assert!(!parts.path().join(FEATURES_FILE).exists());
    let part = parts.path().join(format!("{FEATURES_FILE}.part"));
    fs_err::write(&part, &bytes[..14 * 32 * 2 * 3 + 77]).unwrap();
    assert!(setup.features(parts.path(), false, &go).unwrap().is_some());
    assert_eq!(fs_err::read(parts.path().join(FEATURES_FILE)).unwrap(), bytes);

    let refusal = |setup: &Setup| setup.features(parts.path(), true, &go).err().unwrap().to_string();
    let other = Setup { base: fixture("qwen2"), ..Setup::new() };
    assert!(refusal(&other).contains("`base.fingerprint` must be"), "{}", refusal(&other));
    let narrow = Setup { base: fixture("mistral"), ..Setup::new() };
    assert!(refusal(&narrow).contains("`base.hidden_size` must be 24"), "{}", refusal(&narrow));
    let mut rows = Setup::new();
    rows.rows[4].tokens[7] += 1;
    assert!(refusal(&rows).contains("`tokens` must be"), "{}", refusal(&rows));
    rows.rows.pop();
    assert!(refusal(&rows).contains("`sequences` must be 11"), "{}", refusal(&rows));
    let file = parts.path().join(FEATURES_FILE);
    fs_err::write(&file, &bytes[1..]).unwrap();
    assert!(refusal(&setup).contains("must have 10752 bytes, got 10751"), "{}", refusal(&setup));
    fs_err::remove_file(&file).unwrap();
    let missing = refusal(&setup);
    assert!(missing.contains("features.bin: features: missing") && missing.contains("hint:"), "{missing}");
    let mut nan = bytes;
    nan[1] = 0x7f;
    nan[0] = 0xc0;
    fs_err::write(&file, nan).unwrap();
    let error = setup.features(parts.path(), true, &go).unwrap().unwrap().read(0).unwrap_err().to_string();
    assert!(error.contains("those of sequence 1 are not finite"), "{error}");
}

#[test]
fn run_files_are_checked_and_compared() {
    let text = "output = \"o\"\nmodel = { from = \"b\" }\ndata = { train = [\"a\"] }\n";
    let file = HeadFile::parse(text).unwrap();
    assert_eq!((file.run.steps.learning_rate, file.run.steps.max_grad_norm), (5e-5, 0.0));
    let resolved = file.resolved().unwrap();
    assert!(resolved.contains("adam_beta2 = 0.95") && resolved.contains("partial_alignment = true"), "{resolved}");
    assert_eq!(file.changes_since(&resolved).unwrap(), Vec::<String>::new());
    let other = HeadFile::parse(&format!("{text}head = {{ partial_alignment = false, token_weight = 0.2 }}")).unwrap();
    let changes = other.changes_since(&resolved).unwrap();
    assert_eq!(changes, ["`head.partial_alignment` was true, now false", "`head.token_weight` was 0.1, now 0.2"]);
    for (more, want) in [
        ("head = { feature_samples = true }", "unknown field `feature_samples`"),
        ("head = { token_weight = -1 }", "`head.token_weight` must be from 0 to 1000000, got -1"),
        ("head = { intermediate_size = 0 }", "`head.intermediate_size` must be from 1 to 1048576, got 0"),
        ("head = 3", "`[head]`"),
        ("lora = { r = 4 }", "`adapter` must be absent in the run of a draft head"),
        ("optimizer = { name = \"spd\" }", "`optimizer.name`"),
        ("[[objective]]\nname = \"sft\"\n[[objective]]\nname = \"distill\"", "`objective` must be absent"),
    ] {
        let error = HeadFile::parse(&format!("{text}{more}")).unwrap_err().to_string();
        assert!(error.contains(want), "{more}: {error}");
    }
}
