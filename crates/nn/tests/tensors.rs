//! The executor on candle tensors: against the reference's numbers, against itself, and whether it can be trained.

#![cfg(feature = "candle")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cases;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use cases::{Case, cases, ids, is_stretched, longest, meet, project, rows, steady_cases};
use futures::StreamExt as _;
use wsd_core::{Engine as _, Generation, Layer, Sampling, Step};
use wsd_nn::arch::Head;
use wsd_nn::tensors::{Batch, Decoder, Tensors};
use wsd_nn::{Executor, Format, LoadOptions, Local, Span, TemplateChoice, arch};

/// Between two ways of computing the same thing in float32, relative to the largest logit.
const TOLERANCE: f32 = 1e-5;

fn load(case: &Case) -> Tensors {
    Tensors::load(&case.checkpoint, &Device::Cpu, None).unwrap()
}

fn assert_near(name: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let size = expected.iter().fold(1.0f32, |most, logit| most.max(logit.abs()));
        let error = found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(error <= TOLERANCE * size, "{name}: row {index} is off by {error} of {size}");
    }
}

#[test]
fn logits_match_the_reference() {
    for case in cases() {
        let worst = meet(&case.name, &mut load(&case), &case.sequences);
        println!("{}: log-probabilities within {worst:.1e}", case.name);
    }
}

#[test]
fn logits_match_the_reference_in_half_precision() {
    for case in cases() {
        meet_in_half(&case, Format::BF16, &Device::Cpu);
    }
}

/// Eight bits of each number, or eleven: far from the last digit, but nothing is lost or out of place.
fn meet_in_half(case: &Case, dtype: Format, device: &Device) {
    let mut half = Tensors::load(&case.checkpoint, device, Some(dtype)).unwrap();
    let tokens = longest(case);
    let (found, expected) = (rows(&mut half, 0, &tokens).concat(), rows(&mut load(case), 0, &tokens).concat());
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let error = square(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / square(&mut expected.iter().copied());
    println!("{}: logits in {dtype} off by {:.1e} of their size", case.name, error.sqrt());
    assert!(error.sqrt() < 0.05, "{}: logits in {dtype} off by {} of their size", case.name, error.sqrt());
}

#[test]
fn pieces_equal_one_pass_over_the_whole() {
    for case in steady_cases() {
        let mut model = load(&case);
        let tokens = longest(&case);
        let whole = rows(&mut model, 0, &tokens);
        for (slot, size) in [(1, 1), (2, 3), (3, 16)] {
            let pieces: Vec<_> = tokens.chunks(size).flat_map(|piece| rows(&mut model, slot, piece)).collect();
            assert_near(&format!("{} in pieces of {size}", case.name), &pieces, &whole);
        }
        assert_eq!(model.slots(), 4);
    }
}

#[test]
fn other_sequences_in_a_batch_change_nothing() {
    for case in steady_cases() {
        let mut model = load(&case);
        let tokens = longest(&case);
        let alone = rows(&mut model, 0, &tokens);
        let (half, other) = (tokens.len() / 2, &tokens[3..]);
        let spans = [
            Span { rows: 0..half, ..Span::chain(1, 0, &tokens[..half]) },
            Span::chain(2, 0, other),
            Span::chain(3, 0, &[]),
        ];
        let first = model.forward(&spans).unwrap();
        let spans = [
            Span { rows: 0..1, ..Span::chain(2, other.len(), &other[..1]) },
            Span { rows: 6..7, ..Span::chain(4, 0, &other[..7]) },
            Span { rows: 1..tokens.len() - half, ..Span::chain(1, half, &tokens[half..]) },
        ];
        let second = model.forward(&spans).unwrap();
        let width = model.blueprint().hidden;
        let (first, second) = (project(&mut model, &first), project(&mut model, &second[2 * width..]));
        assert_near(&case.name, &first, &alone[..half]);
        assert_near(&case.name, &second, &alone[half + 1..]);
        assert_eq!(model.cached(2), other.len() + 1);
    }
}

#[test]
fn a_truncated_cache_equals_a_fresh_one() {
    for case in steady_cases() {
        let mut model = load(&case);
        let tokens = longest(&case);
        let kept = tokens.len() / 3;
        let other: Vec<u32> = tokens[..kept].iter().chain(tokens.iter().rev()).copied().take(tokens.len()).collect();
        rows(&mut model, 0, &tokens);
        model.truncate(0, kept);
        assert_eq!(model.cached(0), kept);
        let edited = rows(&mut model, 0, &other[kept..]);
        assert_near(&case.name, &edited, &rows(&mut model, 1, &other)[kept..]);
        model.release(0);
        assert_eq!((model.cached(0), model.slots()), (0, 1));
    }
}

#[test]
fn a_copied_prefix_equals_a_computed_one() {
    for case in steady_cases() {
        let mut model = load(&case);
        let tokens = longest(&case);
        let kept = tokens.len() / 3;
        let whole = rows(&mut model, 0, &tokens);
        model.copy(0, 1, kept).unwrap();
        model.copy(7, 2, kept).unwrap();
        assert_eq!((model.cached(0), model.cached(1), model.cached(2)), (tokens.len(), kept, 0));
        // Neither writes into the other's cache.
        model.truncate(1, kept - 1);
        rows(&mut model, 1, &[tokens[kept - 1] ^ 1]);
        model.truncate(0, kept);
        assert_near(&case.name, &rows(&mut model, 0, &tokens[kept..]), &whole[kept..]);
        model.truncate(1, kept - 1);
        assert_near(&case.name, &rows(&mut model, 1, &tokens[kept - 1..]), &whole[kept - 1..]);
    }
}

#[test]
fn branches_of_a_tree_equal_chains_and_the_accepted_one_is_kept() {
    for case in steady_cases() {
        let mut model = load(&case);
        let tokens = longest(&case);
        let list = &tokens[..tokens.len() - 4];
        let branches = [[7, 8, 9], [8, 7, 10]];
        let (parents, nodes) = ([0, 0, 1, 2, 3, 4], [7, 8, 8, 7, 9, 10]);
        rows(&mut model, 0, list);
        let tree = Span { rows: 0..6, parents: Some(&parents), ..Span::chain(0, list.len(), &nodes) };
        let hidden = model.forward(&[tree]).unwrap();
        let found = project(&mut model, &hidden);
        for (index, branch) in branches.iter().enumerate() {
            let chain = rows(&mut model, 1, &[list, &branch[..]].concat());
            let of_branch: Vec<_> = found.iter().skip(index).step_by(2).cloned().collect();
            assert_near(&case.name, &of_branch, &chain[list.len()..]);
            model.release(1);
        }
        model.keep(0, list.len(), &[1, 3].map(|node| list.len() + node)).unwrap();
        let next = rows(&mut model, 0, &[11]);
        assert_near(&case.name, &next, &rows(&mut model, 1, &[list, &[8, 7, 11]].concat())[list.len() + 2..]);
        model.release(1);
        model.truncate(0, list.len());
        // Hidden states before the final norm differ from those after it.
        let span = Span { rows: 0..1, layer: Layer::After(1), ..Span::chain(0, list.len(), &[11]) };
        let early = model.forward(&[span]).unwrap();
        assert_eq!(early.len(), model.blueprint().hidden);
    }
}

/// Buffers double at 256 positions: what they held moves along.
#[test]
fn a_cache_that_grows_keeps_what_it_holds() {
    let Some(mut case) = steady_cases().next() else { return };
    case.checkpoint.config.insert("max_position_embeddings".into(), 1024.into());
    let mut model = load(&case);
    let tokens: Vec<u32> = (0..600).map(|index| index * 37 % 290).collect();
    let whole = rows(&mut model, 0, &tokens);
    let pieces: Vec<_> = tokens.chunks(100).flat_map(|piece| rows(&mut model, 1, piece)).collect();
    assert_near(&case.name, &pieces, &whole);
}

#[test]
fn crossing_the_border_of_long_rope_leaves_no_trace() {
    for mut case in cases().into_iter().filter(is_stretched) {
        let tokens = longest(&case);
        case.checkpoint.config.insert("original_max_position_embeddings".into(), (tokens.len() / 2).into());
        let mut model = load(&case);
        let whole = rows(&mut model, 0, &tokens);
        let grown: Vec<_> = tokens.chunks(3).flat_map(|piece| rows(&mut model, 1, piece)).collect();
        let border = tokens.len() / 2 + 2;
        assert_near(&case.name, &grown[border..], &whole[border..]);
        model.truncate(0, 10);
        let again = rows(&mut model, 0, &tokens[10..13]);
        assert_near(&case.name, &again, &grown[10..13]);
    }
}

#[test]
fn spans_and_formats_that_cannot_be_run_are_errors() {
    let Some(case) = cases().into_iter().next() else { return };
    let mut model = load(&case);
    rows(&mut model, 0, &[5, 6, 7]);
    let vocab = model.blueprint().vocab as u32;
    for (bad, word) in [(Span::chain(1, 1, &[1]), "0 are cached"), (Span::chain(1, 0, &[vocab]), "token")] {
        let error = model.forward(&[bad]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!((model.cached(0), model.slots()), (3, 1));
    }
    assert!(model.project(Head::VOCABULARY, &[0.0; 3], &mut Vec::new()).is_err());
    let error = Tensors::load(&case.checkpoint, &Device::Cpu, Some(Format::Q8_0)).err().unwrap().to_string();
    assert!(error.contains("Q8_0") && error.contains("BF16"), "{error}");
}

#[test]
fn the_engine_writes_the_reference_s_tokens() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for case in cases() {
        let options = LoadOptions {
            device: wsd_nn::Device::Candle,
            template: TemplateChoice::Plain,
            threads: Some(2),
            ..LoadOptions::new("tiny")
        };
        let engine = Local::load(case.checkpoint.clone(), &options).unwrap();
        let ends = &engine.card().end_tokens;
        for sequence in &case.sequences {
            let expected = ids(&sequence["greedy_ids"]);
            // The reference writes on past the end of a text.
            let end = expected.iter().position(|token| ends.contains(token)).unwrap_or(expected.len());
            let plan =
                Generation { max_tokens: expected.len(), sampling: Sampling::default(), top_logprobs: 0, guide: None };
            let found: Vec<u32> = runtime.block_on(async {
                let mut session = engine.open(&ids(&sequence["ids"])).await.unwrap();
                let steps: Vec<_> = session.generate(&plan).map(Result::unwrap).collect().await;
                let token = |step: Step| if let Step::Token(sampled) = step { Some(sampled.token) } else { None };
                steps.into_iter().filter_map(token).collect()
            });
            assert_eq!(found, expected[..end], "{}", case.name);
        }
    }
}

/// Mean negative log-probability of each token of two sequences after those before it.
fn loss(plan: &arch::Blueprint, decoder: &Decoder, sequences: &[&[u32]]) -> Tensor {
    let inputs: Vec<&[u32]> = sequences.iter().map(|tokens| &tokens[..tokens.len() - 1]).collect();
    let targets: Vec<u32> = sequences.iter().flat_map(|tokens| &tokens[1..]).copied().collect();
    let hidden = decoder.forward(&Batch::whole(plan, &inputs, &Device::Cpu).unwrap()).unwrap();
    let logits = decoder.project(Head::VOCABULARY, &hidden).unwrap();
    let wanted = Tensor::new(targets, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
    let wanted = logits.gather(&wanted, 1).unwrap().squeeze(1).unwrap();
    (logits.log_sum_exp(1).unwrap() - wanted).unwrap().mean_all().unwrap()
}

/// A tensor with no gradient would be silently left untrained; one with a wrong gradient, trained
/// to no good. So: none is
/// zero, and together they foretell how the loss changes along them.
#[test]
fn every_tensor_has_its_gradient() {
    for case in cases() {
        let plan = arch::blueprint(&case.checkpoint.config).unwrap();
        let mut variables = BTreeMap::new();
        let decoder = Decoder::new(&plan, |name| {
            let tensor = case.checkpoint.weights.get(name).unwrap();
            let values = Tensor::from_vec(tensor.to_f32(), tensor.shape.as_slice(), &Device::Cpu)?;
            let variable = Var::from_tensor(&values)?;
            let shared = variable.as_tensor().clone();
            variables.insert(name.to_owned(), variable);
            Ok(shared)
        })
        .unwrap();
        let names: Vec<_> = arch::tensors(&plan).into_iter().map(|(name, _)| name).collect();
        assert_eq!(variables.len(), names.len());

        let tokens: Vec<_> = case.sequences.iter().map(|sequence| ids(&sequence["ids"])).collect();
        let tokens: Vec<_> = tokens.iter().take(2).map(Vec::as_slice).collect();
        let before = loss(&plan, &decoder, &tokens);
        let gradients = before.backward().unwrap();
        let mut square = 0.0;
        for name in &names {
            let gradient = gradients.get(&variables[name]).unwrap_or_else(|| panic!("{}: {name} has none", case.name));
            let of_tensor = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(of_tensor > 0.0 && of_tensor.is_finite(), "{}: {name}: {of_tensor}", case.name);
            square += f64::from(of_tensor);
        }

        let step = 2e-3 / square;
        let move_by = |step: f64| {
            for name in &names {
                let gradient = gradients.get(&variables[name]).unwrap();
                let moved = (variables[name].as_tensor() + gradient.affine(step, 0.0).unwrap()).unwrap();
                variables[name].set(&moved.detach()).unwrap();
            }
            f64::from(loss(&plan, &decoder, &tokens).to_scalar::<f32>().unwrap())
        };
        let up = move_by(step);
        let down = move_by(-2.0 * step);
        let slope = (up - down) / (2.0 * step);
        assert!((slope / square - 1.0).abs() < 0.05, "{}: slope {slope}, gradient {square}", case.name);
    }
}
