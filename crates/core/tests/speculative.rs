//! Tests of speculation: it changes no token, and it does not lose time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures::StreamExt as _;
use futures::executor::block_on;
use proptest::prelude::*;
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    Call, CallKind, Caps, ChatRole, Completion, Engine, FinishReason, HEAD_DEPTH, HEAD_NODES, HEAD_WIDTH, Job, Message,
    Models, Profile, Prompt, Recipe, SPECULATE, Sampling, Seat, Source, StepTime, THRESHOLD, Terms, Token, Trace,
    Values, WINDOW, run,
};

const LETTERS: &str = "abcdefg ";

/// A random model.
#[derive(Clone, Copy, Debug)]
struct Random {
    seed: u64,
    /// The share of all states in which models of every seed compute the same row; in the others the
    /// row depends on the seed.
    agreement: f64,
    sharpness: f32,
    ends: bool,
    /// The number of last tokens that the next row depends on.
    memory: usize,
    time: StepTime,
    max_len: usize,
}

impl Random {
    fn new(seed: u64, agreement: f64) -> Self {
        let time = StepTime::new(1.0, 0.05);
        Self { seed, agreement, sharpness: 12.0, ends: false, memory: 2, time, max_len: 4096 }
    }

    fn at(self, first: f64, further: f64) -> Self {
        Self { time: StepTime::new(first, further), ..self }
    }

    fn engine(self) -> Scripted {
        let pieces = Arc::new(Pieces::letters(LETTERS));
        let vocab = wsd_core::Tokenizer::vocabulary(&*pieces).pieces.len();
        let Self { seed, agreement, sharpness, ends, memory, .. } = self;
        let engine = Scripted::new("model", pieces, move |tokens: &[Token]| {
            let shared = tokens.iter().rev().take(memory).fold(7, |hash, &token| mix(hash ^ u64::from(token)));
            let is_own = (mix(shared ^ seed) >> 11) as f64 >= agreement * (1u64 << 53) as f64;
            let state = if is_own { mix(shared ^ seed) } else { shared };
            let logit = |id: usize| match id {
                0 if ends => (state % 4) as f32 - 1.0,
                0 | 1 => f32::NEG_INFINITY,
                _ => (mix(state ^ mix(id as u64)) >> 40) as f32 / (1 << 24) as f32 * sharpness,
            };
            (0..vocab).map(logit).collect()
        });
        engine.with_profile(Profile::fixed(self.time)).with_context(self.max_len)
    }
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

/// The same engine without an ability to check trees, so that proposals are single branches.
fn without_trees(engine: Scripted) -> Scripted {
    let caps = engine.card().caps;
    engine.with_caps(Caps { trees: false, ..caps })
}

/// The models of a chain from draft to base, the others in the seat between.
fn chain(models: impl IntoIterator<Item = Scripted>) -> Models {
    let mut all: Vec<Arc<dyn Engine>> = models.into_iter().map(|model| Arc::new(model) as Arc<dyn Engine>).collect();
    let base = all.pop().unwrap();
    let mut models = Models::default().with(Seat::BASE, base);
    for (index, engine) in all.into_iter().enumerate() {
        models.add(if index == 0 { Seat::DRAFT } else { Seat::MIDDLE }, engine);
    }
    models
}

fn job(max_tokens: usize) -> Job {
    let terms = Terms { max_tokens, ..Terms::default() };
    Job { prompt: Prompt::Raw("bad cab".into()), terms }
}

fn from_sources(word: &'static str) -> Values {
    Values::default().with(&SPECULATE, word).unwrap()
}

#[test]
fn an_answer_whose_first_token_joins_with_the_prompt_is_continued() {
    let letters = "\n[]UserAaitnbc ".chars().map(String::from);
    let common: Vec<_> = letters.chain([" c".to_owned()]).collect();
    // In the base the end of the prompt and the answer's first letter are one token.
    let own = common.iter().cloned().chain(["]\nc".to_owned()]);
    let time = StepTime::new(1.0, 0.05);
    let (one, other) = (Arc::new(Pieces::new(common.clone())), Arc::new(Pieces::new(own)));
    let first = 1 + common.len();
    let draft = Scripted::new("draft", one, move |_: &[Token]| {
        (0..=first).map(|id| if id == first { 9.0 } else { 0.0 }).collect()
    });
    let base = Scripted::random("base", other, 3).with_profile(Profile::fixed(time));
    let models = chain([draft.with_profile(Profile::fixed(time)), base]);
    let values = Values::default().with(&THRESHOLD, 0.0).unwrap().with(&WINDOW, 1usize).unwrap();
    let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, "ab")]);
    let done = complete("wsd", &models, &Job { prompt, ..job(20) }, &values);
    assert!(done.text.starts_with('c'), "{}", done.text);
    assert_eq!(done.tokens.len(), 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]
    #[test]
    fn tokens_equal_those_without_speculation(
        seed: u64, agreements in prop::array::uniform3(0f64..1.0), sharpness in 1f32..14.0, ends: bool,
        memory in 1usize..5, costs in prop::array::uniform3(0.01f64..1.0), further in 0f64..0.2, trees: bool,
        contexts in prop::array::uniform3(12usize..200), levels in 1usize..4,
        max_tokens in 1usize..150, top_logprobs in 0usize..3, threshold in 0.05f64..0.9,
        temperature in prop::sample::select(vec![0f32, 0.7, 1.3]), top_k in 0usize..5,
        top_p in prop::sample::select(vec![1f32, 0.8]), min_p in prop::sample::select(vec![0f32, 0.1]),
        repetition_penalty in prop::sample::select(vec![1f32, 1.2]),
        stop in prop::collection::vec("[a-g ]{2,3}", 0..2),
        word in prop::sample::select(vec!["auto", "draft", "lookup"]),
    ) {
        let level = |index: usize| {
            let agreement = agreements[index];
            let time = StepTime::new(costs[index], further * costs[index]);
            let max_len = contexts[index];
            let seed = seed ^ index as u64;
            let engine = Random { seed, agreement, sharpness, ends, memory, time, max_len }.engine();
            if trees { engine } else { without_trees(engine) }
        };
        let models = chain((3 - levels..3).map(level));
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed, ..Sampling::default() };
        let terms = Terms { max_tokens, sampling, stop, top_logprobs, grammar: None };
        let job = Job { prompt: Prompt::Raw("bad cab".into()), terms };
        let values = from_sources(word).with(&THRESHOLD, threshold).unwrap();
        let without = values.clone().with(&SPECULATE, "off").unwrap();
        let base = complete("base", &models, &job, &values);
        assert_equal(&complete("speculative", &models, &job, &values), &base);
        assert_equal(&complete("routed", &models, &job, &values), &base);
        if levels > 1 {
            assert_equal(&complete("wsd", &models, &job, &values), &complete("wsd", &models, &job, &without));
        }
    }
}

#[test]
fn every_proposal_of_an_equal_draft_is_accepted() {
    let equal = Random { memory: 6, ..Random::new(3, 1.0) };
    let models = chain([equal.at(0.1, 0.01), equal].map(|model| without_trees(model.engine())));
    for temperature in [0.0, 1.0] {
        let sampling = Sampling { temperature, ..Sampling::default() };
        let job = Job { terms: Terms { sampling, ..job(200).terms }, ..job(200) };
        let done = complete("speculative", &models, &job, &from_sources("draft"));
        assert_eq!((done.usage.by_author.get(Seat::BASE), done.finish_reason), (200, FinishReason::Length));
        let checks = done.calls.iter().filter(|call| call.kind == CallKind::Check);
        assert!(checks.clone().all(|call| call.to == Seat::BASE && call.accepted == Some(call.tokens - 1)));
        assert!(done.timings.proposed_tokens > 100, "{:?}", done.timings);
        assert_eq!(done.timings.accepted_tokens, done.timings.proposed_tokens);
        assert_eq!(done.timings.proposals[0].by, Source::Model(Seat::DRAFT));
        assert!(done.timings.base_steps < 100);
    }
}

#[test]
fn repetitions_are_found_without_a_second_model() {
    // The next token follows from the last one, so the text is periodic.
    let models = chain([Random { memory: 1, ..Random::new(3, 1.0) }.engine()]);
    let values = from_sources("lookup");
    let (with, without) =
        (complete("speculative", &models, &job(200), &values), complete("base", &models, &job(200), &values));
    assert_equal(&with, &without);
    assert_eq!(with.timings.proposals.iter().map(|proposed| proposed.by).collect::<Vec<_>>(), [Source::Lookup]);
    assert!(seconds(&with) < 0.3 * 200.0, "{:?}", with.timings);
}

#[test]
fn the_rest_of_the_draft_is_proposed_after_the_switch() {
    let equal = Random { memory: 6, sharpness: 40.0, ..Random::new(3, 1.0) };
    let pieces = Arc::new(Pieces::letters(&LETTERS.chars().rev().collect::<String>()));
    for word in ["auto", "lookup"] {
        let models = chain([equal.at(0.1, 0.01).engine(), equal.engine()]);
        let values = from_sources(word).with(&THRESHOLD, 0.05).unwrap();
        let done = complete("wsd", &models, &job(60), &values);
        let rest = done.timings.proposals.iter().find(|proposed| proposed.by == Source::Rest).unwrap();
        assert!(done.handover.is_some() && rest.tokens > 0 && rest.accepted == rest.tokens, "{:?}", done.timings);
    }
    // Across vocabularies text is proposed, and models are not.
    let other = Scripted::random("draft", pieces, 4);
    let models = Models::default().with(Seat::DRAFT, Arc::new(other)).with(Seat::BASE, Arc::new(equal.engine()));
    let done = complete("wsd", &models, &job(60), &from_sources("auto").with(&THRESHOLD, 0.02).unwrap());
    assert!(done.timings.proposals.iter().all(|proposed| !matches!(proposed.by, Source::Model(_))));
}

#[test]
fn models_of_other_vocabularies_and_wrong_orders_are_refused() {
    let base: Arc<dyn Engine> = Arc::new(Random::new(1, 1.0).engine().with_weights(5));
    let pieces = Arc::new(Pieces::letters("abcdefgh "));
    let other: Arc<dyn Engine> = Arc::new(Scripted::random("other", pieces, 4));
    let models = Models::default().with(Seat::DRAFT, other.clone()).with(Seat::BASE, base.clone());
    let refused = |strategy, models: &Models, values: &Values| {
        Recipe::find(strategy).unwrap().build(models, values).err().unwrap().to_string()
    };
    let error = refused("speculative", &models, &from_sources("draft"));
    assert!(error.contains("`other`") && error.contains("vocabulary"), "{error}");
    assert_eq!(complete("speculative", &models, &job(40), &Values::default()).tokens.len(), 40, "it is left out");
    assert!(refused("routed", &models, &Values::default()).contains("the base's vocabulary"));
    let middle = Models::default().with(Seat::MIDDLE, other).with(Seat::BASE, base.clone());
    assert!(refused("routed", &middle, &Values::default()).contains("the base's vocabulary"));
    let large: Arc<dyn Engine> = Arc::new(Random::new(2, 1.0).engine().with_weights(9));
    let error =
        refused("routed", &Models::default().with(Seat::DRAFT, large).with(Seat::BASE, base), &Values::default());
    assert!(error.contains("order of size") && error.contains("has 9 weights") && error.contains("hint"), "{error}");
}

/// Simulated seconds of all calls. A token that the base decodes alone takes one second.
fn seconds(completion: &Completion) -> f64 {
    let is_alone = |call: &Call| call.to == Seat::BASE && call.kind == CallKind::Generate;
    completion.calls.iter().map(|call| if is_alone(call) { call.tokens as f64 } else { call.seconds }).sum()
}

/// Simulated seconds of an answer of `length` tokens.
fn simulated(strategy: &str, models: impl IntoIterator<Item = Random>, length: usize, word: &'static str) -> f64 {
    let models = chain(models.into_iter().map(|model| Random { memory: 8, ..model }.engine()));
    let done = complete(strategy, &models, &job(length), &from_sources(word));
    assert_eq!(done.tokens.len(), length);
    seconds(&done)
}

#[test]
fn no_pair_takes_three_percent_more_time_than_the_base_alone() {
    for agreement in [0.0, 0.2, 0.5, 0.8, 0.95] {
        for (first, further) in [(0.02, 0.02), (0.15, 0.1), (0.35, 0.04), (0.8, 0.04), (2.0, 0.05)] {
            let draft = Random::new(5, agreement).at(first, 0.1 * first);
            let base = Random::new(6, 1.0).at(1.0, further);
            for word in ["auto", "draft", "lookup"] {
                let with = simulated("speculative", [draft, base], 256, word);
                assert!(with <= 256.0 * 1.03, "{agreement} {first} {further} {word}: {with}");
            }
        }
    }
}

#[test]
fn a_third_model_that_must_read_a_long_prompt_costs_little() {
    let models = [(0.5, 0.9), (0.7, 0.85), (0.9, 0.95), (0.8, 0.6), (0.3, 0.95), (0.1, 0.2)];
    let costs = [(0.05, 0.2), (0.02, 0.3), (0.15, 0.5), (0.3, 0.6)];
    for ((small, middle), (cheap, dear)) in models.into_iter().flat_map(|models| costs.map(|costs| (models, costs))) {
        let base = Random::new(6, 1.0).at(1.0, 0.03);
        let draft = Random::new(50, small).at(cheap, 0.05 * cheap);
        let middle = Random::new(90, middle).at(dear, 0.03 * dear);
        // Engines remember acceptance from request to request.
        let time = |strategy: &str, models: &[Random]| -> f64 {
            let models = chain(models.iter().map(|model| Random { memory: 8, ..*model }.engine()));
            let answer = |index: usize| {
                let prompt: String = LETTERS.chars().cycle().skip(index).step_by(index % 7 + 1).take(300).collect();
                let job = Job { prompt: Prompt::Raw(prompt), ..job(128) };
                seconds(&complete(strategy, &models, &job, &from_sources("draft")))
            };
            (0..12).map(answer).sum()
        };
        let pairs = [draft, middle].map(|below| time("speculative", &[below, base]));
        let routed = time("routed", &[draft, middle, base]);
        let limit = 1.03 * pairs[0].min(pairs[1]).min(12.0 * 128.0);
        assert!(routed <= limit, "{small} {cheap} {dear}: {routed} for {pairs:?}");
        assert!(pairs.iter().all(|pair| *pair <= 1.03 * 12.0 * 128.0), "{small} {cheap} {dear}: {pairs:?}");
    }
}

#[test]
fn three_levels_take_at_most_three_percent_more_than_the_best_two() {
    for (small, middle) in [(0.5, 0.9), (0.7, 0.85), (0.9, 0.95), (0.8, 0.6), (0.3, 0.95), (0.1, 0.2)] {
        for (cheap, dear) in [(0.05, 0.2), (0.02, 0.3), (0.15, 0.5), (0.3, 0.6)] {
            let (mut pairs, mut routed) = ([0.0; 2], 0.0);
            for seed in 0..6 {
                let base = Random::new(6 + seed, 1.0).at(1.0, 0.03);
                let draft = Random::new(50 + seed, small).at(cheap, 0.05 * cheap);
                let middle = Random::new(90 + seed, middle).at(dear, 0.03 * dear);
                for (sum, below) in pairs.iter_mut().zip([draft, middle]) {
                    *sum += simulated("speculative", [below, base], 1000, "draft");
                }
                routed += simulated("routed", [draft, middle, base], 1000, "draft");
            }
            let best = pairs[0].min(pairs[1]).min(6000.0);
            assert!(routed <= best * 1.035, "{small} {cheap} {dear}: {routed} for {pairs:?}");
        }
    }
}

/// The probabilities of the tokens after a list, after temperature and filters, by their definitions.
fn distribution(engine: &Scripted, list: &[Token], sampling: &Sampling) -> Vec<f64> {
    let row = block_on(async { engine.open(list).await.unwrap().logits(list.len()).await.unwrap() }).remove(0);
    let mut weights: Vec<f64> = row.iter().map(|x| (f64::from(*x) / f64::from(sampling.temperature)).exp()).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let total: f64 = order.iter().map(|&id| weights[id]).sum();
    let (mut before, most) = (0.0, weights[order[0]]);
    order.retain(|&id| {
        let keeps = before < f64::from(sampling.top_p) * total && weights[id] >= f64::from(sampling.min_p) * most;
        before += weights[id];
        keeps
    });
    let kept: f64 = order.iter().map(|&id| weights[id]).sum();
    (0..weights.len()).for_each(|id| weights[id] = if order.contains(&id) { weights[id] / kept } else { 0.0 });
    weights
}

#[test]
fn sampled_texts_are_distributed_as_the_bases_whatever_the_levels_below() {
    // The middle model is worse than the draft.
    let level = |seed, agreement, first| Random { sharpness: 3.0, ..Random::new(seed, agreement) }.at(first, 0.0);
    let models = chain([level(5, 0.8, 0.05), level(6, 0.2, 0.2), level(7, 1.0, 1.0)].map(Random::engine));
    let base = level(7, 1.0, 1.0).engine();
    let shape = Values::default().with(&HEAD_WIDTH, 3usize).unwrap().with(&HEAD_DEPTH, 2usize).unwrap();
    let strategies = [("routed", from_sources("draft")), ("head", shape)];
    let filters = [(0, 1.0, 0.0, 1.0), (4, 1.0, 0.0, 0.8), (0, 0.7, 0.0, 1.3), (0, 1.0, 0.2, 1.0)];
    for ((strategy, values), (top_k, top_p, min_p, temperature)) in
        strategies.iter().flat_map(|strategy| filters.map(|filters| (strategy, filters)))
    {
        let sampling = |seed| Sampling { temperature, top_k, top_p, min_p, seed, ..Sampling::default() };
        let draws = 3000;
        // The tokens at two positions that follow the first step, which is decoded alone.
        let mut counts = std::collections::BTreeMap::new();
        let prompt = base.codec().render(&job(3).prompt).unwrap().tokens;
        for seed in 0..draws {
            let job = Job { terms: Terms { sampling: sampling(seed), ..job(5).terms }, ..job(5) };
            let done = complete(strategy, &models, &job, values);
            let ids: Vec<Token> = done.tokens.iter().take(2).map(|token| token.id).collect();
            *counts.entry(ids).or_insert(0usize) += 1;
        }
        let (mut chi_square, mut cells, mut rare) = (0.0, 0, (0.0, 0.0));
        for (first, p) in distribution(&base, &prompt, &sampling(0)).into_iter().enumerate().filter(|(_, p)| *p > 0.0) {
            let list = [prompt.clone(), vec![first as Token]].concat();
            for (second, q) in distribution(&base, &list, &sampling(0)).into_iter().enumerate() {
                let (expected, ids) = (p * q * draws as f64, vec![first as Token, second as Token]);
                let count = counts.remove(&ids).unwrap_or(0) as f64;
                if expected < 5.0 {
                    rare = (rare.0 + expected, rare.1 + count);
                } else {
                    chi_square += (count - expected).powi(2) / expected;
                    cells += 1;
                }
            }
        }
        assert!(counts.is_empty(), "tokens that the filters exclude: {counts:?}");
        chi_square += (rare.1 - rare.0).powi(2) / f64::max(rare.0, 5.0);
        // Five standard deviations above the mean of the chi-square distribution.
        let limit = f64::from(cells) + 5.0 * (2.0 * f64::from(cells)).sqrt();
        assert!(chi_square < limit, "{strategy}: {chi_square} of {cells} cells, {top_k} {top_p} {min_p}");
    }
}

#[test]
fn a_draft_head_changes_no_token() {
    let mut accepted = 0;
    for seed in 0..60 {
        let ends = seed % 3 == 0;
        let base = Random { ends, max_len: 4096 - (seed as usize % 2) * 4050, ..Random::new(seed, 1.0) }.engine();
        let models = Models::default().with(Seat::BASE, Arc::new(base));
        let sampling = match seed % 4 {
            0 => Sampling::default(),
            1 => Sampling { temperature: 0.9, seed, ..Sampling::default() },
            2 => Sampling { temperature: 1.5, top_k: 4, seed, ..Sampling::default() },
            _ => Sampling { temperature: 1.0, frequency_penalty: 0.5, seed, ..Sampling::default() },
        };
        let job = Job { terms: Terms { sampling, ..job(60).terms }, ..job(60) };
        let alone = complete("base", &models, &job, &Values::default());
        let large = Values::default().with(&HEAD_WIDTH, 64usize).unwrap().with(&HEAD_DEPTH, 5usize).unwrap();
        let refused = Recipe::find("head").unwrap().build(&models, &large).err().unwrap().to_string();
        assert_eq!(refused, "`head_depth` must be at most 4 with a head_width of 64, got 5");
        for (width, depth, nodes) in [(1usize, 4usize, 60usize), (3, 0, 4), (4, 3, 9), (10, 5, 60)] {
            let values = Values::default().with(&HEAD_WIDTH, width).unwrap().with(&HEAD_DEPTH, depth).unwrap();
            let values = values.with(&HEAD_NODES, nodes).unwrap();
            let headed = complete("head", &models, &job, &values);
            assert_eq!((&headed.tokens, headed.finish_reason), (&alone.tokens, alone.finish_reason), "seed {seed}");
            for call in &headed.calls {
                let proposed: usize = call.proposals.iter().map(|proposed| proposed.tokens).sum();
                assert!(call.kind == CallKind::Check && proposed < nodes && call.tokens == proposed + 1);
                assert!(call.accepted.unwrap() <= depth + 1);
                accepted += call.accepted.unwrap();
            }
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn acceptance_is_the_overlap_of_the_distributions() {
    // With two tokens that share the position's random number, two models choose alike with
    // probability one minus the total variation of their distributions.
    let pieces = Arc::new(Pieces::letters("ab"));
    let coin = |name, share: f32, first| {
        let row = vec![f32::NEG_INFINITY, f32::NEG_INFINITY, share.ln(), (1.0 - share).ln()];
        let engine = Scripted::new(name, pieces.clone(), move |_| row.clone());
        without_trees(engine.with_profile(Profile::fixed(StepTime::new(first, 0.0))))
    };
    let models = chain([coin("draft", 0.8, 0.01), coin("base", 0.5, 1.0)]);
    let (mut proposed, mut accepted) = (0, 0);
    for seed in 0..40 {
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let job = Job { prompt: Prompt::Raw("ab".into()), terms: Terms { sampling, ..job(400).terms } };
        let done = complete("speculative", &models, &job, &from_sources("draft"));
        for call in done.calls.iter().filter(|call| call.kind == CallKind::Check) {
            let right = call.accepted.unwrap();
            (proposed, accepted) = (proposed + (right + 1).min(call.tokens - 1), accepted + right);
        }
    }
    let share = f64::from(accepted as u32) / f64::from(proposed as u32);
    assert!(proposed > 5000 && (share - 0.7).abs() < 0.02, "{share} of {proposed}");
}
