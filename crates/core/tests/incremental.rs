//! Tests of incremental decoding against the reference's three passes: draft everything, score
//! everything, continue.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures::StreamExt as _;
use futures::executor::block_on;
use proptest::prelude::*;
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    CHUNK_TOKENS, CallKind, Completion, Cost, Engine, Event, FinishReason, Generation, Job, MAX_DRAFT_TOKENS, Models,
    ON_DRAFT_END, Profile, Prompt, Recipe, Row, Rule, SKIP_REPETITIONS, SPECULATE, Sampling, Seat, Step, Stop,
    THRESHOLD, Terms, Token, Trace, Values, WINDOW, run,
};

/// A model over letters whose next row depends on the last two tokens. With `ends` it may end its
/// text.
fn model(name: &str, pieces: Vec<String>, seed: u64, sharpness: f32, ends: bool) -> Scripted {
    let pieces = Arc::new(Pieces::new(pieces));
    let vocab = pieces_len(&pieces);
    Scripted::new(name, pieces, move |tokens: &[Token]| -> Row {
        let state = tokens.iter().rev().take(2).fold(seed, |hash, &t| mix(hash ^ u64::from(t)));
        (0..vocab)
            .map(|id| match id {
                0 if ends => -1.0 + (mix(state) % 5) as f32,
                0 | 1 => f32::NEG_INFINITY,
                _ => (mix(state ^ mix(id as u64)) >> 40) as f32 / (1 << 24) as f32 * sharpness,
            })
            .collect()
    })
}

fn pieces_len(pieces: &Pieces) -> usize {
    wsd_core::Tokenizer::vocabulary(pieces).pieces.len()
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (x >> 32)
}

async fn generate(engine: &dyn Engine, tokens: &[Token], generation: Generation) -> (Vec<Token>, Stop) {
    let mut session = engine.open(tokens).await.unwrap();
    let (mut written, mut stop) = (vec![], Stop::Length);
    let mut steps = session.generate(&generation);
    while let Some(step) = steps.next().await {
        match step.unwrap() {
            Step::Token(sampled) => written.push(sampled.token),
            Step::End(end) => stop = end,
        }
    }
    (written, stop)
}

#[test]
fn only_the_first_chunk_of_a_draft_computes_the_prompt() {
    let pieces: Vec<_> = ["a", "b", "c"].map(String::from).into();
    let profile = Profile::default();
    let draft = model("draft", pieces.clone(), 1, 4.0, false).with_profile(profile.clone());
    // The draft writes its second chunk while the base scores the first.
    let base = model("base", pieces, 2, 4.0, false).with_cost(Cost { has_stream: true, ..Cost::default() });
    let models = Models::default().with(Seat::DRAFT, Arc::new(draft)).with(Seat::BASE, Arc::new(base));
    let values = Values::default().with(&THRESHOLD, 1.0).unwrap().with(&MAX_DRAFT_TOKENS, 16usize).unwrap();
    let values = values.with(&SPECULATE, "off").unwrap();
    let strategy = Recipe::find("wsd").unwrap().build(&models, &values).unwrap();
    let job = Job { prompt: Prompt::Raw("abc".repeat(20)), terms: Terms { max_tokens: 20, ..Terms::default() } };
    let done = block_on(Trace::collect(run(strategy, job))).unwrap();
    assert_eq!(done.tokens.len(), 20);
    assert!(profile.prefill_time().is_some() && profile.step_time().is_some(), "{profile:?}");
}

/// The paper's procedure in three passes.
async fn three_passes(models: &Models, job: &Job, values: &Values) -> (Vec<Token>, Option<usize>, FinishReason) {
    let (draft, base) = (models.get(Seat::DRAFT).unwrap(), models.get(Seat::BASE).unwrap());
    let draft_prompt = draft.codec().render(&job.prompt).unwrap();
    let generation = Generation {
        max_tokens: values.get(&MAX_DRAFT_TOKENS),
        sampling: job.terms.sampling.for_seat(Seat::DRAFT, draft_prompt.tokens.len()),
        top_logprobs: 0,
        guide: None,
    };
    let (drafted, draft_stop) = generate(draft.as_ref(), &draft_prompt.tokens, generation).await;
    let text = draft.codec().tokenizer().decode(&drafted).unwrap();

    let prompt = base.codec().render(&job.prompt).unwrap();
    let all = base.codec().encode_after(&prompt, &text).unwrap();
    let from = all.iter().zip(&prompt.tokens).take_while(|(a, b)| a == b).count();
    let logprobs = base.open(&all).await.unwrap().score(from).await.unwrap();
    let at = Rule::from_values(values).accept_index(&logprobs);
    let kept = at.map_or(all.len() - from, |at| at + 1);

    let mut answer = all[from..from + kept].to_vec();
    if answer.len() >= job.terms.max_tokens {
        answer.truncate(job.terms.max_tokens);
        return (answer, at.filter(|&at| at < job.terms.max_tokens), FinishReason::Length);
    }
    if at.is_none() && values.get::<&str>(&ON_DRAFT_END) == "stop" {
        let reason = if draft_stop == Stop::End { FinishReason::Stop } else { FinishReason::Length };
        return (answer, None, reason);
    }
    let generation = Generation {
        max_tokens: job.terms.max_tokens - answer.len(),
        sampling: job.terms.sampling.for_seat(Seat::BASE, prompt.tokens.len()),
        top_logprobs: 0,
        guide: None,
    };
    let (rest, stop) = generate(base.as_ref(), &all[..from + kept], generation).await;
    answer.extend(rest);
    (answer, at, if stop == Stop::End { FinishReason::Stop } else { FinishReason::Length })
}

async fn complete(models: &Models, job: &Job, values: &Values) -> Completion {
    let strategy = Recipe::find("wsd").unwrap().build(models, values).unwrap();
    Trace::collect(run(strategy, job.clone())).await.unwrap()
}

fn letters() -> Vec<String> {
    "abcd \n".chars().map(String::from).collect()
}

/// Pieces of several letters: one token of this vocabulary may be three tokens of [`letters`].
fn syllables() -> Vec<String> {
    ["d", "c", "b", "a", "\n", " ", "ab", "abc", " a", "cd", "dd", "\n\n", "ba", " bad"].map(String::from).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]
    #[test]
    fn every_chunk_length_gives_the_tokens_of_three_passes(
        seed: u64, sharpness in 2f32..14.0, temperature in prop_oneof![Just(0.0), 0.3f32..1.5], ends: bool, stop: bool,
        window in 1usize..7, threshold in 0.3f64..0.9, max_draft_tokens in 1usize..60, max_tokens in 1usize..80,
        chunk_tokens in prop::option::of(1usize..20), vocabularies in 0..3, elsewhere: bool, rescores_from_start: bool,
    ) {
        let (one, other) = match vocabularies {
            0 => (letters(), letters()),
            1 => (letters(), syllables()),
            _ => (syllables(), letters()),
        };
        let cost = Cost { is_remote: elsewhere, has_stream: seed % 3 == 0, rescores_from_start };
        let models = Models::default()
            .with(Seat::DRAFT, Arc::new(model("draft", one, seed, sharpness, ends)))
            .with(Seat::BASE, Arc::new(model("base", other, seed ^ 1, sharpness, ends).with_cost(cost)));
        let mut values = Values::default()
            .with(&WINDOW, window).unwrap()
            .with(&THRESHOLD, threshold).unwrap()
            .with(&MAX_DRAFT_TOKENS, max_draft_tokens).unwrap()
            .with(&ON_DRAFT_END, if stop { "stop" } else { "continue" }).unwrap();
        if let Some(chunk_tokens) = chunk_tokens {
            values = values.with(&CHUNK_TOKENS, chunk_tokens).unwrap();
        }
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        let terms = Terms { max_tokens, sampling, stop: vec![], top_logprobs: 0, grammar: None };
        let job = Job { prompt: Prompt::Raw("ab ca".into()), terms };
        let (want, at, reason) = block_on(three_passes(&models, &job, &values));
        let got = block_on(complete(&models, &job, &values));
        let ids: Vec<_> = got.tokens.iter().map(|token| token.id).collect();
        prop_assert_eq!(&ids, &want);
        prop_assert_eq!(got.handover.map(|handover| handover.at), at);
        if ids.len() < max_tokens {
            prop_assert_eq!(got.finish_reason, reason);
        }
        let all = models.get(Seat::BASE).unwrap().codec().tokenizer().decode(&ids).unwrap();
        prop_assert!(all.ends_with(got.text.as_str()), "{:?} {:?}", all, got.text);
        for (i, token) in got.tokens.iter().enumerate() {
            let drafted = got.handover.map_or(token.by == Seat::DRAFT, |handover| i <= handover.at);
            prop_assert_eq!(token.by, if drafted { Seat::DRAFT } else { Seat::BASE });
            prop_assert_eq!(token.confidence.is_some(), drafted && i + 1 >= window);
        }
    }
}

#[test]
fn drafting_ends_with_the_chunk_of_the_switch() {
    // The first six tokens have probability one half and the others one, so the window passes at
    // the twelfth.
    let pieces = || Arc::new(Pieces::letters("xy"));
    let draft = Arc::new(Scripted::new("draft", pieces(), |_| vec![-9.0, -9.0, 9.0, -9.0]));
    let base = Arc::new(Scripted::new("base", pieces(), |tokens: &[Token]| {
        let is_certain = tokens.len() > 2 + 6;
        vec![-9.0, -9.0, if is_certain { 9.0 } else { 0.0 }, 0.0]
    }));
    let models = Models::default().with(Seat::DRAFT, draft.clone()).with(Seat::BASE, base.clone());
    let job = Job {
        prompt: Prompt::Raw("x".into()),
        terms: Terms { max_tokens: 40, sampling: Sampling::default(), stop: vec![], top_logprobs: 0, grammar: None },
    };
    for chunk_tokens in [1, 4, 8, 16] {
        let before = draft.steps();
        let values = Values::default().with(&CHUNK_TOKENS, chunk_tokens).unwrap().with(&SPECULATE, "off").unwrap();
        let done = block_on(complete(&models, &job, &values));
        assert_eq!(done.handover.unwrap().at, 11, "chunk of {chunk_tokens}");
        let steps = draft.steps() - before;
        assert_eq!(steps, 12usize.div_ceil(chunk_tokens) * chunk_tokens, "draft steps for a chunk of {chunk_tokens}");
        let drafted: usize = done.calls.iter().filter(|call| call.to == Seat::DRAFT).map(|call| call.tokens).sum();
        assert_eq!(drafted, steps, "the trace counts every draft step");
        assert_eq!((done.usage.by_author.get(Seat::DRAFT), done.usage.by_author.get(Seat::BASE)), (12, 28));
    }
}

#[test]
fn chunks_double_for_a_base_that_rescores_from_the_start() {
    // The window passes at the forty-first token.
    let pieces = || Arc::new(Pieces::letters("xy"));
    for elsewhere in [false, true] {
        let draft = Arc::new(Scripted::new("draft", pieces(), |_| vec![-9.0, -9.0, 9.0, -9.0]));
        let base = Scripted::new("base", pieces(), |tokens: &[Token]| {
            let is_certain = tokens.len() > 2 + 35;
            vec![-9.0, -9.0, if is_certain { 9.0 } else { 0.0 }, 0.0]
        });
        let base =
            Arc::new(base.with_cost(Cost { is_remote: elsewhere, rescores_from_start: true, ..Cost::default() }));
        let models = Models::default().with(Seat::DRAFT, draft.clone()).with(Seat::BASE, base);
        let job = Job {
            prompt: Prompt::Raw("x".into()),
            terms: Terms {
                max_tokens: 60,
                sampling: Sampling::default(),
                stop: vec![],
                top_logprobs: 0,
                grammar: None,
            },
        };
        let values = Values::default().with(&SPECULATE, "off").unwrap();
        let done = block_on(complete(&models, &job, &values));
        assert_eq!(done.handover.unwrap().at, 40);
        let calls = |kind, to| {
            let calls = done.calls.iter().filter(move |call| (call.kind, call.to) == (kind, to));
            calls.map(|call| call.tokens).collect::<Vec<_>>()
        };
        assert_eq!(calls(CallKind::Score, Seat::BASE), [8, 16, 32]);
        let drafted = calls(CallKind::Generate, Seat::DRAFT);
        assert_eq!(drafted[..3], [8, 16, 32]);
        assert_eq!(drafted.len(), if elsewhere { 4 } else { 3 }, "a remote draft begins one chunk too many");
        assert_eq!(drafted.iter().sum::<usize>(), draft.steps());
        assert!(draft.steps() < 56 + 64, "that chunk is dropped at the switch");
        assert_eq!(draft.sessions(), 0);
    }
}

#[test]
fn tokens_are_sent_as_soon_as_their_score_is_known() {
    let pieces = Arc::new(Pieces::letters("ab"));
    let draft = Arc::new(Scripted::random("draft", pieces.clone(), 3));
    let base = Arc::new(Scripted::new("base", pieces, |_| vec![-9.0, -9.0, 0.0, 0.0]));
    let models = Models::default().with(Seat::DRAFT, draft.clone()).with(Seat::BASE, base);
    let job = Job {
        prompt: Prompt::Raw("a".into()),
        terms: Terms { max_tokens: 64, sampling: Sampling::default(), stop: vec![], top_logprobs: 0, grammar: None },
    };
    let strategy =
        Recipe::find("wsd").unwrap().build(&models, &Values::default().with(&CHUNK_TOKENS, 4usize).unwrap()).unwrap();
    block_on(async {
        let mut events = run(strategy, job);
        let mut seen = 0;
        while let Some(event) = events.next().await {
            if let Event::Token(_) = event.unwrap() {
                seen += 1;
                // The stream buffers 16 events, so the draft may be that far ahead, but never all
                // 512 tokens.
                assert!(draft.steps() <= seen + 32, "{} drafted when token {seen} arrived", draft.steps());
            }
        }
        assert_eq!(seen, 64);
    });
}

#[test]
fn a_window_that_repeats_what_stands_before_it_can_be_left_out() {
    // The draft repeats "xyz" and writes "abcdefgh" after nine tokens; the base is certain from the third
    // token on.
    let pieces = || Arc::new(Pieces::letters("xyzabcdefgh"));
    let spelled = |at: usize| if at < 12 { 2 + (at as u32 % 3) } else { 5 + ((at as u32 - 12) % 8) };
    let certain = move |tokens: &[Token], sharpness: f32| -> Row {
        let next = spelled(tokens.len() - 2);
        (0..13).map(|id| if id == next { sharpness } else { 0.0 }).collect()
    };
    let draft = Arc::new(Scripted::new("draft", pieces(), move |tokens: &[Token]| certain(tokens, 30.0)));
    let base = Scripted::new("base", pieces(), move |tokens: &[Token]| {
        certain(tokens, if tokens.len() < 7 { 0.0 } else { 30.0 })
    });
    let models = Models::default().with(Seat::DRAFT, draft).with(Seat::BASE, Arc::new(base));
    let job = Job { prompt: Prompt::Raw("x".into()), terms: Terms { max_tokens: 30, ..Terms::default() } };
    let values = Values::default().with(&WINDOW, 4usize).unwrap();
    let done = block_on(complete(&models, &job, &values));
    assert_eq!((done.handover.unwrap().at, done.tokens.iter().filter(|token| token.repeats).count()), (8, 0));
    let values = values.with(&SKIP_REPETITIONS, true).unwrap();
    let done = block_on(complete(&models, &job, &values));
    // The windows that end at tokens 8 to 11 repeat with a period of three; the next one does not.
    let repeated: Vec<_> = (0..done.tokens.len()).filter(|&at| done.tokens[at].repeats).collect();
    assert_eq!((done.handover.unwrap().at, repeated), (12, vec![8, 9, 10, 11]));
}
