//! Tests of the rules that every strategy of the table must keep.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures::StreamExt as _;
use futures::executor::block_on;
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    CHUNK_TOKENS, Caps, ChatRole, Completion, Cost, Engine, Error, Event, FinishReason, Job, Kind, MAX_DRAFT_TOKENS,
    Message, Models, Prompt, RECIPES, Recipe, Sampling, Seat, Setting, Terms, Token, Tokenizer as _, Trace, Values,
    run,
};

const LETTERS: &str = "abcdefgh ";

fn pair() -> (Models, Arc<Scripted>, Arc<Scripted>) {
    let pieces = Arc::new(Pieces::letters(LETTERS));
    let draft = Arc::new(Scripted::random("draft", pieces.clone(), 5));
    let base = Arc::new(Scripted::random("base", pieces, 9));
    (Models::default().with(Seat::DRAFT, draft.clone()).with(Seat::BASE, base.clone()), draft, base)
}

fn job(max_tokens: usize) -> Job {
    Job {
        prompt: Prompt::Raw("bad cab".into()),
        terms: Terms { max_tokens, sampling: Sampling::default(), stop: vec![], top_logprobs: 0, grammar: None },
    }
}

fn with_terms(terms: Terms) -> Job {
    Job { terms, ..job(1) }
}

fn build(recipe: &Recipe, models: &Models) -> Arc<dyn wsd_core::Strategy> {
    recipe.build(models, &Values::default()).unwrap()
}

fn complete(recipe: &Recipe, models: &Models, job: Job) -> Result<Completion, Error> {
    let strategy = build(recipe, models);
    block_on(async {
        let mut trace = Trace::new();
        let mut events = run(strategy, job);
        let mut done = false;
        while let Some(event) = events.next().await {
            let event = event?;
            assert!(!done, "{}: {event:?} after the end", recipe.name);
            done = matches!(event, Event::Done(_));
            trace.push(&event);
        }
        assert!(done, "{}: the stream ended without its last event", recipe.name);
        Ok(trace.finish())
    })
}

fn texts(models: &Models, job: &Job) -> Vec<String> {
    RECIPES.iter().map(|recipe| complete(recipe, models, job.clone()).unwrap().text).collect()
}

#[test]
fn names_are_unique_and_described() {
    for (i, recipe) in RECIPES.iter().enumerate() {
        assert!(RECIPES[..i].iter().all(|other| other.name != recipe.name));
        assert!(!recipe.about.is_empty() && !recipe.needs.is_empty());
        assert!(std::ptr::eq(Recipe::find(recipe.name).unwrap(), *recipe));
    }
    let error = Recipe::find("wds").err().unwrap().to_string();
    assert!(error.contains("`wds`") && error.contains("wsd, base, draft"), "{error}");
}

#[test]
fn the_readme_names_every_strategy() {
    let readme = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let words = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    let names: Vec<_> = RECIPES.iter().map(|recipe| format!("`{}`", recipe.name)).collect();
    let sentence = format!("Each strategy is a model name ({}).", names.join(", "));
    assert!(words.contains(&sentence), "README.md must hold `{sentence}`");
}

#[test]
fn every_strategy_runs_to_its_limit_and_counts() {
    for recipe in RECIPES {
        for limit in [1, 2, 7, 40] {
            let done = complete(recipe, &pair().0, job(limit)).unwrap();
            assert_eq!(done.tokens.len(), limit, "{}", recipe.name);
            assert_eq!(done.finish_reason, FinishReason::Length);
            assert_eq!(done.usage.completion_tokens, limit);
            assert_eq!(done.usage.by_author.iter().map(|(_, tokens)| tokens).sum::<usize>(), limit);
            assert_eq!(done.usage.prompt_tokens, "bad cab".len() + 1, "the beginning-of-text token, once");
            assert_eq!(done.text, done.tokens.iter().map(|token| token.text.as_str()).collect::<String>());
        }
    }
}

#[test]
fn same_seed_same_text() {
    let (models, ..) = pair();
    let sampled = |seed| {
        with_terms(Terms { sampling: Sampling { temperature: 1.0, seed, ..Sampling::default() }, ..job(40).terms })
    };
    assert_eq!(texts(&models, &sampled(1)), texts(&models, &sampled(1)));
    for (one, other) in texts(&models, &sampled(1)).iter().zip(texts(&models, &sampled(2))) {
        assert_ne!(*one, other);
    }
}

#[test]
fn a_stop_string_ends_the_answer_and_is_never_sent() {
    let (models, ..) = pair();
    for recipe in RECIPES {
        let whole = complete(recipe, &models, job(60)).unwrap().text;
        // Every piece of the answer, including those across chunk borders and the switch.
        for at in 0..50 {
            let stop = &whole[at..at + 3];
            let done =
                complete(recipe, &models, with_terms(Terms { stop: vec![stop.into()], ..job(60).terms })).unwrap();
            assert_eq!(done.text, whole[..whole.find(stop).unwrap()], "{} stopping at {stop:?}", recipe.name);
            assert_eq!(done.finish_reason, FinishReason::Stop);
            assert_eq!(done.text, done.tokens.iter().map(|token| token.text.as_str()).collect::<String>());
            assert!(done.handover.is_none_or(|handover| handover.at < done.tokens.len()));
        }
    }
}

#[test]
fn the_plain_form_and_the_user_both_set_stop_strings() {
    let spell = "abc\n\n[User]\nef";
    let pieces = Arc::new(Pieces::letters("abcdefgh \n[]UserAitn"));
    let ids = pieces.encode(spell).unwrap();
    let prompt = 1 + "\n\n[User]\nab\n\n[Assistant]\n".len();
    let vocab = pieces.vocabulary().pieces.len();
    let speller = Arc::new(Scripted::new("speller", pieces, move |tokens: &[Token]| {
        let mut row = vec![0.0; vocab];
        row[ids[tokens.len().saturating_sub(prompt) % ids.len()] as usize] = 20.0;
        row
    }));
    let models = Models::default().with(Seat::BASE, speller.clone()).with(Seat::DRAFT, speller);
    let chat = Prompt::Chat(vec![Message::new(ChatRole::User, "ab")]);
    for (stop, text) in [(vec![], "abc"), (vec!["c".to_owned()], "ab"), (vec!["zzz".to_owned()], "abc")] {
        for recipe in RECIPES {
            let done = complete(
                recipe,
                &models,
                Job { prompt: chat.clone(), terms: Terms { stop: stop.clone(), ..job(60).terms } },
            )
            .unwrap();
            assert_eq!((done.text.as_str(), done.finish_reason), (text, FinishReason::Stop), "{}", recipe.name);
        }
    }
    let raw = complete(RECIPES[0], &models, Job { prompt: Prompt::Raw("a".into()), ..job(60) }).unwrap();
    assert_eq!(raw.finish_reason, FinishReason::Length, "a raw prompt has no turns to stop at");
}

#[test]
fn dropping_the_stream_at_any_point_closes_every_session() {
    for (recipe, elsewhere) in RECIPES.iter().flat_map(|recipe| [(recipe, false), (recipe, true)]) {
        for events_read in 0..40 {
            let cost = Cost { is_remote: elsewhere, rescores_from_start: elsewhere, ..Cost::default() };
            let pieces = Arc::new(Pieces::letters(LETTERS));
            let draft = Arc::new(Scripted::random("draft", pieces.clone(), 5).with_cost(cost));
            let base = Arc::new(Scripted::random("base", pieces, 9).with_cost(cost));
            let models = Models::default().with(Seat::DRAFT, draft.clone()).with(Seat::BASE, base.clone());
            let mut events = run(build(recipe, &models), job(60));
            block_on(async {
                for _ in 0..events_read {
                    let _ = events.next().await;
                }
            });
            drop(events);
            assert_eq!((draft.sessions(), base.sessions()), (0, 0), "{} after {events_read} events", recipe.name);
        }
    }
}

#[test]
fn missing_models_and_abilities_are_refused_at_build_time() {
    let (models, ..) = pair();
    for recipe in RECIPES {
        for need in recipe.needs {
            let mut fewer = models.clone();
            fewer.remove(need.seat);
            let values = Values::default();
            let refused = recipe.build(&fewer, &values).err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), (need.is_required)(&values), "{} without {}", recipe.name, need.seat);
            let names = |error: String| error.contains(recipe.name) && error.contains(&need.seat.option());
            assert!(refused.clone().is_none_or(names), "{refused:?}");
            if need.caps != Caps::GENERATE {
                let pieces = Arc::new(Pieces::letters(LETTERS));
                let limited: Arc<dyn Engine> =
                    Arc::new(Scripted::random("limited", pieces, 1).with_caps(Caps::default()));
                let mut models = models.clone();
                models.remove(need.seat);
                models.add(need.seat, limited);
                let error = recipe.build(&models, &Values::default()).err().unwrap().to_string();
                assert!(error.contains("`limited`") && error.contains(recipe.name), "{error}");
            }
        }
        let is_number = |setting: &&&Setting| match setting.kind {
            Kind::Integer { .. } => true,
            Kind::Number { min, .. } => min >= 0.0,
            _ => false,
        };
        let numbers = recipe.settings.iter().filter(is_number);
        for setting in numbers {
            let error = setting.parse("-1").unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{}` must be ", setting.name)) && error.ends_with("got -1"), "{error}");
        }
    }
}

#[test]
fn invalid_jobs_give_one_error_that_names_the_fault() {
    let (models, ..) = pair();
    let pieces = Arc::new(Pieces::letters(LETTERS));
    let short = |name| Arc::new(Scripted::random(name, pieces.clone(), 1).with_context(8));
    let short = Models::default().with(Seat::BASE, short("short")).with(Seat::DRAFT, short("short"));
    let nan = Arc::new(Scripted::new("nan", pieces.clone(), |_| vec![f32::NAN; 18]));
    let nan = Models::default().with(Seat::BASE, nan.clone()).with(Seat::DRAFT, nan);
    for recipe in RECIPES {
        let fault = |models: &Models, job| complete(recipe, models, job).unwrap_err().to_string();
        assert!(fault(&models, job(0)).contains("`max_tokens`"));
        assert!(fault(&models, Job { prompt: Prompt::Tokens(vec![]), ..job(9) }).contains("prompt is empty"));
        assert!(fault(&models, Job { prompt: Prompt::Tokens(vec![999]), ..job(9) }).contains("token id 999"));
        assert!(fault(&models, Job { prompt: Prompt::Chat(vec![]), ..job(9) }).contains("no message"));
        let hot = Sampling { temperature: -1.0, ..Sampling::default() };
        assert!(fault(&models, with_terms(Terms { sampling: hot, ..job(9).terms })).contains("`temperature`"));
        assert!(fault(&nan, job(9)).contains("NaN"));
        let text = fault(&short, job(9));
        assert!(text.contains("8 tokens") && text.contains("holds 8"), "{text}");
    }
}

#[test]
fn a_full_context_ends_the_answer() {
    let pieces = Arc::new(Pieces::letters(LETTERS));
    let engine = |seed| Arc::new(Scripted::random("short", pieces.clone(), seed).with_context(20));
    let models = Models::default().with(Seat::BASE, engine(1)).with(Seat::DRAFT, engine(2));
    for recipe in RECIPES {
        let done = complete(recipe, &models, job(60)).unwrap();
        assert_eq!((done.tokens.len(), done.finish_reason), (12, FinishReason::Length), "{}", recipe.name);
    }
}

/// A model that writes `spell` after a prompt of `prompt` tokens and then ends.
fn speller(name: &str, pieces: &Arc<Pieces>, spell: &str, prompt: usize) -> Arc<Scripted> {
    let (ids, vocab) = (pieces.encode(spell).unwrap(), pieces.vocabulary().pieces.len());
    Arc::new(Scripted::new(name, pieces.clone(), move |tokens: &[Token]| {
        let mut row = vec![0.0; vocab];
        let at = tokens.len().checked_sub(prompt).and_then(|at| ids.get(at));
        row[at.map_or(0, |&id| id as usize)] = 20.0;
        row
    }))
}

#[test]
fn white_space_belongs_to_the_answer_only_after_a_prefill() {
    let letters = "abcdefgh \n[]UserAitn,";
    let draft_pieces = Arc::new(Pieces::letters(letters));
    let same = draft_pieces.clone();
    // The same letters under other ids: the draft crosses as text.
    let other = Arc::new(Pieces::new(letters.chars().rev().map(String::from)));
    let user = Message::new(ChatRole::User, "ab");
    let form = 1 + "\n\n[User]\nab\n\n[Assistant]\n".len();
    for base_pieces in [same, other] {
        for (prefill, want) in [(None, "bed"), (Some(""), "bed"), (Some("ah,"), " bed")] {
            let prompt = form + prefill.map_or(0, str::len);
            let messages = [user.clone()].into_iter();
            let messages = messages.chain(prefill.map(|text| Message::new(ChatRole::Assistant, text))).collect();
            let models = Models::default()
                .with(Seat::DRAFT, speller("draft", &draft_pieces, " bed \n", prompt))
                .with(Seat::BASE, speller("base", &base_pieces, "", usize::MAX));
            let done = complete(RECIPES[0], &models, Job { prompt: Prompt::Chat(messages), ..job(60) }).unwrap();
            assert_eq!(done.text, want, "after {prefill:?}");
        }
    }
}

#[test]
fn white_space_at_the_start_of_the_first_drafted_token_is_removed() {
    let pieces = ["a", "b", " b", "d", "\n", "[", "]", "U", "s", "e", "r", "A", "i", "t", "n"].map(String::from);
    let pieces = Arc::new(Pieces::new(pieces));
    let form = 1 + "\n\n[User]\nab\n\n[Assistant]\n".len();
    let draft = speller("draft", &pieces, " bad", form);
    let models = Models::default().with(Seat::DRAFT, draft).with(Seat::BASE, speller("base", &pieces, "", usize::MAX));
    let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, "ab")]);
    let done = complete(RECIPES[0], &models, Job { prompt, ..job(60) }).unwrap();
    let ids: Vec<_> = done.tokens.iter().map(|token| token.id).collect();
    assert_eq!((done.text.as_str(), ids), ("bad", pieces.encode("bad").unwrap()));
}

#[test]
fn a_prompt_of_one_token_may_join_with_the_draft() {
    let letters = Arc::new(Pieces::letters("abcd"));
    let joined = Arc::new(Pieces::new(["ab", "a", "b", "c", "d"].map(String::from)));
    let (draft, base) = (speller("draft", &letters, "bcd", 1), speller("base", &joined, "", usize::MAX));
    let (draft, base) = (Arc::into_inner(draft).unwrap(), Arc::into_inner(base).unwrap());
    let models = Models::default()
        .with(Seat::DRAFT, Arc::new(draft.without_bos()))
        .with(Seat::BASE, Arc::new(base.without_bos()));
    let done = complete(RECIPES[0], &models, Job { prompt: Prompt::Raw("a".into()), ..job(60) }).unwrap();
    assert_eq!(done.text, "bcd");
    let scored: Vec<_> = done.tokens.iter().map(|token| (token.id, token.logprob.is_some())).collect();
    let ids = joined.encode("abcd").unwrap();
    assert_eq!(scored, [(ids[0], false), (ids[1], true), (ids[2], true)], "the first token has no context");
}

#[test]
fn extreme_lengths_do_not_panic() {
    let values =
        Values::default().with(&MAX_DRAFT_TOKENS, 1usize << 20).unwrap().with(&CHUNK_TOKENS, 1usize << 20).unwrap();
    let pieces = Arc::new(Pieces::letters("ab"));
    let models = Models::default()
        .with(Seat::DRAFT, speller("draft", &pieces, "ab", 2))
        .with(Seat::BASE, speller("base", &pieces, "", usize::MAX));
    let strategy = RECIPES[0].build(&models, &values).unwrap();
    let job = Job { prompt: Prompt::Raw("a".into()), ..job(usize::MAX) };
    let events: Vec<_> = block_on(run(strategy, job).collect());
    assert!(matches!(events.last(), Some(Ok(Event::Done(FinishReason::Stop)))));
}

#[test]
fn a_stop_string_at_the_token_limit_is_the_finish_reason() {
    let pieces = Arc::new(Pieces::letters("abcd"));
    let base: Arc<dyn Engine> = speller("base", &pieces, "abcd", 2);
    let models = Models::default().with(Seat::BASE, base);
    // At the limit "abcx" is incomplete but may still be completed, and "c" is complete.
    let stop = vec!["abcx".to_owned(), "c".to_owned()];
    let recipe = Recipe::find("base").unwrap();
    let done =
        complete(recipe, &models, Job { prompt: Prompt::Raw("a".into()), terms: Terms { stop, ..job(3).terms } })
            .unwrap();
    assert_eq!((done.text.as_str(), done.finish_reason), ("ab", FinishReason::Stop));
}
