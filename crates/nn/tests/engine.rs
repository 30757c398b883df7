//! The embedded engine through its public interface: edits, batches, cancellation, faults.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use proptest::prelude::*;
use wsd_core::{
    Engine, Generation, Job, LOOK_EVERY, Models, Prompt, Recipe, SECOND_LOOK, Sampled, Sampling, Scope, Seat, Session,
    Step, Stop, THRESHOLD, Terms, Token, Trace, Value, Values, WINDOW, run,
};
use wsd_nn::{Checkpoint, LoadOptions, Local, TemplateChoice};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn load(path: &Path) -> Local {
    load_with(path, LoadOptions::PREFIX_CACHE_TOKENS)
}

fn load_with(path: &Path, prefix_cache_tokens: usize) -> Local {
    let options = LoadOptions {
        template: TemplateChoice::Plain,
        threads: Some(2),
        prefix_cache_tokens,
        ..LoadOptions::new("tiny")
    };
    Local::load(Checkpoint::open(path).unwrap(), &options).unwrap()
}

fn llama() -> Local {
    load(&fixture("llama"))
}

/// A model that no token ends.
fn endless() -> Local {
    let mut checkpoint = Checkpoint::open(&fixture("llama")).unwrap();
    checkpoint.end_tokens.clear();
    let options = LoadOptions { template: TemplateChoice::Plain, threads: Some(2), ..LoadOptions::new("endless") };
    Local::load(checkpoint, &options).unwrap()
}

fn plan(max_tokens: usize, temperature: f32, seed: u64) -> Generation {
    Generation {
        max_tokens,
        sampling: Sampling { temperature, seed, ..Sampling::default() },
        top_logprobs: 0,
        guide: None,
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap().block_on(future)
}

async fn generate(session: &mut dyn Session, plan: &Generation) -> (Vec<Sampled>, Option<Stop>) {
    let (mut written, mut stop) = (vec![], None);
    let mut steps = session.generate(plan);
    while let Some(step) = steps.next().await {
        match step.unwrap() {
            Step::Token(sampled) => written.push(sampled),
            Step::End(end) => stop = Some(end),
        }
    }
    (written, stop)
}

/// Poll until the engine has done what it was told; a turn of these models takes far less than a millisecond.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} never came");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

#[derive(Clone, Debug)]
enum Act {
    Append(Vec<Token>),
    Truncate(usize),
    Score(usize),
    Logits(usize),
    Generate(usize, f32),
    /// Read this many tokens of a longer generation, then drop it.
    Abandon(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        prop::collection::vec(0u32..300, 1..20).prop_map(Act::Append),
        (1usize..40).prop_map(Act::Truncate),
        (1usize..40).prop_map(Act::Score),
        (1usize..40).prop_map(Act::Logits),
        (1usize..12, prop_oneof![Just(0.0), Just(0.9)]).prop_map(|(n, t)| Act::Generate(n, t)),
        (0usize..4).prop_map(Act::Abandon),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Edit, then ask, gives to the bit what a fresh session gives that computes everything; so
    /// does a session that begins
    /// with what others have computed. Sliding windows and rope scaling included.
    #[test]
    fn edits_equal_fresh_sessions(
        acts in prop::collection::vec(act(), 1..14),
        name in prop_oneof![Just("llama"), Just("gemma2"), Just("phi3_longrope")],
    ) {
        let (engine, alone) = (load(&fixture(name)), load_with(&fixture(name), 0));
        wait(async {
            let mut session = engine.open(&[5, 6, 7]).await.unwrap();
            for (index, act) in acts.into_iter().enumerate() {
                let mut fresh = alone.open(session.tokens()).await.unwrap();
                let len = session.tokens().len();
                if index % 2 == 1 {
                    session = engine.open(session.tokens()).await.unwrap();
                }
                match act {
                    Act::Append(tokens) if len + tokens.len() < 100 => session.append(&tokens),
                    Act::Append(_) => {}
                    Act::Truncate(to) => session.truncate(to.min(len).max(1)),
                    Act::Score(from) => {
                        let from = from.min(len);
                        prop_assert_eq!(session.score(from).await.unwrap(), fresh.score(from).await.unwrap());
                    }
                    Act::Logits(from) => {
                        let from = from.min(len);
                        prop_assert_eq!(session.logits(from).await.unwrap(), fresh.logits(from).await.unwrap());
                    }
                    Act::Generate(n, temperature) => {
                        let plan = plan(n, temperature, 3);
                        prop_assert_eq!(generate(session.as_mut(), &plan).await, generate(fresh.as_mut(), &plan).await);
                        prop_assert_eq!(session.tokens(), fresh.tokens());
                    }
                    Act::Abandon(n) => {
                        let plan = plan(30, 0.0, 0);
                        let read: Vec<_> = session.generate(&plan).take(n).collect().await;
                        prop_assert!(session.tokens().len() <= len + read.len());
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn sixteen_at_once_equal_each_alone_sampled_or_not() {
    let engine = llama();
    wait(async {
        let prompt = |i: u32| -> Vec<Token> { (0..3 + i * 5).map(|k| (k * 37 + i) % 297).collect() };
        let one = async |i: u32| {
            let mut session = engine.open(&prompt(i)).await.unwrap();
            let scores = session.score(1).await.unwrap();
            (
                scores,
                generate(session.as_mut(), &plan(24, if i.is_multiple_of(2) { 0.0 } else { 1.0 }, u64::from(i))).await,
            )
        };
        let mut alone = vec![];
        for i in 0..16 {
            alone.push(one(i).await);
        }
        let before = engine.activity().steps;
        let together = futures::future::join_all((0..16).map(one)).await;
        assert_eq!(alone, together);
        let steps = engine.activity().steps - before;
        assert!(steps < 16 * 24 / 2, "{steps} turns for sixteen answers of 24 tokens: they did not share turns");
    });
}

/// A prompt of 100 tokens, of which 90 are those of every other.
fn alike(i: u32) -> Vec<Token> {
    (0..90).map(|k| k * 37 % 297).chain((0..10).map(|k| (k * 41 + i) % 297)).collect()
}

#[test]
fn a_shared_prefix_is_computed_once() {
    let (engine, alone) = (llama(), load_with(&fixture("llama"), 0));
    wait(async {
        let answer = async |engine: &Local, i: u32| {
            let mut session = engine.open(&alike(i)).await.unwrap();
            (session.score(95).await.unwrap(), generate(session.as_mut(), &plan(9, 1.0, u64::from(i))).await)
        };
        let mut expected = vec![];
        for i in 0..8 {
            expected.push(answer(&alone, i).await);
        }
        assert_eq!(alone.activity().reused_tokens, 0);
        // At once: seven wait for the first. One after the other: its cache has been kept.
        let together = futures::future::join_all((0..8).map(|i| answer(&engine, i))).await;
        assert_eq!(together, expected);
        assert_eq!(engine.activity().reused_tokens, 7 * 90);
        eventually("the end of all sessions", || engine.activity().slots == 0).await;
        assert_eq!(answer(&engine, 3).await, expected[3]);
        assert_eq!(
            engine.activity().reused_tokens,
            7 * 90 + 94,
            "the whole of the same prompt before the first row asked for"
        );
    });
}

#[test]
fn the_prefix_cache_stays_within_its_capacity() {
    let engine = load_with(&fixture("llama"), 120);
    wait(async {
        let ask = async |first: Token, len: u32| {
            let tokens: Vec<_> = (0..len).map(|k| (k * 7 + first) % 297).collect();
            let before = engine.activity().reused_tokens;
            engine.open(&tokens).await.unwrap().score(len as usize - 1).await.unwrap();
            eventually("the end of the session", || engine.activity().slots == 0).await;
            engine.activity().reused_tokens - before
        };
        assert_eq!([ask(1, 60).await, ask(2, 50).await, ask(1, 60).await], [0, 0, 58]);
        // 59 and 49 are kept; another 41 take the place of those which were of use the longest ago.
        assert_eq!([ask(3, 42).await, ask(1, 60).await, ask(2, 50).await], [0, 58, 0]);
        // A longer list takes the place of its own beginning, and what is too long is kept in part.
        assert_eq!([ask(1, 100).await, ask(1, 60).await, ask(4, 200).await, ask(4, 200).await], [59, 58, 0, 120]);
        assert_eq!(ask(1, 60).await, 0);
    });
}

#[test]
fn dropped_requests_are_cancelled_within_a_step() {
    let engine = endless();
    wait(async {
        let activity = || engine.activity();
        let mut one = engine.open(&[1, 2, 3]).await.unwrap();
        let mut other = engine.open(&[4, 5, 6]).await.unwrap();
        let (long, plan) = (plan(100, 0.0, 0), plan(100, 1.0, 1));
        let (mut first, mut second) = (one.generate(&long), other.generate(&plan));
        first.next().await;
        second.next().await;
        eventually("both at work", || activity().working == 2 && activity().slots == 2).await;
        drop(first);
        // The other goes on; the dropped one is out of the batch with the next turn.
        let steps = activity().steps;
        eventually("the next turn", || activity().steps > steps + 1 || activity().working < 2).await;
        assert!(activity().working <= 1, "a dropped generation was still in the batch a turn later");
        drop(second);
        drop((one, other));
        eventually("empty slots", || activity().slots == 0 && activity().working == 0).await;
    });
}

#[test]
fn sessions_beyond_the_limit_wait_their_turn() {
    let options = LoadOptions { max_sessions: 2, template: TemplateChoice::Plain, ..LoadOptions::new("tiny") };
    let engine = Local::load(Checkpoint::open(&fixture("llama")).unwrap(), &options).unwrap();
    wait(async {
        let (one, _two) = (engine.open(&[1]).await.unwrap(), engine.open(&[1]).await.unwrap());
        let third = engine.open(&[1]);
        futures::pin_mut!(third);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut third).await.is_err());
        drop(one);
        assert!(tokio::time::timeout(Duration::from_secs(20), third).await.is_ok());
    });
}

#[test]
fn a_long_prompt_does_not_stall_its_neighbour() {
    let engine = endless();
    let longest = engine.card().max_len - 1;
    wait(async {
        let activity = || engine.activity();
        let mut writer = engine.open(&[1, 2, 3]).await.unwrap();
        let mut readers = vec![];
        for i in 0..12u32 {
            let prompt: Vec<_> = (0..longest as u32).map(|k| (k * 31 + i) % 297).collect();
            readers.push(engine.open(&prompt).await.unwrap());
        }
        let plan = plan(60, 0.0, 0);
        let mut steps = writer.generate(&plan);
        steps.next().await;
        let before = activity().steps;
        let asked = readers.iter_mut().map(|reader| reader.score(longest - 1));
        futures::future::join_all(asked).await;
        let turns = activity().steps - before;
        assert!(turns >= 12 * longest / 256, "{turns} turns for {} prompt tokens: they were run whole", 12 * longest);
        // Every turn of the prompts had a token of the writer's in it; they wait in the channel.
        let mut written = 0;
        while let Some(Some(Ok(Step::Token(_)))) = futures::FutureExt::now_or_never(steps.next()) {
            written += 1;
        }
        assert!(written + 1 >= turns.min(59), "{written} tokens written in {turns} turns");
    });
}

#[test]
fn a_slow_client_does_not_delay_others() {
    let engine = llama();
    wait(async {
        let mut slow = engine.open(&[1, 2, 3]).await.unwrap();
        let mut quick = engine.open(&[4, 5, 6]).await.unwrap();
        let (endless, short) = (plan(120, 1.0, 4), plan(40, 1.0, 5));
        let mut unread = slow.generate(&endless);
        unread.next().await;
        let (written, _) = generate(quick.as_mut(), &short).await;
        assert!(!written.is_empty());
        let mut rest = 0;
        let mut last = None;
        while let Some(step) = unread.next().await {
            match step.unwrap() {
                Step::Token(_) => rest += 1,
                Step::End(end) => last = Some(end),
            }
        }
        assert!(last == Some(Stop::End) || rest == 119, "the slow reader still gets everything: {rest}, {last:?}");
    });
}

#[test]
fn faults_are_errors_that_name_them() {
    let engine = llama();
    wait(async {
        let text = engine.open(&[1, 4000]).await.err().unwrap().to_string();
        assert!(text.contains("token id 4000") && text.contains("300"), "{text}");
        let mut session = engine.open(&[1, 2]).await.unwrap();
        session.append(&[4000]);
        assert!(session.score(1).await.unwrap_err().to_string().contains("token id 4000"));
        session.truncate(2);
        assert!(session.score(0).await.unwrap_err().to_string().contains("nothing before it"));
        assert_eq!(session.score(2).await.unwrap(), Vec::<f64>::new());
        session.append(&vec![7; engine.card().max_len]);
        assert!(session.score(1).await.unwrap_err().to_string().contains("context"));
        let mut empty = engine.open(&[]).await.unwrap();
        let step = empty.generate(&plan(3, 0.0, 0)).next().await.unwrap();
        assert!(step.unwrap_err().to_string().contains("empty"));
    });
}

#[test]
fn a_generation_ends_at_once_where_the_context_is_full() {
    let engine = llama();
    wait(async {
        for longer in [0, 1, 40] {
            let mut session = engine.open(&vec![7; engine.card().max_len + longer]).await.unwrap();
            assert_eq!(generate(session.as_mut(), &plan(5, 0.0, 0)).await, (vec![], Some(Stop::Length)));
        }
    });
}

#[test]
fn an_answer_may_outgrow_the_context_of_its_draft() {
    let mut checkpoint = Checkpoint::open(&fixture("llama")).unwrap();
    checkpoint.end_tokens.clear();
    let options = LoadOptions { max_len: Some(20), template: TemplateChoice::Plain, ..LoadOptions::new("short") };
    let draft = Local::load(checkpoint, &options).unwrap();
    let models = Models::default().with(Seat::DRAFT, Arc::new(draft)).with(Seat::BASE, Arc::new(endless()));
    let mut values = Values::default();
    let settings: [(_, Value); 4] = [
        (&WINDOW, 1usize.into()),
        (&THRESHOLD, 0.0.into()),
        (&SECOND_LOOK, Value::Choice("interval")),
        (&LOOK_EVERY, 8usize.into()),
    ];
    settings.into_iter().for_each(|(setting, value)| values.set(setting, value).unwrap());
    let strategy = Recipe::find("wsd").unwrap().build(&models, &values).unwrap();
    let job = Job { prompt: Prompt::Tokens(vec![1, 2, 3]), terms: Terms { max_tokens: 60, ..Terms::default() } };
    let done = wait(Trace::collect(run(strategy, job))).unwrap();
    assert_eq!((done.tokens.len(), done.looks.len()), (60, 3), "a look at a full context shows nothing");
}

#[test]
fn nan_in_the_weights_is_found() {
    let folder = tempfile::tempdir().unwrap();
    for file in
        ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"]
    {
        fs_err::copy(fixture("llama").join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs_err::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 64..].fill(0xFF);
    fs_err::write(&path, bytes).unwrap();
    let engine = load(folder.path());
    wait(async {
        let mut session = engine.open(&[1, 2, 3]).await.unwrap();
        let error = session.score(1).await.unwrap_err().to_string();
        assert!(error.contains("NaN or infinity") && error.contains("position"), "{error}");
    });
}

#[test]
fn engines_are_shared_between_threads() {
    fn check<T: Send + Sync + 'static>(_: &T) {}
    check(&Arc::new(llama()));
}

/// A cache is copied within its scope only, whether its session is open or has ended, so that the
/// time of an answer tells nothing about other scopes; the numbers are the same.
#[test]
fn prefixes_are_shared_within_a_scope_only() {
    let engine = load_with(&fixture("llama"), 1 << 20);
    let prompt: Vec<Token> = (1..60).collect();
    let scope = |cache| Scope { cache, ..Scope::default() };
    wait(async {
        let mut all = Vec::new();
        let mut reused = Vec::new();
        let mut open = engine.open_in(scope(7), &prompt).await.unwrap();
        all.push(open.score(1).await.unwrap());
        for (number, closes) in [(8, false), (8, true), (7, true), (0, true), (9, true), (9, true)] {
            if closes {
                open = engine.open_in(scope(number), &prompt).await.unwrap();
                open.warm().await.unwrap();
            }
            let mut session = engine.open_in(scope(number), &prompt).await.unwrap();
            session.warm().await.unwrap();
            reused.push(engine.activity().reused_tokens);
            all.push(session.score(1).await.unwrap());
        }
        let grows: Vec<_> = reused.windows(2).map(|pair| pair[1] > pair[0]).collect();
        assert_eq!(reused[0], 0, "scope 8 had nothing to copy from scope 7");
        assert_eq!(grows, [true; 5], "each later one copies from its own scope");
        assert!(all.iter().all(|scores| *scores == all[0]));
    });
}
