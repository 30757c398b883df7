//! Trees, hidden states, reward heads and adapters: each against a plainer way to the same numbers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;
use wsd_core::{Engine, Generation, Head, Heads, Layer, Sampling, Step, Token, Tree, log_softmax};
use wsd_nn::{
    Adapter, Checkpoint, Cpu, CpuOptions, Executor, Format, LoadOptions, Local, Span, Spelling, TemplateChoice, Tensor,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn options() -> LoadOptions {
    LoadOptions { template: TemplateChoice::Plain, threads: Some(2), ..LoadOptions::new("tiny") }
}

fn load(name: &str) -> Local {
    Local::load(Checkpoint::open(&fixture(name)).unwrap(), &options()).unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(future)
}

fn greedy() -> Generation {
    Generation { max_tokens: 8, sampling: Sampling::default(), top_logprobs: 2, guide: None }
}

/// Logits of all tokens of a span.
fn run(model: &mut dyn Executor, span: &Span<'_>) -> Vec<Vec<f32>> {
    let hidden = model.forward(&[Span { rows: 0..span.tokens.len(), ..span.clone() }]).unwrap();
    project(model, &hidden)
}

/// Logits of all tokens, appended to a slot.
fn rows(model: &mut dyn Executor, slot: u64, tokens: &[u32]) -> Vec<Vec<f32>> {
    let start = model.cached(slot);
    run(model, &Span::chain(slot, start, tokens))
}

fn project(model: &mut dyn Executor, hidden: &[f32]) -> Vec<Vec<f32>> {
    let mut logits = Vec::new();
    model.project(Head::VOCABULARY, hidden, &mut logits).unwrap();
    logits.chunks(model.blueprint().vocab).map(<[f32]>::to_vec).collect()
}

/// A list, and two branches of four tokens after it, node by node in turn.
fn two_branches() -> (Vec<u32>, Tree, [Vec<u32>; 2]) {
    let list = (0..40).map(|k| (k * 37 + 5) % 290).collect();
    let branches = [vec![7, 8, 9, 10], vec![8, 7, 9, 11]];
    let mut tree = Tree::default();
    let mut ends = [0, 0];
    for depth in 0..4 {
        for (end, branch) in ends.iter_mut().zip(&branches) {
            *end = tree.push(*end, branch[depth]).unwrap();
        }
    }
    (list, tree, branches)
}

/// Fixtures of every architecture, and of a format whose activations are rounded.
const FIXTURES: [&str; 9] =
    ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2", "llama_sharded_bf16"];

#[test]
fn a_tree_of_two_branches_equals_two_chains() {
    for name in FIXTURES {
        let mut cpu = Cpu::load(&Checkpoint::open(&fixture(name)).unwrap()).unwrap();
        let (list, tree, branches) = two_branches();
        rows(&mut cpu, 0, &list);
        let span = Span { parents: Some(tree.parents()), ..Span::chain(0, list.len(), tree.tokens()) };
        let found = run(&mut cpu, &span);
        for (index, branch) in branches.iter().enumerate() {
            let chain = rows(&mut cpu, 1, &[&list[..], branch].concat());
            let of_branch: Vec<_> = found.iter().skip(index).step_by(2).cloned().collect();
            assert!(of_branch == chain[list.len()..], "{name}: branch {index}");
            cpu.release(1);
        }
        let error = cpu.forward(&[Span::chain(0, list.len() + 8, &[1])]).unwrap_err().to_string();
        assert!(error.contains("reduced to a chain"), "{error}");
        // The second branch is accepted but for its last token.
        let path: Vec<_> = [1, 3, 5].map(|node| list.len() + node).to_vec();
        cpu.keep(0, list.len(), &path).unwrap();
        assert_eq!(cpu.cached(0), list.len() + 3);
        let next = rows(&mut cpu, 0, &[7, 8]);
        let fresh = rows(&mut cpu, 1, &[&list[..], &branches[1][..3], &[7, 8]].concat());
        assert!(next == fresh[list.len() + 3..], "{name}: after an accepted path");
    }
}

#[test]
fn spans_of_misshapen_trees_are_errors() {
    let mut cpu = Cpu::load(&Checkpoint::open(&fixture("llama")).unwrap()).unwrap();
    for (parents, word) in [(&[0, 2][..], "from 0 to 1, got 2"), (&[0], "1 parents for 2 tokens")] {
        let span = Span { parents: Some(parents), ..Span::chain(0, 0, &[1, 2]) };
        let error = cpu.forward(&[span]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let error = cpu.forward(&[Span { layer: Layer::After(99), ..Span::chain(0, 0, &[1]) }]).unwrap_err().to_string();
    assert!(error.contains("layer must be at most"), "{error}");
    assert!(cpu.project(Head::REWARD, &[], &mut Vec::new()).unwrap_err().to_string().contains("`score`"));
}

fn tree() -> impl Strategy<Value = Tree> {
    prop::collection::vec((any::<prop::sample::Index>(), 0u32..290), 0..24).prop_map(|nodes| {
        let node =
            |(index, (parent, token)): (usize, (prop::sample::Index, Token))| (parent.index(index + 1) as u32, token);
        Tree::try_new(nodes.into_iter().enumerate().map(node)).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Each vertex of a tree has the bits of a list that ends there, and a session goes on after
    /// any path as a fresh one
    /// does. Sliding windows included.
    #[test]
    fn random_trees_equal_their_paths(
        len in 1usize..40,
        trees in prop::collection::vec((tree(), any::<prop::sample::Index>()), 1..4),
        name in prop_oneof![Just("llama"), Just("gemma2"), Just("qwen3")],
    ) {
        let engine = load(name);
        wait(async {
            let list: Vec<Token> = (0..len as u32).map(|k| (k * 37 + 5) % 297).collect();
            let mut session = engine.open(&list).await.unwrap();
            for (tree, accepted) in trees {
                let found = session.tree_logits(&tree).await.unwrap();
                prop_assert_eq!(found.len(), tree.len() + 1);
                for (vertex, row) in found.iter().enumerate() {
                    let path = [session.tokens(), &tree.spelled(vertex as u32)].concat();
                    let mut fresh = engine.open(&path).await.unwrap();
                    prop_assert!(*row == fresh.logits(path.len()).await.unwrap()[0], "vertex {vertex} of {tree:?}");
                }
                let accepted = tree.spelled(accepted.index(tree.len() + 1) as u32);
                session.append(&accepted);
            }
            let mut fresh = engine.open(session.tokens()).await.unwrap();
            prop_assert_eq!(session.score(1).await.unwrap(), fresh.score(1).await.unwrap());
            Ok(())
        })?;
    }
}

/// A tree with a right branch and a wrong one: as many tokens are accepted as the generation has, and only they.
#[test]
fn a_verified_tree_writes_what_a_generation_writes() {
    let mut checkpoint = Checkpoint::open(&fixture("llama")).unwrap();
    checkpoint.end_tokens.clear();
    let engine = Local::load(checkpoint, &options()).unwrap();
    wait(async {
        let list: Vec<Token> = (0..30).map(|k| (k * 41 + 7) % 297).collect();
        let written = engine.open(&list).await.unwrap().write(&greedy()).await.unwrap();
        let right: Vec<Token> = written.tokens.iter().map(|sampled| sampled.token).collect();
        let mut tree = Tree::default();
        let (mut end, mut wrong) = (0, 0);
        for &token in &right[..4] {
            wrong = tree.push(wrong, token ^ 1).unwrap();
            end = tree.push(end, token).unwrap();
        }
        let mut session = engine.open(&list).await.unwrap();
        let choices = session.tree_choices(&tree, &greedy()).await.unwrap();
        let accepted = tree.accepted(&choices);
        assert_eq!(accepted, end);
        session.append(&tree.spelled(accepted));
        let Step::Token(next) = &choices[accepted as usize] else { panic!("an end") };
        assert_eq!(*next, written.tokens[4]);
        session.append(&[next.token]);
        let steps = engine.activity().steps;
        let rest = session.write(&Generation { max_tokens: 3, ..greedy() }).await.unwrap();
        assert_eq!(rest.tokens, written.tokens[5..]);
        assert_eq!(engine.activity().steps - steps, 3, "the accepted path was computed again");
    });
}

#[test]
fn hidden_states_of_the_last_layer_lead_to_the_logits() {
    let checkpoint = Checkpoint::open(&fixture("llama")).unwrap();
    let engine = load("llama");
    let layers = checkpoint.config["num_hidden_layers"].as_u64().unwrap() as usize;
    wait(async {
        let list: Vec<Token> = (0..20).map(|k| (k * 41 + 7) % 297).collect();
        let mut session = engine.open(&list).await.unwrap();
        let hidden = session.hidden(5, Layer::Final).await.unwrap();
        assert_eq!(hidden.len(), 16);
        let mut cpu = Cpu::load(&checkpoint).unwrap();
        let expected = rows(&mut cpu, 0, &list);
        assert!(project(&mut cpu, &hidden.concat()) == expected[4..]);
        // The embeddings are rows of their matrix; the final norm has root mean square 1 before its weight.
        let embedding = checkpoint.weights.get("model.embed_tokens.weight").unwrap().to_f32();
        let width = embedding.len() / 300;
        let first = session.hidden(1, Layer::After(0)).await.unwrap();
        assert_eq!(first[3], embedding[list[3] as usize * width..][..width]);
        let weight = checkpoint.weights.get("model.norm.weight").unwrap().to_f32();
        let last = session.hidden(5, Layer::After(layers)).await.unwrap();
        let mean = last[0].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
        for ((x, weight), normed) in last[0].iter().zip(&weight).zip(&hidden[0]) {
            assert!((f64::from(*x) / (mean + 1e-6).sqrt() * f64::from(*weight) - f64::from(*normed)).abs() < 1e-3);
        }
        // The last layer's scores are the model's own; inner ones are those of the normed state.
        assert_eq!(session.score_after(2, layers).await.unwrap(), session.score(2).await.unwrap());
        assert_ne!(session.score_after(2, layers - 1).await.unwrap(), session.score(2).await.unwrap());
        assert_eq!(session.hidden(5, Layer::Normed(layers)).await.unwrap(), hidden);
        let error = session.score_after(2, layers + 1).await.unwrap_err().to_string();
        assert!(error.contains("`layer` must be at most"), "{error}");
        let error = session.hidden(5, Layer::After(layers + 1)).await.unwrap_err().to_string();
        assert!(error.contains("`layer` must be at most"), "{error}");
        // All kinds of questions in one step.
        let mut other = engine.open(&list[..7]).await.unwrap();
        let mut third = engine.open(&list[..9]).await.unwrap();
        let (again, logits, early) =
            futures::join!(session.hidden(5, Layer::Final), other.logits(3), third.hidden(2, Layer::After(1)));
        let fresh = engine.open(&list[..9]).await.unwrap().hidden(2, Layer::After(1)).await.unwrap();
        assert!(again.unwrap() == hidden && early.unwrap() == fresh);
        assert_eq!(logits.unwrap(), engine.open(&list[..7]).await.unwrap().logits(3).await.unwrap());
    });
}

/// Numbers without a pattern, below 1 in size.
fn noise(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + 31 * seed) as f32 * 12.9898).sin() * 43758.547).fract()).collect()
}

fn matrix(name: &str, shape: Vec<usize>, values: &[f32]) -> Tensor {
    Tensor::new(name, Format::F32, shape, Format::F32.quantize(values).unwrap()).unwrap()
}

/// The fixture's weights with others added or in place of its own.
fn with_tensors(checkpoint: &mut Checkpoint, tensors: Vec<Tensor>) {
    let all = checkpoint.weights.iter().cloned().chain(tensors).collect::<Vec<_>>();
    checkpoint.weights = wsd_nn::Weights::new("test", all);
}

#[test]
fn outputs_are_products_with_hidden_states() {
    for head in Head::all().filter(|head| *head != Head::VOCABULARY) {
        let mut checkpoint = Checkpoint::open(&fixture("llama")).unwrap();
        let width = checkpoint.config["hidden_size"].as_u64().unwrap() as usize;
        let (weight, bias) = (noise(2 * width, 3), vec![0.5, -1.0]);
        let tensors = vec![matrix(&head.weight(), vec![2, width], &weight), matrix(&head.bias(), vec![2], &bias)];
        with_tensors(&mut checkpoint, tensors);
        let engine = Local::load(checkpoint, &options()).unwrap();
        assert!(engine.card().caps.heads.iter().eq([Head::VOCABULARY, head]));
        wait(async {
            let mut session = engine.open(&[5, 6, 7, 8]).await.unwrap();
            let outputs = session.outputs(head, 2).await.unwrap();
            let hidden = session.hidden(2, Layer::Final).await.unwrap();
            assert_eq!(outputs.len(), 3);
            for (outputs, hidden) in outputs.iter().zip(&hidden) {
                for ((output, weight), bias) in outputs.iter().zip(weight.chunks(width)).zip(&bias) {
                    let sum: f64 = weight.iter().zip(hidden).map(|(w, h)| f64::from(*w) * f64::from(*h)).sum();
                    assert!((sum + f64::from(*bias) - f64::from(*output)).abs() < 1e-4, "{output} {sum}");
                }
            }
            // A model without the head names itself.
            let error = load("llama").open(&[1]).await.unwrap().outputs(head, 1).await.unwrap_err().to_string();
            assert!(error.contains(&format!("`tiny` cannot return {}", head.outputs())), "{error}");
        });
    }
}

#[test]
fn outputs_of_the_vocabulary_head_are_logits() {
    let engine = load("gemma2");
    wait(async {
        let mut session = engine.open(&[5, 6, 7, 8]).await.unwrap();
        let (mut outputs, rows) =
            (session.outputs(Head::VOCABULARY, 2).await.unwrap(), session.logits(2).await.unwrap());
        outputs.iter_mut().for_each(|row| log_softmax(row).unwrap());
        assert!(outputs == rows);
    });
}

/// A checkpoint for sequence classification has no vocabulary head: it judges and does not write.
#[test]
fn a_judge_without_a_vocabulary_head_does_not_write() {
    let mut checkpoint = Checkpoint::open(&fixture("llama")).unwrap();
    let width = checkpoint.config["hidden_size"].as_u64().unwrap() as usize;
    let kept: Vec<_> =
        checkpoint.weights.iter().filter(|tensor| tensor.name != Head::VOCABULARY.weight()).cloned().collect();
    checkpoint.weights = wsd_nn::Weights::new("test", kept);
    checkpoint.config.insert("tie_word_embeddings".into(), false.into());
    checkpoint.config.insert("architectures".into(), json!(["LlamaForSequenceClassification"]));
    with_tensors(&mut checkpoint, vec![matrix("score.weight", vec![1, width], &noise(width, 1))]);
    let engine = Local::load(checkpoint, &options()).unwrap();
    let caps = engine.card().caps;
    assert_eq!(caps.heads, Heads::NONE.with(Head::REWARD));
    assert!(caps.hidden && !caps.score && !caps.logits && !caps.choices && !caps.trees);
    wait(async {
        let mut session = engine.open(&[5, 6, 7]).await.unwrap();
        let rewards = session.rewards(1).await.unwrap();
        assert_eq!(rewards.len(), 3);
        assert_eq!(session.reward().await.unwrap(), rewards[2]);
        let error = session.score(1).await.unwrap_err().to_string();
        assert!(error.contains("no head `lm_head`"), "{error}");
        assert!(session.write(&greedy()).await.is_err());
    });
}

const MODULES: [&str; 4] = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"];
const FUSED: [&str; 3] = ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj"];

/// Writes an adapter of rank 3 for these modules of layer 1, and merges it into a checkpoint of floats.
fn adapter(folder: &Path, checkpoint: &mut Checkpoint, modules: &[&str]) {
    let (rank, scale) = (3, 6.0 / 3.0);
    let mut merged = Vec::new();
    let mut tensors = Vec::new();
    for (seed, module) in modules.iter().enumerate() {
        let name = format!("model.layers.1.{module}");
        let tensor = checkpoint.weights.get(&format!("{name}.weight")).unwrap().clone();
        let (outputs, inputs) = (tensor.rows(), tensor.columns());
        let (a, b) = (noise(rank * inputs, seed), noise(outputs * rank, 9 + seed));
        let (a, b) = (a.iter().map(|x| x * 0.1).collect::<Vec<_>>(), b.iter().map(|x| x * 0.1).collect::<Vec<_>>());
        let mut values = tensor.to_f32();
        for (index, value) in values.iter_mut().enumerate() {
            let (output, input) = (index / inputs, index % inputs);
            *value += scale * (0..rank).map(|r| b[output * rank + r] * a[r * inputs + input]).sum::<f32>();
        }
        merged.push(matrix(&tensor.name, vec![outputs, inputs], &values));
        let [down, up] = wsd_nn::adapter::names(&name);
        tensors.push((down, vec![rank, inputs], Format::F32.quantize(&a).unwrap()));
        tensors.push((up, vec![outputs, rank], Format::F32.quantize(&b).unwrap()));
    }
    with_tensors(checkpoint, merged);
    let config = json!({"peft_type": "LORA", "r": rank, "lora_alpha": 6, "bias": "none"});
    fs_err::write(folder.join(wsd_nn::adapter::CONFIG_FILE), config.to_string()).unwrap();
    write_safetensors(&folder.join(wsd_nn::adapter::WEIGHTS_FILE), &tensors);
}

/// A safetensors file: the length of its header, the header, the bytes.
fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<u8>)]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, bytes) in tensors {
        let place = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": place}));
        data.extend(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    fs_err::write(path, file).unwrap();
}

#[test]
fn an_adapter_at_run_time_equals_its_merge() {
    for (name, modules) in [("llama", &MODULES[..]), ("phi3_longrope", &FUSED), ("qwen3", &MODULES)] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        let mut merged = checkpoint.clone();
        adapter(folder.path(), &mut merged, modules);
        let exact = CpuOptions { exact: true, ..CpuOptions::default() };
        let tokens: Vec<u32> = (0..24).map(|k| (k * 37 + 5) % 290).collect();
        let mut cpu = Cpu::load_with(&checkpoint, exact).unwrap();
        let plain = rows(&mut cpu, 0, &tokens);
        cpu.adapt(&Adapter::open(folder.path(), &Spelling::default()).unwrap()).unwrap();
        assert_eq!(cpu.cached(0), 0, "the cache of the plain model was kept");
        let adapted = rows(&mut cpu, 0, &tokens);
        let expected = rows(&mut Cpu::load_with(&merged, exact).unwrap(), 0, &tokens);
        let error = |one: &[Vec<f32>], other: &[Vec<f32>]| {
            let pairs = one.iter().flatten().zip(other.iter().flatten());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let (off, change) = (error(&adapted, &expected), error(&plain, &expected));
        println!("{name}: off by {off:.1e}; the adapter changes logits by up to {change:.1e}");
        assert!(off < 1e-3 && change > 0.05, "{name}: off by {off}, changed by {change}");
        // As in a batch, token by token.
        let single: Vec<_> = tokens.iter().flat_map(|token| rows(&mut cpu, 1, &[*token])).collect();
        assert!(single == adapted, "{name}");
    }
}

#[test]
fn the_engine_loads_adapters_and_refuses_those_of_other_models() {
    let folder = tempfile::tempdir().unwrap();
    let mut merged = Checkpoint::open(&fixture("llama")).unwrap();
    adapter(folder.path(), &mut merged, &MODULES);
    let options = LoadOptions { adapters: vec![folder.path().to_owned()], ..options() };
    let engine = Local::load(Checkpoint::open(&fixture("llama")).unwrap(), &options).unwrap();
    let (found, plain) = wait(async {
        let found = engine.open(&[5, 6, 7]).await.unwrap().score(1).await.unwrap();
        (found, load("llama").open(&[5, 6, 7]).await.unwrap().score(1).await.unwrap())
    });
    assert_ne!(found, plain);
    let error = Local::load(Checkpoint::open(&fixture("phi3_longrope")).unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("`model.layers.1.self_attn.q_proj` is not a linear layer"), "{error}");
}
