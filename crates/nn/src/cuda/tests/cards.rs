//! A model on several cards.

use futures::StreamExt as _;
use wsd_core::{Engine as _, Generation, Sampling};

use super::answers::{TOKENS, engine, write};
use super::*;
use crate::kernels::KvFormat;

/// Fixtures with folded norms, an embedding of positions, parallel parts, and without norms of inputs.
const NAMES: [&str; 4] = ["llama", "gpt2", "stablelm_parallel", "olmo2"];

/// Two GPUs, one twice, or two stand-ins.
fn two() -> Option<Vec<Gpu>> {
    match Gpu::open(0) {
        Ok(first) => Some(vec![first, Gpu::open(1).or_else(|_| Gpu::open(0)).unwrap()]),
        Err(_) => stand_ins(&[1 << 30; 2]),
    }
}

/// Stand-ins with so much memory.
fn stand_ins(totals: &[usize]) -> Option<Vec<Gpu>> {
    let card = |(number, total): (usize, &usize)| Emulator::try_new(&format!("card {number}"), *total).map(Gpu::new);
    let cards = totals.iter().enumerate().map(card).collect::<Result<_, _>>();
    cards.map_err(|reason| println!("skipped: {reason}")).ok()
}

/// A chain, decoding with recorded steps, a tree and its accepted path, a shared prefix, a truncated
/// slot, hidden states of every layer, and answers.
fn work(model: &mut Cuda, tokens: &[u32]) -> Vec<Vec<f32>> {
    let (list, layers) = (&tokens[..18], model.blueprint().layers.len());
    let mut found = rows(model, 0, list);
    found.extend(tokens[18..21].iter().flat_map(|token| rows(model, 0, &[*token])));
    let tree = Span { rows: 0..4, parents: Some(&[0, 0, 1, 2]), ..Span::chain(0, 21, &[7, 8, 8, 7]) };
    found.push(model.forward(&[tree]).unwrap());
    model.keep(0, 21, &[22, 24]).unwrap();
    found.extend(rows(model, 0, &[11, 12]));
    model.copy(0, 1, 17).unwrap();
    found.extend(rows(model, 1, &[3, 4]));
    model.truncate(0, 5);
    found.extend(rows(model, 0, &[9; 3]));
    for depth in (0..=layers).rev() {
        let start = model.cached(1);
        let span = |slot, start, layer| Span { rows: 0..2, layer, ..Span::chain(slot, start, &[5, 6]) };
        let spans = [span(1, start, Layer::After(depth)), span(2, 0, Layer::Final)];
        found.push(model.forward(&spans).unwrap());
        model.release(2);
    }
    for slot in [3, 4] {
        let asks = [Ask::Argmax, Ask::Logprob(7), Ask::Candidates { temperature: 0.7 }];
        let span = Span { rows: 0..3, ..Span::chain(slot, 0, &tokens[..3]) };
        for answer in model.answer(&[span], &asks).unwrap().unwrap() {
            found.push(vec![answer.token as f32, answer.logprob as f32]);
            let tokens = answer.candidates.map(|candidates| candidates.tokens).unwrap_or_default();
            let mut tokens: Vec<_> = tokens.into_iter().map(|(token, logit)| vec![token as f32, logit]).collect();
            tokens.sort_by(|a, b| a[0].total_cmp(&b[0]));
            found.extend(tokens);
        }
        found.push(model.answered_logits(2).unwrap());
    }
    found
}

#[test]
fn two_cards_answer_as_one_does_bit_for_bit() {
    for case in NAMES.map(fixture) {
        let tokens = longest(&case);
        let kv = Some(KvFormat::Q8_0).filter(|_| case.name.contains("olmo2"));
        let options = CudaOptions { dtype: Some(Format::BF16), kv };
        let (Some(mut one), Some(cards)) = (load_with(&case, options), two()) else { return };
        let mut both = Cuda::load_onto(all(cards), &case.checkpoint, options).unwrap();
        let device = both.device();
        assert_eq!(both.stages.len(), 2, "{}: {device}", case.name);
        assert!(device.contains(": layers 1 to ") && device.contains(" MiB of weights"), "{device}");
        assert!(work(&mut both, &tokens) == work(&mut one, &tokens), "{}", case.name);
    }
}

#[test]
fn a_model_takes_as_many_cards_as_it_needs() {
    let case = fixture("gemma3_pattern6");
    let load = |open: Vec<Gpu>, others: Vec<Gpu>| {
        Cuda::load_onto(Cards { open, others: others.into_iter() }, &case.checkpoint, CudaOptions::default())
    };
    let Some(large) = stand_ins(&[1 << 30; 2]) else { return };
    let [first, second] = [large[0].clone(), large[1].clone()];
    let mut one = load(vec![first.clone()], vec![second]).unwrap();
    assert_eq!((one.stages.len(), one.device().as_str()), (1, "card 0"));
    let cache = storage::least_cache(&one.blueprint, one.types);
    let needed = one.loader(&first, &HashMap::new()).needs(cache).total();
    let cards = stand_ins(&[needed * 3 / 4; 2]).unwrap();
    let error = load(cards[..1].to_vec(), Vec::new()).err().unwrap().to_string();
    assert!(error.contains("card 0 has ") && error.contains("hint: --device cuda"), "{error}");
    let mut both = load(cards[..1].to_vec(), cards[1..].to_vec()).unwrap();
    assert_eq!(both.stages.iter().map(|stage| stage.layers.len()).sum::<usize>(), 7);
    assert_eq!(both.stages.len(), 2, "{}", both.device());

    // The candidates of a step do not fit onto the last card. Nothing else is lost.
    let tokens = longest(&case)[..9].to_vec();
    assert!(rows(&mut both, 0, &tokens) == rows(&mut one, 0, &tokens));
    let ask = [Ask::Candidates { temperature: 1.0 }];
    let error = both.answer(&[Span { rows: 0..1, ..Span::chain(0, 9, &[5]) }], &ask).unwrap_err().to_string();
    assert!(error.contains("card 1 has not enough memory"), "{error}");
    assert_eq!(both.cached(0), 9);
    assert!(rows(&mut both, 0, &[6]) == rows(&mut one, 0, &[6]));
}

#[test]
fn work_that_is_dropped_leaves_the_cards_to_the_rest() {
    let mut case = fixture("llama");
    case.checkpoint.end_tokens.clear();
    let (Some(gpu), Some(cards)) = (gpu(), two()) else { return };
    let checkpoint = fixture("llama").checkpoint;
    let checkpoint = Checkpoint { end_tokens: Vec::new(), ..checkpoint };
    let (one, both) = (engine(checkpoint, vec![gpu]), engine(case.checkpoint, cards));
    let sampling = Sampling { temperature: 0.7, top_k: 20, ..Sampling::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (expected, found) = runtime.block_on(async {
        let plan = Generation { max_tokens: TOKENS, sampling: sampling.clone(), top_logprobs: 0, guide: None };
        let mut dropped = both.open(&[5, 6, 7, 8]).await.unwrap();
        dropped.generate(&plan).next().await.unwrap().unwrap();
        drop(dropped);
        (write(&one, &sampling, 0).await, write(&both, &sampling, 0).await)
    });
    assert_eq!((found.len(), &found), (TOKENS, &expected));
}

/// A model is divided by bytes that are known before it is loaded.
#[test]
fn weights_take_the_bytes_that_were_planned() {
    for (name, dtype) in [("llama", Format::BF16), ("qwen3_moe", Format::F32), ("kquant", Format::Q5_K)] {
        let case = fixture(name);
        let Some(model) = load(&case, Some(dtype)) else { return };
        let layers = 0..model.blueprint.layers.len();
        let Some(cards) = stand_ins(&[1 << 30]) else { return };
        let planned = model.loader(&cards[0], &model.changes).needs(0).weights(&layers);
        let _weights = model.loader(&cards[0], &model.changes).load(&layers).unwrap();
        let (free, total) = cards[0].memory().unwrap();
        let ratio = (total - free) as f64 / planned as f64;
        println!("{name} in {dtype}: {planned} bytes are planned, of which {ratio:.3} are taken");
        assert!((0.9..1.02).contains(&ratio), "{name} in {dtype}: {planned} bytes were planned, {ratio} taken");
    }
}
