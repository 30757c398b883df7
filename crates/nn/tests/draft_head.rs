//! Draft heads: their numbers against PyTorch, and their proposals through the engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use wsd_core::{
    Engine, Generation, Job, Models, Prompt, Recipe, Sampling, Seat, Step, Terms, Trace, TreeShape, Values,
};
use wsd_nn::arch::{self, DraftPlan, Head};
use wsd_nn::draft::{BaseMark, CONFIG_FILE, DraftConfig, WEIGHTS_FILE};
use wsd_nn::{
    Checkpoint, Cpu, CpuOptions, DraftHead, DraftLayer, Executor as _, Format, KvFormat, LoadOptions, Local,
    TemplateChoice, Tensor, Weights,
};

const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The generator of `scripts/fspad_goldens.py`.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A head of random weights for a base.
fn head(base: &Checkpoint, ffn: usize, (sampling, alignment): (bool, bool)) -> DraftHead {
    let plan = DraftPlan::new(&arch::blueprint(&base.config).unwrap(), ffn).with_branches(sampling, alignment);
    let mut numbers = Numbers(7);
    let tensors = plan.tensors().into_iter().map(|(name, shape)| {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|_| match shape[..] {
            [_, inputs] => numbers.next() * (1.0 / (inputs as f64).sqrt()) as f32,
            _ => numbers.next() * 0.1 + if name.ends_with("bias") { 0.0 } else { 1.0 },
        });
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        Tensor::new(name, Format::F32, shape, bytes).unwrap()
    });
    let config = DraftConfig {
        base: BaseMark::of(base).unwrap(),
        intermediate_size: ffn,
        feature_sampling: sampling,
        partial_alignment: alignment,
    };
    DraftHead { weights: Weights::new("memory", tensors), config, file: "memory".into() }
}

fn floats(value: &Value) -> Vec<f64> {
    let flat = |value: &Value| value.as_array().map_or_else(|| vec![value.as_f64().unwrap()], |_| floats(value));
    value.as_array().unwrap().iter().flat_map(flat).collect()
}

fn tokens(value: &Value) -> Vec<u32> {
    floats(value).into_iter().map(|token| token as u32).collect()
}

fn close(what: &str, got: &[f32], want: &Value) {
    let want = floats(want);
    let got: Vec<_> = got.iter().step_by(got.len().div_ceil(want.len())).map(|x| f64::from(*x)).collect();
    assert_eq!(got.len(), want.len(), "{what}");
    let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < TOLERANCE, "{what}: {worst}");
}

#[test]
fn outputs_are_those_of_an_independent_implementation() {
    let goldens = fs_err::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/fspad.json")).unwrap();
    let goldens: Value = serde_json::from_slice(&goldens).unwrap();
    for case in goldens["cases"].as_array().unwrap() {
        let base = Checkpoint::open(&fixture(case["base"].as_str().unwrap())).unwrap();
        let options = CpuOptions { kv: Some(KvFormat::F32), ..CpuOptions::default() };
        let branches = (case["sampling"].as_bool().unwrap(), case["alignment"].as_bool().unwrap());
        let what = format!("{} {branches:?}", case["base"]);
        let head = head(&base, case["ffn"].as_u64().unwrap() as usize, branches);
        let mut layer = DraftLayer::load(&head, &base, options).unwrap();
        let width = head.config.base.hidden_size;
        let list = tokens(&case["tokens"]);
        let mut numbers = Numbers(11);
        let features: Vec<_> = (0..list.len() * width).map(|_| numbers.next()).collect();

        // In two parts, as a prompt and a token.
        let pairs = list.len() - 1;
        let [mut predicted, mut aligned] = layer.extend(1, &list[1..4], &features[..3 * width]).unwrap();
        let [more_predicted, more_aligned] = layer.extend(1, &list[4..], &features[3 * width..pairs * width]).unwrap();
        predicted.extend(more_predicted);
        aligned.extend(more_aligned);
        close(&what, &predicted, &case["predicted"]);
        close(&what, &aligned, &case["aligned"]);
        let mut logits = Vec::new();
        let mut executor = Cpu::load(&base).unwrap();
        executor.project(Head::VOCABULARY, &predicted, &mut logits).unwrap();
        let firsts: Vec<_> = logits.chunks_exact(logits.len() / pairs).flat_map(|row| row[..10].to_vec()).collect();
        close(&what, &firsts, &case["logits"]);

        // A tree behind the first four pairs, level by level.
        layer.truncate(1, 4);
        let (tree, mut rows) = (&case["tree"], [Vec::new(), Vec::new()]);
        let (nodes, parents) = (tokens(&tree["tokens"]), tokens(&tree["parents"]));
        let path = |node: usize| {
            let parent = |node: &usize| (parents[*node] as usize).checked_sub(1);
            let mut path: Vec<_> = std::iter::successors(parent(&node), parent).map(|node| 4 + node).collect();
            path.reverse();
            path
        };
        for level in [0..2, 2..4, 4..5] {
            let own: Vec<_> = level.clone().map(|node| (nodes[node], path(node))).collect();
            let own_features = &features[(4 + level.start) * width..(4 + level.end) * width];
            let outputs = layer.branch((1, 4), &own, own_features).unwrap();
            rows.iter_mut().zip(outputs).for_each(|(rows, more)| rows.extend(more));
        }
        close(&what, &rows[0], &tree["predicted"]);
        close(&what, &rows[1], &tree["aligned"]);
        let wild = layer.branch((1, 4), &[(1, vec![9])], &features[..width]).unwrap_err().to_string();
        assert!(wild.contains("outside 4..9"), "{wild}");
    }
}

/// Writes the folder of a head.
fn write(folder: &Path, head: &DraftHead) {
    fs_err::write(folder.join(CONFIG_FILE), serde_json::to_vec(&head.config).unwrap()).unwrap();
    let views = head.weights.iter().map(|tensor| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, tensor.shape.clone(), tensor.bytes());
        (tensor.name.clone(), view.unwrap())
    });
    fs_err::write(folder.join(WEIGHTS_FILE), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// An engine with a head of random weights.
fn engine(base: &str, folder: &Path) -> Arc<Local> {
    let mut checkpoint = Checkpoint::open(&fixture(base)).unwrap();
    write(folder, &head(&checkpoint, 48, (true, true)));
    checkpoint.end_tokens.clear();
    let options = LoadOptions {
        template: TemplateChoice::Plain,
        threads: Some(2),
        draft_head: Some(folder.to_owned()),
        ..LoadOptions::new("headed")
    };
    Arc::new(Local::load(checkpoint, &options).unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn proposals_do_not_depend_on_what_was_computed_before() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine("llama", folder.path());
    let shape = TreeShape { width: 4, depth: 3, nodes: 12, least: 0.0 };
    let generation = Generation { max_tokens: 1, sampling: Sampling::default(), top_logprobs: 0, guide: None };
    block_on(async {
        let mut session = engine.open(&[5, 9, 40, 7, 7, 23]).await.unwrap();
        for round in 0..12 {
            let tree = session.propose(shape).await.unwrap();
            assert_eq!((tree.len(), tree.depth() <= 3), (12, true));
            let mut fresh = engine.open(session.tokens()).await.unwrap();
            assert_eq!(fresh.propose(shape).await.unwrap(), tree, "round {round}");
            match round % 6 {
                // An accepted path and one more token, as in decoding.
                0 | 1 | 3 => {
                    let _ = session.tree_choices(&tree, &generation).await.unwrap();
                    let path = tree.spelled(tree.len() as u32);
                    session.append(&path);
                    session.append(&[11]);
                }
                // The base writes by itself.
                2 => drop(session.write(&Generation { max_tokens: 3, ..generation.clone() }).await.unwrap()),
                // Edits: another last token, and a shorter list.
                4 => {
                    let last = session.tokens().len() - 1;
                    session.truncate(last);
                    session.append(&[250]);
                }
                _ => session.truncate(5),
            }
        }
        // One token has no feature before it.
        assert!(engine.open(&[5]).await.unwrap().propose(shape).await.unwrap().is_empty());
    });
}

#[test]
fn the_answer_is_that_of_the_base_alone() {
    let folder = tempfile::tempdir().unwrap();
    for base in ["llama", "gemma2", "gpt2"] {
        let engine = engine(base, folder.path());
        let models = Models::default().with(Seat::BASE, engine.clone());
        for (temperature, seed) in [(0.0, 0), (1.0, 1), (1.0, 2)] {
            let sampling = Sampling { temperature, seed, ..Sampling::default() };
            let terms = Terms { max_tokens: 40, sampling, ..Terms::default() };
            let job = Job { prompt: Prompt::Tokens(vec![5, 9, 40, 7]), terms };
            let answer = |name: &str, values: &Values| {
                let strategy = Recipe::find(name).unwrap().build(&models, values).unwrap();
                block_on(Trace::collect(wsd_core::run(strategy, job.clone()))).unwrap()
            };
            let alone = answer("base", &Values::default());
            for width in [1usize, 10] {
                let values = Values::default().with(&wsd_core::HEAD_WIDTH, width).unwrap();
                let headed = answer("head", &values);
                let ids = |done: &wsd_core::Completion| done.tokens.iter().map(|token| token.id).collect::<Vec<_>>();
                assert_eq!(ids(&headed), ids(&alone), "{base} at temperature {temperature}, width {width}");
            }
        }
        assert_eq!(engine.activity().working, 0);
    }
}

#[test]
fn a_head_of_another_base_is_refused_by_name() {
    let base = Checkpoint::open(&fixture("llama")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions { draft_head: Some(folder.path().to_owned()), ..LoadOptions::new("headed") };
    let refused = || Local::load(base.clone(), &options).err().unwrap().to_string();
    assert!(refused().contains("missing draft_head.json") && refused().contains("wsd train head"), "{}", refused());
    type Change = fn(&mut BaseMark);
    let changes: [(&str, Change); 3] = [
        ("base.hidden_size", |mark| mark.hidden_size = 64),
        ("base.vocab_size", |mark| mark.vocab_size = 301),
        ("base.fingerprint", |mark| mark.fingerprint = "0123456789abcdef".into()),
    ];
    for (key, change) in changes {
        let mut head = head(&base, 48, (true, true));
        change(&mut head.config.base);
        write(folder.path(), &head);
        let message = refused();
        assert!(message.contains(key) && message.contains("hint:"), "{message}");
    }
    let mut smaller = head(&base, 48, (true, false));
    smaller.config.partial_alignment = true;
    write(folder.path(), &smaller);
    assert!(refused().contains("`model.layers.0.mlp.down_proj.weight` has shape [32, 48], expected [64, 48]"));
    // A head of GGUF and safetensors files of one model is the same.
    let file = BaseMark::of(&Checkpoint::open(&fixture("gguf/llama-q8_0.gguf")).unwrap()).unwrap();
    assert_eq!(file, BaseMark::of(&base).unwrap());
    let unheaded = Local::load(base, &LoadOptions::new("plain")).unwrap();
    let shape = TreeShape { width: 1, depth: 1, nodes: 1, least: 0.0 };
    let error = block_on(async { unheaded.open(&[5, 6]).await.unwrap().propose(shape).await.unwrap_err() });
    assert!(error.to_string().contains("`plain` cannot return proposals of a draft head"), "{error}");
}

#[test]
fn a_head_that_computes_nan_proposes_nothing() {
    let base = Checkpoint::open(&fixture("llama")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = engine("llama", folder.path());
    drop(engine);
    let mut broken = head(&base, 48, (true, true));
    let nan = broken.weights.iter().map(|tensor| {
        let mut bytes = tensor.bytes().to_vec();
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        Tensor::new(tensor.name.clone(), Format::F32, tensor.shape.clone(), bytes).unwrap()
    });
    broken.weights = Weights::new("memory", nan.collect::<Vec<_>>());
    write(folder.path(), &broken);
    let options = LoadOptions { draft_head: Some(folder.path().to_owned()), ..LoadOptions::new("broken") };
    let engine = Local::load(base, &options).unwrap();
    block_on(async {
        let mut session = engine.open(&[5, 9, 40]).await.unwrap();
        let tree = session.propose(TreeShape { width: 2, depth: 2, nodes: 4, least: 0.0 }).await.unwrap();
        assert!(tree.is_empty());
        let generation = Generation { max_tokens: 1, sampling: Sampling::default(), top_logprobs: 0, guide: None };
        let choices = session.tree_choices(&tree, &generation).await.unwrap();
        assert!(matches!(choices[..], [Step::Token(_)]));
    });
}
