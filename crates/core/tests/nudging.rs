//! Tests of nudging against a plain implementation of its rule, which opens a new session for each
//! request.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures::StreamExt as _;
use futures::executor::block_on;
use proptest::prelude::*;
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    Author, Completion, Engine, FinishReason, Generation, Job, Models, NUDGE_THRESHOLD, Prompt, Recipe, Row, Sampling,
    Seat, Step, Stop, Terms, Token, Tokenizer as _, Trace, Values, run,
};

/// A model whose next row depends on the last two characters, whatever their tokens. With `ends` it
/// may end its text.
fn model(name: &str, pieces: &[&str], seed: u64, sharpness: f32, ends: bool) -> Scripted {
    let pieces = Arc::new(Pieces::new(pieces.iter().map(|&piece| piece.to_owned())));
    let (spelling, vocab) = (pieces.clone(), pieces.vocabulary().pieces.len());
    Scripted::new(name, pieces, move |tokens: &[Token]| -> Row {
        let text = spelling.decode(&tokens[tokens.len().saturating_sub(2)..]).unwrap();
        let state = text.bytes().rev().take(2).fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
        let logit = |id: usize| (mix(state ^ mix(id as u64)) >> 40) as f32 / (1 << 24) as f32 * sharpness;
        let row = (0..vocab).map(|id| match id {
            0 if ends => sharpness * 0.7 * (mix(state) % 2) as f32,
            0 | 1 => f32::NEG_INFINITY,
            _ => logit(id),
        });
        row.collect()
    })
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (x >> 32)
}

/// Generates up to `max_tokens` tokens after a list, each with the probability of the most likely
/// token at its position.
fn generate(engine: &dyn Engine, list: &[Token], max_tokens: usize) -> (Vec<(Token, f64)>, Stop) {
    let generation = Generation { max_tokens, sampling: Sampling::default(), top_logprobs: 1, guide: None };
    block_on(async {
        let mut session = engine.open(list).await.unwrap();
        let (mut written, mut stop) = (vec![], Stop::Length);
        let mut steps = session.generate(&generation);
        while let Some(step) = steps.next().await {
            match step.unwrap() {
                Step::Token(sampled) => written.push((sampled.token, sampled.top[0].1.exp())),
                Step::End(end) => stop = end,
            }
        }
        (written, stop)
    })
}

/// Returns the most likely token after a list, which may be the end, and its probability.
fn most_likely(engine: &dyn Engine, list: &[Token]) -> (Token, f64) {
    let mut session = block_on(engine.open(list)).unwrap();
    let row = block_on(session.logits(list.len())).unwrap().remove(0);
    let (token, logprob) = wsd_core::top_tokens(&row, 1).unwrap()[0];
    (token, logprob.exp())
}

/// Implements the rule that the strategy's documentation describes.
fn reference(models: &Models, prompt: &str, max_tokens: usize, threshold: f64) -> (Vec<(Token, Author)>, FinishReason) {
    let (draft, base) = (models.get(Seat::DRAFT).unwrap().as_ref(), models.get(Seat::BASE).unwrap().as_ref());
    let spell = |engine: &dyn Engine, text: &str| engine.codec().tokenizer().encode(text).unwrap();
    let read = |engine: &dyn Engine, tokens: &[Token]| engine.codec().tokenizer().decode(tokens).unwrap();
    let start = [vec![1], spell(base, prompt)].concat();
    let mut answer: Vec<(Token, Author)> = vec![];
    while answer.len() < max_tokens {
        let ids: Vec<_> = answer.iter().map(|&(token, _)| token).collect();
        let (list, text) = ([&start[..], &ids].concat(), read(base, &ids));
        let (written, stop) = generate(draft, &[vec![1], spell(draft, &format!("{prompt}{text}"))].concat(), 16);
        let nudge = read(draft, &written.iter().map(|&(token, _)| token).collect::<Vec<_>>());
        if stop == Stop::End {
            answer.extend(spell(base, &nudge).into_iter().map(|token| (token, Seat::DRAFT.into())));
            answer.truncate(max_tokens);
            let cut = answer.len() == max_tokens && !nudge.is_empty();
            return (answer, if cut { FinishReason::Length } else { FinishReason::Stop });
        }
        let leading = nudge.len() - nudge.trim_start_matches(' ').len();
        let words: Vec<_> = nudge[leading..].split(' ').collect();
        let kept = |count: usize| format!("{}{}", &nudge[..leading], words[..count].join(" "));
        let mut base_begins = None;
        let mut count = 1;
        while count < words.len() {
            if !words[count].is_empty() {
                let list = [&list[..], &spell(base, &kept(count))].concat();
                let (token, probability) = most_likely(base, &list);
                let piece = read(base, &[token]);
                let agreed = !piece.is_empty() && nudge[kept(count).len()..].starts_with(&piece);
                if agreed || probability >= threshold {
                    base_begins = Some(agreed);
                    break;
                }
            }
            count += 1;
        }
        let count = if base_begins.is_none() && words.len() > 1 { words.len() - 1 } else { count.min(words.len()) };
        let nudged = spell(base, &kept(count));
        answer.extend(nudged.iter().map(|&token| (token, Seat::DRAFT.into())));
        if let Some(agreed) = base_begins {
            let (written, _) = generate(base, &[&list[..], &nudged].concat(), max_tokens);
            let kept = written.iter().enumerate().take_while(|(i, (_, top))| *top >= threshold || agreed && *i == 0);
            answer.extend(kept.map(|(_, &(token, _))| (token, Seat::BASE.into())));
        }
    }
    answer.truncate(max_tokens);
    (answer, FinishReason::Length)
}

fn complete(models: &Models, prompt: &str, max_tokens: usize, nudge_threshold: f64) -> Completion {
    let values = Values::default().with(&NUDGE_THRESHOLD, nudge_threshold).unwrap();
    let strategy = Recipe::find("nudging").unwrap().build(models, &values).unwrap();
    let prompt = Prompt::Raw(prompt.into());
    let job = Job {
        prompt,
        terms: Terms { max_tokens, sampling: Sampling::default(), stop: vec![], top_logprobs: 0, grammar: None },
    };
    block_on(async {
        let (mut trace, mut events) = (Trace::new(), run(strategy, job));
        while let Some(event) = events.next().await {
            trace.push(&event.unwrap());
        }
        trace.finish()
    })
}

const LETTERS: &[&str] = &["a", "b", "c", " ", "\n"];
const SYLLABLES: &[&str] = &["c", "b", "a", "\n", " ", "ab", "abc", " a", "cc", "ba", " ba", " cab"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn turns_follow_the_rule(
        seed: u64, sharpness in 1f32..14.0, ends: bool,
        threshold in 0.2f64..0.9, max_tokens in 1usize..80, vocabularies in 0usize..3,
    ) {
        let (one, other) = [(LETTERS, LETTERS), (LETTERS, SYLLABLES), (SYLLABLES, LETTERS)][vocabularies];
        let models = Models::default()
            .with(Seat::DRAFT, Arc::new(model("draft", one, seed, sharpness, ends)))
            .with(Seat::BASE, Arc::new(model("base", other, seed ^ 1, sharpness, ends)));
        let (want, reason) = reference(&models, "ab c", max_tokens, threshold);
        let got = complete(&models, "ab c", max_tokens, threshold);
        let tokens: Vec<_> = got.tokens.iter().map(|token| (token.id, token.by)).collect();
        prop_assert_eq!(tokens, want);
        prop_assert_eq!(got.finish_reason, reason);
        prop_assert!(got.handover.is_none() && got.tokens.iter().all(|token| token.logprob.is_some()));
    }
}
