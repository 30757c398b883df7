//! The dialects against replies in the form that real servers give (vLLM 0.32, SGLang 0.5.23,
//! llama-server of November 2026).

mod any_reply;
mod llama_server;
mod sglang;
mod vllm;

use std::sync::LazyLock;

use serde_json::{Value, json};
use wsd_core::{Sampling, Stop};

use super::llama_server::LlamaServer;
use super::openai::OpenAi;
use super::sglang::SgLang;
use super::vllm::Vllm;
use super::*;

const LIST: [Token; 9] = [0, 832, 438, 333, 928, 292, 268, 916, 17];
/// The scores of `LIST[1..]` by transformers.
const SCORES: [f64; 8] = [-10.7923, -8.7356, -5.4413, -7.1340, -9.3884, -5.1964, -6.5557, -7.6013];
/// The greedy continuation of `LIST`.
const GREEDY: [Token; 5] = [845, 691, 122, 172, 652];

fn score_request(from: usize, top: usize, scoring: Scoring) -> ScoreRequest<'static> {
    ScoreRequest { model: "base", list: &LIST, from, top, scoring }
}

fn generate_request(end_tokens: &'static [Token]) -> GenerateRequest<'static> {
    GenerateRequest { model: "base", list: &LIST, max_tokens: 5, sampling: Sampling::default(), top: 0, end_tokens }
}

fn near(scores: &[Sampled], want: &[f64]) -> bool {
    scores.len() == want.len() && scores.iter().zip(want).all(|(a, b)| (a.logprob.unwrap() - b).abs() < 1e-4)
}

pub(super) fn ids(tokens: &[Sampled]) -> Vec<Token> {
    tokens.iter().map(|sampled| sampled.token).collect()
}

/// `choices[0]` of a scored prompt, as vLLM has it.
fn vllm_scored() -> Value {
    let entry = |score: &f64| json!({"logprob": score, "rank": 1, "decoded_token": "x"});
    let row = |(token, score): (&Token, &f64)| json!({token.to_string(): entry(score)});
    let rows: Vec<_> = std::iter::once(Value::Null).chain(LIST[1..].iter().zip(&SCORES).map(row)).collect();
    let choice = json!({
        "index": 0, "text": " design", "finish_reason": "length", "stop_reason": null, "token_ids": [845],
        "prompt_logprobs": rows, "prompt_token_ids": LIST,
    });
    json!({"choices": [choice], "usage": {"prompt_tokens": 9}})
}

#[test]
fn scores_without_an_echo_are_refused() {
    let request = score_request(1, 0, Scoring::Prompt);
    let values: Vec<_> =
        std::iter::once(Value::Null).chain(SCORES.iter().map(|score| json!(score))).chain([json!(-3.3)]).collect();
    let names: Vec<_> = LIST.iter().chain(&[845]).map(|id| format!("token_id:{id}")).collect();
    let reply = |values: Value, names: Value| {
        let logprobs = json!({"token_logprobs": values, "tokens": names});
        json!({"choices": [{"text": "x", "logprobs": logprobs}]})
    };
    assert!(near(&OpenAi.parse_scores(&request, &reply(json!(values), json!(names))).unwrap().unwrap(), &SCORES));
    assert!(near(
        &OpenAi.parse_scores(&request, &reply(json!(values), json!(["<s>", " The"]))).unwrap().unwrap(),
        &SCORES
    ));
    // llama-server ignores `echo` and returns the new token alone.
    let ignored = json!({"choices": [{"text": " design", "logprobs": {"content": [{"id": 845, "logprob": -3.3}]}}]});
    assert!(OpenAi.parse_scores(&request, &ignored).is_err());
    assert!(OpenAi.parse_scores(&request, &reply(json!([-3.3]), json!(["x"]))).unwrap_err().contains("echo"));
    let mut others = names.clone();
    others[3] = "token_id:4".into();
    assert!(OpenAi.parse_scores(&request, &reply(json!(values), json!(others))).is_err());
    let written = json!({"choices": [{"text": " design", "finish_reason": "length", "logprobs": null}]});
    let delta = OpenAi.parse_delta(&generate_request(&[]), &written, 0).unwrap();
    assert_eq!((delta.text.as_deref(), delta.stop), (Some(" design"), Some(Stop::Length)));
}

/// An engine that only continues.
#[derive(Debug)]
struct Continues;

impl Dialect for Continues {
    fn facts(&self) -> &'static Facts {
        static FACTS: LazyLock<Facts> =
            LazyLock::new(|| Facts { scheme: "continues", name: "Continues", scorings: &[], ..*OpenAi.facts() });
        &FACTS
    }

    fn generate(&self, request: &GenerateRequest<'_>) -> Post {
        OpenAi.generate(request)
    }

    fn parse_delta(&self, request: &GenerateRequest<'_>, event: &Value, seen: usize) -> Result<Delta, Misread> {
        OpenAi.parse_delta(request, event, seen)
    }
}

#[test]
fn a_dialect_without_scoring_refuses_to_score() {
    let request = score_request(3, 0, Scoring::Prompt);
    let reason = "Continues returns no scores of a prompt";
    assert_eq!(Continues.score(&request).unwrap_err(), reason);
    assert_eq!(Continues.parse_scores(&request, &vllm_scored()).unwrap_err(), reason);
    assert!(LlamaServer.score(&request).is_err(), "no method of its own");
}

#[test]
fn the_readme_names_every_engine() {
    let readme = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let words = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    let item = format!("- Remote engines ({}), ", names(|_| true).join(", "));
    assert!(words.contains(&item), "README.md must hold `{item}`");
}

#[test]
fn scopes_are_told_to_servers_that_can_keep_them_apart() {
    for dialect in DIALECTS {
        let plain = dialect.generate(&generate_request(&[1]));
        let mut scoped = plain.clone();
        dialect.separate(&mut scoped, 0x2a);
        let salt = scoped.body.get("cache_salt").and_then(Value::as_str);
        let expected = (dialect.facts().scheme == "vllm").then_some("wsd-000000000000002a");
        assert_eq!(salt, expected, "{}", dialect.facts().name);
        if expected.is_none() {
            assert_eq!(scoped, plain);
        }
    }
}

#[test]
fn a_logit_bias_is_sent_in_the_server_s_own_form() {
    let sampling = Sampling { logit_bias: [(5, -100.0), (7, 1.5)].into(), ..Sampling::default() };
    for dialect in DIALECTS {
        let request = generate_request(&[]);
        let plain = dialect.generate(&request).body;
        let body = dialect.generate(&GenerateRequest { sampling: sampling.clone(), ..request }).body;
        let find = |body: &Value| match &body["sampling_params"] {
            Value::Null => body["logit_bias"].clone(),
            parameters => parameters["logit_bias"].clone(),
        };
        let pairs = json!([[5, -100.0], [7, 1.5]]);
        let want = if dialect.facts().scheme == "llama-server" { pairs } else { json!({"5": -100.0, "7": 1.5}) };
        assert_eq!((find(&plain), find(&body)), (Value::Null, want), "{}", dialect.facts().name);
    }
}
