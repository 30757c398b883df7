//! Answers of scripted engines under grammars: every strategy stays in the language.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    Completion, FinishReason, Job, Models, Next, Prompt, RECIPES, Recipe, SPECULATE, Sampling, Seat, THRESHOLD, Terms,
    Tokenizer as _, Trace, Values, WINDOW, run,
};
use wsd_grammar::{Form, grammar};

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789{}[]\":, \\-.";

/// A vocabulary of letters and some words, some of which run across the parts of JSON.
fn words() -> Arc<Pieces> {
    let words = ["\":", "\": ", "{\"", "\"}", "true", "ab", "12", ", \"", "\u{e9}", "\u{e9}x"].map(String::from);
    Arc::new(Pieces::new(LETTERS.chars().map(String::from).chain(words)))
}

fn letters() -> Arc<Pieces> {
    Arc::new(Pieces::letters(&format!("{LETTERS}\u{e9}")))
}

fn models(draft: Arc<Pieces>, seed: u64) -> Models {
    Models::default()
        .with(Seat::DRAFT, Arc::new(Scripted::random("draft", draft, seed)))
        .with(Seat::BASE, Arc::new(Scripted::random("base", words(), seed + 100)))
}

fn answer(recipe: &Recipe, models: &Models, terms: &Terms, values: &Values) -> Completion {
    let strategy = recipe.build(models, values).unwrap();
    let job = Job { prompt: Prompt::Raw("ab".into()), terms: terms.clone() };
    futures::executor::block_on(Trace::collect(run(strategy, job))).unwrap()
}

fn terms(form: &Form, temperature: f32, seed: u64) -> Terms {
    let sampling = Sampling { temperature, seed, ..Sampling::default() };
    Terms { max_tokens: 120, sampling, grammar: Some(grammar("grammar", form).unwrap()), ..Terms::default() }
}

fn schema() -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "properties": {
            "on": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["ab", "cd", "\u{e9}"]}, "maxItems": 4},
        },
        "required": ["on", "n", "tags"], "additionalProperties": false,
    })
}

#[test]
fn every_strategy_stays_in_the_language() {
    let mut switched = 0;
    for seed in 0..12 {
        for draft in [words(), letters()] {
            let models = models(draft.clone(), seed);
            for recipe in
                RECIPES.iter().filter(|recipe| recipe.needs.iter().all(|need| models.get(need.seat).is_some()))
            {
                let values = Values::default().with(&THRESHOLD, 0.01).unwrap().with(&WINDOW, 3usize).unwrap();
                // Strategies that choose tokens of their own refuse grammars.
                if !recipe.build(&models, &values).is_ok_and(|strategy| strategy.follows_grammars()) {
                    continue;
                }
                let temperature = (seed % 2) as f32;
                let done = answer(recipe, &models, &terms(&Form::Schema(schema()), temperature, seed), &values);
                switched += usize::from(done.handover.is_some());
                assert_eq!(done.finish_reason, FinishReason::Stop, "{} {seed}: {}", recipe.name, done.text);
                let value: serde_json::Value = serde_json::from_str(&done.text).expect(&done.text);
                assert!(value["n"].as_u64().is_some_and(|n| n <= 150) && value["on"].is_boolean(), "{value}");
                assert!(
                    value["tags"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|tag| ["ab", "cd", "\u{e9}"].contains(&tag.as_str().unwrap()))
                );
            }
        }
    }
    assert!(switched > 5, "{switched} hand-overs");
}

#[test]
fn speculation_changes_nothing() {
    for seed in 0..8 {
        let models = models(words(), seed);
        for temperature in [0.0, 1.0] {
            let terms = terms(&Form::Schema(schema()), temperature, seed);
            let values = Values::default().with(&THRESHOLD, 0.01).unwrap().with(&WINDOW, 2usize).unwrap();
            let without = values.clone().with(&SPECULATE, "off").unwrap();
            let text = |name: &str, values: &Values| answer(Recipe::find(name).unwrap(), &models, &terms, values).text;
            assert_eq!(text("wsd", &values), text("wsd", &without));
            assert_eq!(text("speculative", &values), text("base", &values));
        }
    }
}

#[test]
fn a_token_alone_is_judged_as_by_the_mask() {
    let engine = Scripted::random("base", words(), 1);
    let terms = terms(&Form::Schema(schema()), 0.0, 1);
    let done = answer(
        Recipe::find("base").unwrap(),
        &Models::default().with(Seat::BASE, Arc::new(Scripted::random("base", words(), 1))),
        &terms,
        &Values::default(),
    );
    let list: Vec<_> = done.tokens.iter().map(|token| token.id).collect();
    let (masks, alone) =
        (terms.guide(&engine, b"", 0).unwrap().unwrap(), terms.guide(&engine, b"", 0).unwrap().unwrap());
    // Ends come last, and ids beyond the vocabulary are none.
    let size = words().vocabulary().pieces.len() as u32 + 3;
    for length in (0..=list.len()).rev().chain(0..=list.len()) {
        let next = masks.next(&list[..length]).unwrap();
        for token in (0..size).rev() {
            let wanted = matches!(&next, Next::Tokens(mask) if mask.allows(token));
            assert_eq!(alone.allows(&list[..length], token).unwrap(), wanted, "{token} after {length}");
        }
    }
}

#[test]
fn scores_are_those_of_the_whole_vocabulary() {
    let models = models(words(), 3);
    let free = answer(
        Recipe::find("base").unwrap(),
        &models,
        &Terms { max_tokens: 1, ..Terms::default() },
        &Values::default(),
    );
    let bound = terms(&Form::Choice(vec![free.text.clone(), "zz".into()]), 0.0, 1);
    let bound = answer(Recipe::find("base").unwrap(), &models, &bound, &Values::default());
    assert_eq!((&bound.text, bound.tokens[0].logprob), (&free.text, free.tokens[0].logprob));
}

#[test]
fn every_form_is_followed() {
    let gbnf = "root ::= item (\",\" item){2}\nitem ::= \"[\" item? \"]\" | [0-9]+";
    for (form, fits) in [
        (Form::Regex("^[a-c]{2,4}\\d$".into()), "a regex"),
        (Form::Choice(vec!["ab".into(), "abc".into()]), "a choice"),
        (Form::Lark("start: \"a\" WORD\nWORD: /[x-z]{3}/".into()), "lark"),
        (Form::Gbnf(gbnf.into()), "gbnf"),
    ] {
        for seed in 0..6 {
            let models = models(letters(), seed);
            let done = answer(RECIPES[0], &models, &terms(&form, 1.0, seed), &Values::default());
            let text = done.text.as_str();
            let letters = |text: &str, range: std::ops::RangeInclusive<char>| text.chars().all(|c| range.contains(&c));
            let ok = match fits {
                "a regex" => letters(&text[..text.len() - 1], 'a'..='c') && (3..=5).contains(&text.len()),
                "a choice" => ["ab", "abc"].contains(&text),
                "lark" => text.len() == 4 && letters(&text[1..], 'x'..='z'),
                _ => text.matches(',').count() == 2 || done.finish_reason == FinishReason::Length,
            };
            assert!(ok, "{fits}: {text}");
        }
    }
}

#[test]
fn lists_are_followed_as_they_are_edited() {
    let engine = Scripted::random("base", words(), 1);
    let codec = wsd_core::Engine::codec(&engine);
    let tokens = |text: &str| codec.tokenizer().encode(text).unwrap();
    let terms = terms(&Form::Choice(vec!["abc".into(), "abd".into(), "b12".into()]), 0.0, 0);
    let guide = terms.guide(&engine, b"", 2).unwrap().unwrap();
    let allowed = |answer: &str| match guide.next(&[vec![7, 7], tokens(answer)].concat()).unwrap() {
        Next::End => "the end".to_owned(),
        Next::Tokens(mask) => {
            let ids = (0..codec.tokenizer().vocabulary().pieces.len() as u32).filter(|&id| mask.allows(id));
            ids.map(|id| codec.tokenizer().decode(&[id]).unwrap()).collect::<Vec<_>>().join(" ")
        }
    };
    for _ in 0..2 {
        assert_eq!(allowed(""), "a b ab");
        assert_eq!(allowed("ab"), "c d");
        assert_eq!(allowed("abd"), "the end");
        assert_eq!(allowed("b"), "1 12");
    }
    // Behind a lead in bytes, as after a hand-over.
    let guide = terms.guide(&engine, b"b1", 0).unwrap().unwrap();
    assert!(matches!(guide.next(&[]).unwrap(), Next::Tokens(mask) if mask.first() == Some(tokens("2")[0])));
    assert_eq!(guide.next(&tokens("9")).unwrap(), Next::End, "a wrong proposal");
    assert!(matches!(guide.next(&tokens("2")), Ok(Next::End)) && terms.guide(&engine, b"x", 0).is_err());
}

#[test]
fn grammars_that_cannot_be_met_are_refused_with_the_reason() {
    let models = models(words(), 1);
    let fault = |form: Form| {
        let terms = Terms { grammar: Some(grammar("response_format", &form).unwrap()), ..Terms::default() };
        let strategy = RECIPES[0].build(&models, &Values::default()).unwrap();
        let events = run(strategy, Job { prompt: Prompt::Raw("ab".into()), terms });
        futures::executor::block_on(Trace::collect(events)).unwrap_err().to_string()
    };
    for (form, reason) in [
        (Form::Schema(serde_json::json!(false)), "nsatisfiable"),
        (Form::Schema(serde_json::json!({"type": "integer", "minimum": 5, "maximum": 4})), "minimum"),
        (Form::Schema(serde_json::json!({"$ref": "https://example.org/schema"})), "$ref"),
        (Form::Schema(serde_json::json!({"type": "array", "uniqueItems": true, "contains": {}})), "contains"),
        (Form::Regex("a(".into()), "cannot be used"),
        (Form::Regex("[A-Z]".into()), "no answer in this vocabulary"),
        (Form::Lark("begin: \"a\"".into()), "start"),
    ] {
        let message = fault(form.clone());
        assert!(message.starts_with("`response_format` must be") && message.contains(reason), "{form:?}: {message}");
    }
}
