//! Tests of the rules that every step scorer of the table must keep.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::executor::block_on;
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    Caps, Head, Models, Prompt, Recipe, Result, SCORERS, STEP_COMMAND, StepScorer, Token, Values, find_scorer,
    splitmix64,
};

type Scorer = Recipe<dyn StepScorer>;

/// Every character of the scorers' own questions.
fn letters() -> String {
    ('a'..='z').chain(" \n:,?[]UA".chars()).collect()
}

/// An engine with every ability.
fn engine(name: &str, seed: u64) -> Scripted {
    let vocab = letters().len() + 2;
    // Each row depends on the whole list before it.
    let rows = move |tokens: &[Token]| {
        let state = tokens.iter().fold(seed, |hash, &token| splitmix64(hash ^ u64::from(token)));
        (0..vocab).map(|id| (splitmix64(state ^ id as u64) >> 40) as f32 / (1 << 24) as f32 * 12.0).collect()
    };
    Scripted::new(name, Arc::new(Pieces::letters(&letters())), rows)
        .with_head(Head::REWARD, |tokens| vec![tokens.len() as f32 / 100.0])
}

/// Settings with which every scorer can be built.
fn values() -> Result<Values> {
    Values::default().with(&STEP_COMMAND, STEP_COMMAND.parse("while read -r line; do echo 0.5; done")?)
}

/// The scorers that ask models.
fn asking() -> impl Iterator<Item = &'static Scorer> {
    SCORERS.iter().copied().filter(|scorer| !scorer.needs.is_empty())
}

/// A model for each seat that the scorer needs, as `make` has them.
fn models(scorer: &Scorer, make: impl Fn(u64) -> Scripted) -> (Models, Vec<Arc<Scripted>>) {
    let (mut models, mut engines) = (Models::default(), Vec::new());
    for (seed, need) in (5..).zip(scorer.needs) {
        let engine = Arc::new(make(seed));
        engines.push(engine.clone());
        models.add(need.seat, engine);
    }
    (models, engines)
}

fn prompt() -> Prompt {
    Prompt::Raw("bad cab".into())
}

fn steps() -> Vec<String> {
    ["a bed ", "fed", " bad cabbage"].map(str::to_owned).to_vec()
}

fn score(scorer: &Scorer, prompt: &Prompt, steps: &[String]) -> Result<Vec<f64>> {
    let scorer = scorer.build(&models(scorer, |seed| engine("model", seed)).0, &values()?)?;
    block_on(scorer.score(prompt, steps))
}

#[test]
fn names_are_unique_and_described() {
    for (i, scorer) in SCORERS.iter().enumerate() {
        assert!(SCORERS[..i].iter().all(|other| other.name != scorer.name));
        assert!(!scorer.title.is_empty() && !scorer.about.is_empty());
        assert!(std::ptr::eq(find_scorer(scorer.name).unwrap(), *scorer));
    }
    let error = find_scorer("likelyhood").err().unwrap().to_string();
    let known = SCORERS.iter().map(|scorer| scorer.name).collect::<Vec<_>>().join(", ");
    assert_eq!(
        error,
        format!("there is no step scorer `likelyhood`\n  hint: did you mean `likelihood`? Known are {known}")
    );
}

#[test]
fn each_step_has_a_score_that_depends_on_what_is_before_it() {
    for scorer in SCORERS {
        let scores = score(scorer, &prompt(), &steps()).unwrap();
        assert_eq!(scores.len(), steps().len(), "{}", scorer.name);
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{}: {scores:?}", scorer.name);
        assert_eq!(score(scorer, &prompt(), &steps()).unwrap(), scores, "{}", scorer.name);
        for count in 0..scores.len() {
            let first = score(scorer, &prompt(), &steps()[..count]).unwrap();
            assert_eq!(first, scores[..count], "{}", scorer.name);
        }
        for from in 0..scores.len() {
            let scorer = scorer.build(&models(scorer, |seed| engine("model", seed)).0, &values().unwrap()).unwrap();
            let later = block_on(async { scorer.open(&prompt()).await.unwrap().rate(&steps(), from).await.unwrap() });
            assert_eq!(later.values, scores[from..]);
        }
    }
    for scorer in asking() {
        let [one, other] = ["bad cab", "fad"].map(|text| score(scorer, &Prompt::Raw(text.into()), &steps()).unwrap());
        assert_ne!(one, other, "{}: the prompt is not read", scorer.name);
    }
}

#[test]
fn invalid_requests_give_one_error_that_names_the_fault() {
    for scorer in SCORERS {
        let fault = |prompt: &Prompt, steps: &[String]| score(scorer, prompt, steps).unwrap_err().to_string();
        let empty = fault(&prompt(), &["a".into(), String::new()]);
        assert_eq!(empty, "`steps` must be texts of at least one character, got none in step 1");
    }
    for scorer in asking() {
        let fault = |prompt: &Prompt, steps: &[String]| score(scorer, prompt, steps).unwrap_err().to_string();
        assert!(fault(&Prompt::Chat(vec![]), &steps()).contains("no message"));
        let (models, _) = models(scorer, |seed| engine("short", seed).with_context(12));
        let short = scorer.build(&models, &values().unwrap()).unwrap();
        let text = block_on(short.score(&prompt(), &steps())).unwrap_err().to_string();
        assert!(text.contains("`short`") && text.contains("holds 12"), "{text}");
    }
}

#[test]
fn missing_models_and_abilities_are_refused_at_build_time() {
    for scorer in SCORERS {
        for need in scorer.needs {
            let refusal = |with: Option<Scripted>| {
                let mut models = models(scorer, |seed| engine("model", seed)).0;
                models.remove(need.seat);
                with.into_iter().for_each(|engine| models.add(need.seat, Arc::new(engine)));
                scorer.build(&models, &values().unwrap()).err().unwrap().to_string()
            };
            let error = refusal(None);
            assert!(error.contains(scorer.name) && error.contains(&need.seat.option()), "{error}");
            if need.caps != Caps::GENERATE {
                let error = refusal(Some(engine("limited", 1).with_caps(Caps::GENERATE)));
                assert!(error.contains("`limited`") && error.contains(scorer.name), "{error}");
            }
        }
    }
}

#[test]
fn sessions_end_with_the_request_and_with_its_reader() {
    for scorer in SCORERS {
        let (models, engines) = models(scorer, |seed| engine("model", seed));
        let built = scorer.build(&models, &values().unwrap()).unwrap();
        let closed = || engines.iter().all(|engine| engine.sessions() == 0);
        block_on(built.score(&prompt(), &steps())).unwrap();
        assert!(closed(), "{}", scorer.name);
        let (prompt, steps) = (prompt(), steps());
        drop(built.score(&prompt, &steps).now_or_never());
        assert!(closed(), "{}", scorer.name);
    }
}
