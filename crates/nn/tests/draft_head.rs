//! Draft heads: their numbers against PyTorch, and their proposals through the engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/draft_weights.rs"]
mod draft_weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use wsd_core::{
    Beam, Engine, Generation, Job, Models, Prompt, Recipe, Sampling, Seat, Step, Terms, Trace, Tree, TreeShape, Values,
};
use wsd_nn::arch::{self, Head};
use wsd_nn::draft::{BaseMark, CONFIG_FILE, DraftConfig, WEIGHTS_FILE};
use wsd_nn::{
    Checkpoint, Cpu, CpuOptions, DraftHead, DraftLayer, Executor as _, Format, KvFormat, LoadOptions, Local, Span,
    TemplateChoice, Tensor, Weights,
};

use draft_weights::Numbers;

const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A head of random weights for a base.
fn head(base: &Checkpoint, ffn: usize, (sampling, alignment): (bool, bool)) -> DraftHead {
    let whole = DraftConfig::new(BaseMark::of(base).unwrap(), ffn);
    let config = DraftConfig { feature_sampling: sampling, partial_alignment: alignment, ..whole };
    let tensor = |(name, shape, values): (String, _, Vec<f32>)| {
        Tensor::new(name, Format::F32, shape, values.into_iter().flat_map(f32::to_le_bytes).collect()).unwrap()
    };
    let tensors = draft_weights::weights(&config.plan(&arch::blueprint(&base.config).unwrap()));
    let tensors: Vec<_> = tensors.into_iter().map(tensor).collect();
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
        let features = Numbers(11).take(list.len() * width);

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

#[test]
fn a_level_may_be_wider_than_the_rest_of_the_context() {
    let base = Checkpoint::open(&fixture("llama")).unwrap();
    let head = head(&base, 48, (true, true));
    let mut layer = DraftLayer::load(&head, &base, CpuOptions::default()).unwrap();
    let (width, root) = (layer.width(), 254);
    let features = Numbers(3).take(root * width);
    layer.extend(1, &[7; 254], &features).unwrap();
    let level: Vec<_> = (0..10).map(|token| (token, Vec::new())).collect();
    let [predicted, _] = layer.branch((1, root), &level, &features[..10 * width]).unwrap();
    assert_eq!(predicted.len(), 10 * width);
    layer.branch((1, root), &[(5, vec![256])], &features[..width]).unwrap();
    let beyond = layer.branch((1, root), &[(5, vec![256, 264])], &features[..width]).unwrap_err().to_string();
    assert!(beyond.contains("257 positions exceed the model's limit of 256"), "{beyond}");
}

#[test]
fn a_head_is_the_same_over_every_container_of_its_base() {
    let folder = Checkpoint::open(&fixture("llama")).unwrap().with_matrices_in(Format::F16).unwrap();
    let file = Checkpoint::open(&fixture("gguf/llama-f16.gguf")).unwrap();
    let head = head(&folder, 48, (true, true));
    let outputs = [&folder, &file].map(|base| {
        let mut layer = DraftLayer::load(&head, base, CpuOptions::default()).unwrap();
        let features = Numbers(3).take(8 * layer.width());
        layer.extend(1, &[5, 9, 40, 7, 7, 23, 250, 1], &features).unwrap().concat()
    });
    let [of_folder, of_file] = &outputs;
    let worst = of_folder.iter().zip(of_file).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(f64::from(worst) < TOLERANCE, "{worst}");
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

/// The tree that a head proposes after a list: each path is computed by itself, in a slot of its own.
fn proposed(base: &Checkpoint, list: &[u32], shape: TreeShape) -> Tree {
    let mut layer = DraftLayer::load(&head(base, 48, (true, true)), base, CpuOptions::default()).unwrap();
    let mut executor = Cpu::load(base).unwrap();
    let (width, root) = (layer.width(), list.len() - 1);
    let features = executor.forward(&[Span { rows: 0..root, ..Span::chain(0, 0, &list[..root]) }]).unwrap();
    let mut slot = 0;
    let mut row = |path: &[u32]| {
        slot += 1;
        let [mut predicted, mut aligned] = layer.extend(slot, &list[1..], &features).unwrap();
        for token in path {
            let last = aligned.split_off(aligned.len() - width);
            [predicted, aligned] = layer.extend(slot, &[*token], &last).unwrap();
        }
        let mut logits = Vec::new();
        executor.project(Head::VOCABULARY, &predicted[predicted.len() - width..], &mut logits).unwrap();
        logits
    };
    let mut beam = Beam::new(shape, &row(&[])).unwrap();
    while !beam.level().is_empty() {
        let path =
            |node: &usize| beam.ancestors(*node).into_iter().chain([*node]).map(|node| beam.token(node)).collect();
        let paths: Vec<Vec<u32>> = beam.level().iter().map(path).collect();
        let rows: Vec<_> = paths.iter().map(|path| row(path)).collect();
        beam.expand(rows.iter().map(Vec::as_slice)).unwrap();
    }
    beam.tree()
}

#[test]
fn a_tree_is_that_of_its_paths_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama", "gemma2", "gpt2"] {
        let (engine, base) = (engine(name, folder.path()), Checkpoint::open(&fixture(name)).unwrap());
        for (width, depth, nodes) in [(1, 4, 8), (3, 3, 20), (4, 5, 40)] {
            let shape = TreeShape { width, depth, nodes, least: 0.0 };
            let list = [5, 9, 40, 7, 7, 23];
            let tree = block_on(async { engine.open(&list).await.unwrap().propose(shape).await.unwrap() });
            assert_eq!(tree, proposed(&base, &list, shape), "{name} {shape:?}");
            assert!(tree.depth() > 2);
        }
    }
}

#[test]
fn the_answer_is_that_of_the_base_alone() {
    let folder = tempfile::tempdir().unwrap();
    for base in ["llama", "gemma2", "gpt2"] {
        let engine = engine(base, folder.path());
        let models = Models::default().with(Seat::BASE, engine.clone());
        // The last answer fills the context.
        let limit = engine.card().max_len;
        for (temperature, seed, len) in [(0.0, 0, 4), (1.0, 1, 4), (1.0, 2, 4), (1.0, 3, limit - 20)] {
            let sampling = Sampling { temperature, seed, ..Sampling::default() };
            let terms = Terms { max_tokens: 40, sampling, ..Terms::default() };
            let list: Vec<_> = [5, 9, 40, 7].into_iter().cycle().take(len).collect();
            let job = Job { prompt: Prompt::Tokens(list), terms };
            let answer = |name: &str, values: &Values| {
                let strategy = Recipe::find(name).unwrap().build(&models, values).unwrap();
                block_on(Trace::collect(wsd_core::run(strategy, job.clone()))).unwrap()
            };
            let alone = answer("base", &Values::default());
            assert_eq!(alone.tokens.len(), 40.min(limit - len));
            for width in [1usize, 10] {
                let values = Values::default().with(&wsd_core::HEAD_WIDTH, width).unwrap();
                let headed = answer("head", &values);
                let ids = |done: &wsd_core::Completion| done.tokens.iter().map(|token| token.id).collect::<Vec<_>>();
                assert_eq!(
                    ids(&headed),
                    ids(&alone),
                    "{base} at temperature {temperature}, width {width}, {len} tokens"
                );
            }
        }
        // The engine counts after it has answered.
        let is_idle = || engine.activity().working == 0 && engine.activity().slots == 0;
        let mut polls = (0..10_000).map(|_| std::thread::sleep(Duration::from_millis(1)));
        assert!(is_idle() || polls.any(|()| is_idle()), "{:?}", engine.activity());
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
