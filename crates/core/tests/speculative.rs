//! Tests of speculation: it changes no token.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures::StreamExt as _;
use futures::executor::block_on;
use proptest::prelude::*;
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    CallKind, Completion, FinishReason, Job, Models, Prompt, Recipe, SPECULATE, Sampling, Seat, THRESHOLD, Terms,
    Token, Trace, Values, run,
};

const LETTERS: &str = "abcdefg ";

/// A model whose next row depends on the last two tokens. In a share `agreement` of all states,
/// models of every seed compute the same row; in the others the row depends on the seed.
fn model(seed: u64, agreement: f64, sharpness: f32, ends: bool) -> Scripted {
    let pieces = Arc::new(Pieces::letters(LETTERS));
    let vocab = wsd_core::Tokenizer::vocabulary(&*pieces).pieces.len();
    Scripted::new("model", pieces, move |tokens: &[Token]| {
        let shared = tokens.iter().rev().take(2).fold(7, |hash, &token| mix(hash ^ u64::from(token)));
        let is_own = (mix(shared ^ seed) >> 11) as f64 >= agreement * (1u64 << 53) as f64;
        let state = if is_own { mix(shared ^ seed) } else { shared };
        let logit = |id: usize| match id {
            0 if ends => (state % 4) as f32 - 1.0,
            0 | 1 => f32::NEG_INFINITY,
            _ => (mix(state ^ mix(id as u64)) >> 40) as f32 / (1 << 24) as f32 * sharpness,
        };
        (0..vocab).map(logit).collect()
    })
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (x >> 32)
}

fn complete(strategy: &str, models: &Models, job: &Job, values: &Values) -> Completion {
    let strategy = Recipe::find(strategy).unwrap().build(models, values).unwrap();
    block_on(async {
        let (mut trace, mut events) = (Trace::new(), run(strategy, job.clone()));
        while let Some(event) = events.next().await {
            trace.push(&event.unwrap());
        }
        trace.finish()
    })
}

fn assert_equal(one: &Completion, other: &Completion) {
    assert_eq!(one.tokens, other.tokens);
    assert_eq!((&one.text, one.finish_reason, one.handover), (&other.text, other.finish_reason, other.handover));
}

fn models(seed: u64, agreement: f64, sharpness: f32, ends: bool, contexts: [usize; 2]) -> Models {
    let [draft, base] = [seed, seed ^ 1].map(|seed| model(seed, agreement, sharpness, ends));
    let [draft_len, base_len] = contexts;
    Models::default()
        .with(Seat::DRAFT, Arc::new(draft.with_context(draft_len)))
        .with(Seat::BASE, Arc::new(base.with_context(base_len)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn tokens_equal_those_without_speculation(
        seed: u64, agreement in 0f64..1.0, sharpness in 1f32..14.0, ends: bool,
        contexts in prop::array::uniform2(12usize..200),
        max_tokens in 1usize..150, top_logprobs in 0usize..3, threshold in 0.05f64..0.9,
        temperature in prop::sample::select(vec![0f32, 0.7, 1.3]), top_k in 0usize..5,
        repetition_penalty in prop::sample::select(vec![1f32, 1.2]),
        stop in prop::collection::vec("[a-g ]{2,3}", 0..2),
    ) {
        let models = models(seed, agreement, sharpness, ends, contexts);
        let sampling = Sampling { temperature, top_k, repetition_penalty, seed, ..Sampling::default() };
        let terms = Terms { max_tokens, sampling, stop, top_logprobs, grammar: None };
        let job = Job { prompt: Prompt::Raw("bad cab".into()), terms };
        let values = Values::default().with(&THRESHOLD, threshold).unwrap();
        let without = values.clone().with(&SPECULATE, false).unwrap();
        assert_equal(&complete("speculative", &models, &job, &values), &complete("base", &models, &job, &values));
        assert_equal(&complete("wsd", &models, &job, &values), &complete("wsd", &models, &job, &without));
    }
}

#[test]
fn every_proposal_of_an_equal_draft_is_accepted() {
    let models = models(3, 1.0, 12.0, false, [4096; 2]);
    let prompt = Prompt::Raw("bad cab".into());
    let job = Job {
        prompt,
        terms: Terms { max_tokens: 200, sampling: Sampling::default(), stop: vec![], top_logprobs: 0, grammar: None },
    };
    let done = complete("speculative", &models, &job, &Values::default());
    assert_eq!((done.usage.by_author.get(Seat::BASE), done.finish_reason), (200, FinishReason::Length));
    let checks = done.calls.iter().filter(|call| call.kind == CallKind::Check);
    assert!(checks.clone().all(|call| call.to == Seat::BASE && call.accepted == Some(call.tokens - 1)));
    assert_eq!(done.timings.accepted_tokens, done.timings.proposed_tokens);
}

#[test]
fn different_vocabularies_exclude_speculation() {
    let models = Models::default()
        .with(Seat::DRAFT, Arc::new(model(1, 1.0, 9.0, false)))
        .with(Seat::BASE, Arc::new(Scripted::random("base", Arc::new(Pieces::letters("abcdefgh ")), 4)));
    let error = Recipe::find("speculative").unwrap().build(&models, &Values::default()).err().unwrap().to_string();
    assert!(error.contains("speculative") && error.contains("vocabulary"), "{error}");
    let prompt = Prompt::Raw("bad cab".into());
    let job = Job {
        prompt,
        terms: Terms { max_tokens: 40, sampling: Sampling::default(), stop: vec![], top_logprobs: 0, grammar: None },
    };
    assert_eq!(complete("wsd", &models, &job, &Values::default()).timings.proposed_tokens, 0);
}
