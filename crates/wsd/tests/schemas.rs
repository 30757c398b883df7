//! Conformance to JSON schemas: generated schemas of the kinds that clients send, answered by a pair
//! of models; every finished answer is valid.
//!
//! `WSD_SCHEMAS` is the number of schemas (24) or a part of them (`24..48`), `WSD_SCHEMA_TOKENS` the
//! most tokens of an answer (300), `WSD_SCHEMA_PAIR` two checkpoints, the draft's and the base's, with
//! a comma between them (the built-in pair). The cost of masks is measured by
//! `cargo test --test schemas cost -- --ignored --nocapture`, over the models in `WSD_MODELS`.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};
use wsd::models::builtin_pair;
use wsd_core::{
    ChatRole, FinishReason, Generation, Job, Message, Models, Prompt, Recipe, Sampling, Seat, Session, Step, Stop,
    THRESHOLD, Terms, Trace, Values, WINDOW, run, splitmix64,
};
use wsd_grammar::{Form, grammar};
use wsd_nn::{Checkpoint, LoadOptions, Local, TemplateChoice};

/// Random choices that depend on a seed only.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = splitmix64(self.0);
        (self.0 % limit as u64) as usize
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const NAMES: &[&str] = &["name", "id", "tags", "created at", "price", "is_open", "n\u{e9}e", "parent", "x-1", "$value"];
const WORDS: &[&str] = &["red", "green", "two words", "caf\u{e9}", "a\"b", "", "back\\slash", "null", "12"];
const PATTERNS: &[&str] = &["^[A-Z]{2}-[0-9]{3}$", "^(yes|no)$", "^[a-z]{1,8}$", "^#[0-9a-f]{6}$", "^\\d{4}-\\d{2}$"];
const FORMATS: &[&str] = &["date", "time", "date-time", "email", "ipv4", "uuid"];

/// Makes a schema with at most `depth` levels below it. Texts and lists are bounded, so that answers
/// end.
fn schema(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth == 0 { 8 } else { 15 }) {
        0 => json!({"type": "boolean"}),
        1 => json!({"type": "null"}),
        2 => {
            let low = dice.below(200) as i64 - 100;
            json!({"type": "integer", "minimum": low, "maximum": low + dice.below(1000) as i64})
        }
        3 => json!({"type": "number", "exclusiveMinimum": -2, "maximum": dice.below(50) as f64 + 0.5}),
        4 => json!({"type": "string", "pattern": dice.pick(PATTERNS)}),
        5 => json!({"type": "string", "format": dice.pick(FORMATS)}),
        6 => json!({"enum": [dice.pick(WORDS), dice.below(9), null, dice.pick(WORDS).len() as f64 + 0.25]}),
        7 => {
            let least = dice.below(4);
            json!({"type": "string", "minLength": least, "maxLength": least + dice.below(12)})
        }
        8 => json!({"const": {"a": [dice.below(5), dice.pick(WORDS)]}}),
        9 => {
            let least = dice.below(3);
            let items = schema(dice, depth - 1);
            json!({"type": "array", "items": items, "minItems": least, "maxItems": least + dice.below(3)})
        }
        10 => {
            let first: Vec<_> = (0..1 + dice.below(2)).map(|_| schema(dice, depth - 1)).collect();
            json!({"type": "array", "prefixItems": first, "items": false, "minItems": first.len()})
        }
        11 => json!({"anyOf": [schema(dice, depth - 1), schema(dice, depth - 1)]}),
        12 => json!({"type": ["integer", "null"], "minimum": 0, "maximum": 99}),
        _ => object(dice, depth),
    }
}

fn object(dice: &mut Dice, depth: usize) -> Value {
    let mut properties = Map::new();
    for _ in 0..1 + dice.below(4) {
        properties.insert(dice.pick(NAMES).to_owned(), schema(dice, depth - 1));
    }
    let required: Vec<_> = properties.keys().filter(|_| dice.below(3) > 0).cloned().collect();
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        "description": "Generated", "title": dice.pick(NAMES),
    })
}

/// Makes schema number `index`: an object, with definitions that refer to each other in some.
fn whole(index: usize) -> Value {
    let mut dice = Dice(splitmix64(index as u64));
    let mut schema = object(&mut dice, 3);
    match index % 8 {
        0 => {
            schema["properties"]["child"] = json!({"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]});
            let nodes = json!({"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1});
            schema["$defs"]["node"] = json!({
                "type": "object", "properties": {"v": {"type": "integer", "maximum": 9, "minimum": 0}, "next": nodes},
                "required": ["v"], "additionalProperties": false,
            });
        }
        1 => {
            schema["properties"]["kind"] = json!({"oneOf": [{"const": "a"}, {"const": "b"}]});
            schema["required"].as_array_mut().unwrap().push(json!("kind"));
        }
        2 => schema["properties"]["both"] = json!({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 8}]}),
        _ => {}
    }
    schema
}

/// Loads a checkpoint for a seat.
fn open(path: &str, template: TemplateChoice) -> Arc<Local> {
    let name = Path::new(path).file_stem().unwrap().to_string_lossy().into_owned();
    let options = LoadOptions { template, ..LoadOptions::new(name) };
    Arc::new(Local::load(Checkpoint::open(Path::new(path)).unwrap(), &options).unwrap())
}

fn pair() -> Models {
    let Ok(paths) = std::env::var("WSD_SCHEMA_PAIR") else { return builtin_pair().unwrap() };
    let (draft, base) = paths.split_once(',').expect("two paths with a comma between them");
    Models::default()
        .with(Seat::DRAFT, open(draft, TemplateChoice::Own))
        .with(Seat::BASE, open(base, TemplateChoice::Plain))
}

/// Reads the numbers of the schemas.
fn numbers(text: &str) -> Range<usize> {
    let (start, end) = text.split_once("..").unwrap_or(("0", text));
    start.parse().unwrap()..end.parse().unwrap()
}

#[test]
fn finished_answers_are_valid() {
    let numbers = numbers(&std::env::var("WSD_SCHEMAS").unwrap_or("24".into()));
    let max_tokens = std::env::var("WSD_SCHEMA_TOKENS").map_or(300, |count| count.parse().unwrap());
    let count = numbers.len();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let models = pair();
    let values = Values::default().with(&THRESHOLD, 0.2).unwrap().with(&WINDOW, 4usize).unwrap();
    let strategies = ["wsd", "wsd", "base", "wsd", "nudging", "draft"];
    let (mut finished, mut switched, mut refused) = (0, 0, 0);
    for index in numbers {
        let schema = whole(index);
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let sampling = Sampling { temperature: (index % 3) as f32 / 2.0, seed: index as u64, ..Sampling::default() };
        let form = grammar("response_format", &Form::Schema(schema.clone())).unwrap();
        let terms = Terms { max_tokens, sampling, grammar: Some(form), ..Terms::default() };
        let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, "Describe the bread.")]);
        let strategy = Recipe::find(strategies[index % strategies.len()]).unwrap().build(&models, &values).unwrap();
        let done = match runtime.block_on(Trace::collect(run(strategy, Job { prompt, terms }))) {
            Ok(done) => done,
            Err(error) => {
                // A generated schema may be one that nothing meets.
                println!("refused {index}: {error}\n{schema}");
                assert!(error.to_string().starts_with("`response_format` must be"), "{error}");
                refused += 1;
                continue;
            }
        };
        switched += usize::from(done.handover.is_some());
        if done.finish_reason != FinishReason::Stop {
            continue;
        }
        finished += 1;
        let value: Value = serde_json::from_str(&done.text).unwrap_or_else(|error| panic!("{error}: {}", done.text));
        let faults: Vec<_> = validator.iter_errors(&value).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{index}: {faults:?}\n{value}\n{schema}");
    }
    println!("{count} schemas: {finished} finished and valid, {switched} with a hand-over, {refused} refused");
    assert!(max_tokens < 300 || finished * 10 >= count * 7, "{finished} of {count} answers finished");
}

/// A schema whose answers do not end: texts, numbers and names in a list.
fn endless() -> Value {
    let item = json!({
        "type": "object", "required": ["name", "age", "about"], "additionalProperties": false,
        "properties": {
            "name": {"type": "string"}, "age": {"type": "integer"}, "about": {"type": "string"},
            "kind": {"enum": ["red", "green"]},
        },
    });
    json!({"type": "array", "items": item, "minItems": 1000})
}

/// Generates `count` tokens and returns the seconds for each.
async fn seconds(session: &mut dyn Session, prompt: usize, generation: &Generation) -> f64 {
    session.truncate(prompt);
    let started = Instant::now();
    let written = session.write(generation).await.unwrap();
    assert_eq!(written.stop, Stop::Length);
    started.elapsed().as_secs_f64() / written.tokens.len() as f64
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    let Ok(folder) = std::env::var("WSD_MODELS") else {
        println!("skipped: WSD_MODELS names no folder");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for file in ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"] {
        let engine = open(&format!("{folder}/{file}"), TemplateChoice::Plain);
        let engine: &dyn wsd_core::Engine = engine.as_ref();
        let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, "List people in JSON.")]);
        let prompt = engine.codec().render(&prompt).unwrap().tokens;
        let terms = Terms { grammar: Some(grammar("grammar", &Form::Schema(endless())).unwrap()), ..Terms::default() };
        let free = Generation { max_tokens: 64, sampling: Sampling::default(), top_logprobs: 0, guide: None };
        runtime.block_on(async {
            let started = Instant::now();
            terms.guide(engine, b"", prompt.len()).unwrap();
            let prepared = started.elapsed().as_secs_f64();
            println!("{file}: vocabulary {}, prepared in {prepared:.2} s", engine.card().vocab);
            let mut session = engine.open(&prompt).await.unwrap();
            let (mut rounds, mut masks) = (Vec::new(), Vec::new());
            for round in 0..8 {
                let guide = terms.guide(engine, b"", prompt.len()).unwrap();
                let bound = Generation { guide, ..free.clone() };
                let one = if round % 2 == 0 { seconds(session.as_mut(), prompt.len(), &free).await } else { 0.0 };
                let other = seconds(session.as_mut(), prompt.len(), &bound).await;
                let one = if round % 2 == 0 { one } else { seconds(session.as_mut(), prompt.len(), &free).await };
                rounds.push((one, other));
                // The masks by themselves, over an answer under the grammar.
                seconds(session.as_mut(), prompt.len(), &bound).await;
                let guide = terms.guide(engine, b"", prompt.len()).unwrap().unwrap();
                for length in prompt.len()..session.tokens().len() {
                    let started = Instant::now();
                    guide.next(&session.tokens()[..length]).unwrap();
                    masks.push(started.elapsed().as_secs_f64());
                }
            }
            let median = |mut values: Vec<f64>| {
                values.sort_by(f64::total_cmp);
                (values[values.len() / 2], values[values.len() * 95 / 100])
            };
            let free = median(rounds.iter().map(|(one, _)| *one).collect()).0;
            let bound = median(rounds.iter().map(|(_, other)| *other).collect()).0;
            let ratio = median(rounds.iter().map(|(one, other)| other / one).collect()).0;
            let mask = median(masks);
            println!(
                "  {:.2} ms a token free, {:.2} ms constrained, ratio {ratio:.3}; a mask \
                 {:.0} us (median), {:.0} us (95 %)",
                free * 1e3,
                bound * 1e3,
                mask.0 * 1e6,
                mask.1 * 1e6
            );
        });
    }
}

#[test]
fn choices_of_many_positions_are_those_of_a_generation() {
    let models = builtin_pair().unwrap();
    let engine = models.get(Seat::BASE).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let prompt = engine.codec().render(&Prompt::Raw("A fox".into())).unwrap().tokens;
        let terms = Terms { grammar: Some(grammar("grammar", &Form::Schema(endless())).unwrap()), ..Terms::default() };
        for temperature in [0.0, 1.0] {
            let guide = || terms.guide(engine.as_ref(), b"", prompt.len()).unwrap();
            let sampling = Sampling { temperature, ..Sampling::default() };
            let generation =
                || Generation { max_tokens: 40, sampling: sampling.clone(), top_logprobs: 2, guide: guide() };
            let mut session = engine.open(&prompt).await.unwrap();
            let written = session.write(&generation()).await.unwrap();
            // One step over all positions, in whatever order its rows are read.
            let choices = session.choices(prompt.len(), &generation()).await.unwrap();
            let steps: Vec<_> = written.tokens.iter().cloned().map(Step::Token).collect();
            assert_eq!(choices[..40], steps);
            // Scores are those without a constraint.
            let scores = session.score(prompt.len()).await.unwrap();
            assert!(written.tokens.iter().zip(scores).all(|(token, score)| token.logprob == Some(score)));
        }
    });
}
