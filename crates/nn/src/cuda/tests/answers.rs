//! Questions about logits, answered on the device and by an engine on it.

use futures::StreamExt as _;
use wsd_core::{Engine as _, Generation, Sampling, Step, Token};

use super::*;
use crate::executor::CANDIDATES;
use crate::load::Loaded;
use crate::{LoadOptions, Local, TemplateChoice};

#[test]
fn candidates_are_the_most_likely_tokens() {
    let case = cases().into_iter().find(|case| case.name.ends_with("fixtures/llama/config.json")).unwrap();
    let Some(mut model) = load(&case, None) else { return };
    let tokens = &longest(&case)[..7];
    // More than once, so that a recorded step answers too.
    for slot in [1, 2, 3] {
        let asks: Vec<Ask> = (0..7).map(|row| if row % 3 == 1 { Ask::Argmax } else { warm(row) }).collect();
        let answers = model.answer(&[Span { rows: 0..7, ..Span::chain(slot, 0, tokens) }], &asks).unwrap().unwrap();
        for (row, (answer, ask)) in answers.iter().zip(&asks).enumerate() {
            let logits = model.answered_logits(row).unwrap();
            let Ask::Candidates { temperature } = ask else {
                assert_eq!(answer.candidates, None);
                continue;
            };
            let found = answer.candidates.as_ref().unwrap();
            let mut order: Vec<_> = logits.iter().enumerate().map(|(token, x)| (token as Token, *x)).collect();
            order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            order.truncate(CANDIDATES);
            let mut sorted = found.tokens.clone();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            assert_eq!((answer.token, sorted), (order[0].0, order.clone()), "row {row}");
            let weight = |x: &f32| (f64::from(x - order[0].1) / f64::from(*temperature)).exp();
            let mass: f64 = logits.iter().map(weight).sum();
            assert!((found.mass / mass - 1.0).abs() < wsd_core::Candidates::MASS_ERROR / 3.0);
            assert!((found.log_sum_exp - log_sum_exp(&logits)).abs() < 1e-5);
        }
    }
}

/// A question about candidates, at another temperature for each row.
fn warm(row: usize) -> Ask {
    Ask::Candidates { temperature: 0.3 + 0.4 * row as f32 }
}

/// An engine on cards.
pub(super) fn engine(checkpoint: Checkpoint, cards: Vec<Gpu>) -> Local {
    let options = LoadOptions { template: TemplateChoice::Plain, threads: Some(1), ..LoadOptions::new("tiny") };
    let on_cards = |checkpoint: &Checkpoint| {
        let executor = Cuda::load_onto(all(cards), checkpoint, CudaOptions::default())?;
        Ok(Loaded { device: executor.device(), executor: Box::new(executor), has_stream: true })
    };
    Local::load_by(checkpoint, &options, on_cards).unwrap()
}

/// Tokens that an engine writes.
pub(super) const TOKENS: usize = 16;

/// The text that an engine on the GPU writes after a short prompt.
pub(super) async fn write(engine: &Local, sampling: &Sampling, top_logprobs: usize) -> Vec<Token> {
    let mut session = engine.open(&[5, 6, 7]).await.unwrap();
    let plan = Generation { max_tokens: TOKENS, sampling: sampling.clone(), top_logprobs, guide: None };
    let mut steps = session.generate(&plan);
    let mut written = Vec::new();
    while let Some(step) = steps.next().await {
        if let Step::Token(sampled) = step.unwrap() {
            written.push(sampled.token);
        }
    }
    written
}

/// Texts by candidates, or by the whole row where these do not decide, are those of whole rows,
/// which `top_logprobs` brings to the host.
#[test]
fn a_seed_gives_the_same_text_by_candidates_and_by_whole_rows() {
    let mut case = cases().into_iter().find(|case| case.name.ends_with("fixtures/llama/config.json")).unwrap();
    case.checkpoint.end_tokens.clear();
    let Some(gpu) = gpu() else { return };
    let engine = engine(case.checkpoint, vec![gpu]);
    let sampling =
        |temperature, top_k, top_p, min_p| Sampling { temperature, top_k, top_p, min_p, ..Sampling::default() };
    let settings = [
        sampling(0.7, 20, 0.8, 0.0),
        sampling(1.0, 0, 0.9, 0.0),
        sampling(0.3, 0, 0.6, 0.0),
        sampling(1.0, 0, 1.0, 0.3),
        // The whole row decides: of a flat distribution, without filters, and with penalties.
        sampling(9.0, 0, 0.95, 0.0),
        sampling(1.0, 0, 1.0, 0.0),
        Sampling { repetition_penalty: 1.3, ..sampling(0.7, 20, 1.0, 0.0) },
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for sampling in settings {
        let texts = [0, 1].map(|top| runtime.block_on(write(&engine, &sampling, top)));
        assert_eq!((texts[0].len(), &texts[0]), (TOKENS, &texts[1]), "{sampling:?}");
    }
}
