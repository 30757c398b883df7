//! The dialects against replies in the form that real servers give (vLLM 0.32, SGLang 0.5.23,
//! llama-server of November 2026).

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use wsd_core::{DRY_ALLOWED_LENGTH, DRY_MULTIPLIER, DRY_SEQUENCE_BREAKERS, Sampling, Stop, Values};

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
fn vllm_scores_a_prompt() {
    let request = score_request(3, 0, Scoring::Prompt);
    let post = Vllm.score(&request).unwrap();
    assert_eq!(post.path, "/v1/completions");
    assert_eq!((&post.body["prompt"], &post.body["prompt_logprobs"]), (&json!(LIST), &json!(0)));
    assert!(near(&Vllm.parse_scores(&request, &vllm_scored()).unwrap().unwrap(), &SCORES[2..]));
    // The row holds the prompt's token first, then the likeliest ones.
    let mut reply = vllm_scored();
    reply["choices"][0]["prompt_logprobs"][8] = json!({
        "17": {"logprob": -7.6, "rank": 339}, "5": {"logprob": -1.5, "rank": 1}, "9": {"logprob": -2.0, "rank": 2},
    });
    let scored = Vllm.parse_scores(&score_request(8, 2, Scoring::Prompt), &reply).unwrap().unwrap();
    assert_eq!((scored[0].logprob, &scored[0].top), (Some(-7.6), &vec![(5, -1.5), (9, -2.0)]));
}

#[test]
fn vllm_scores_named_rows_from_its_cache() {
    let request = score_request(7, 0, Scoring::Rows);
    let post = Vllm.score(&request).unwrap();
    let sampling = &post.body["sampling_params"];
    assert_eq!(post.path, "/inference/v1/generate");
    assert_eq!(
        (&sampling["prompt_logprob_start"], &sampling["prompt_logprob_token_ids"]),
        (&json!(6), &json!([[916], [17]]))
    );
    assert!(sampling["prompt_logprobs"].is_null(), "together with reading the cache it makes the server exit");
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }            \n";
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.bytes());
    npy.extend([-6.5557f32, -7.6013].into_iter().flat_map(f32::to_le_bytes));
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &npy);
    assert!(near(
        &Vllm.parse_scores(&request, &json!({"prompt_token_id_logprobs": text})).unwrap().unwrap(),
        &SCORES[6..]
    ));
    assert_eq!(
        Vllm.parse_scores(&request, &json!({"prompt_token_id_logprobs": null})),
        Ok(None),
        "the cache covers the first row"
    );
    npy.pop();
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &npy);
    assert!(Vllm.parse_scores(&request, &json!({"prompt_token_id_logprobs": text})).is_err());
}

#[test]
fn vllm_writes_a_stream() {
    let chunk = |token: Token, logprob: f64, stop: Value, why: Value| {
        json!({"object": "text_completion", "choices": [{
        "index": 0, "text": "x", "finish_reason": stop, "stop_reason": why, "prompt_token_ids": null,
        "token_ids": [token],
        "logprobs": {"text_offset": [0], "token_logprobs": [logprob], "tokens": [format!("token_id:{token}")],
            "top_logprobs": [{format!("token_id:{token}"): logprob}]}}]})
    };
    let request = generate_request(&[691]);
    let delta = Vllm.parse_delta(&request, &chunk(845, -3.3883, Value::Null, Value::Null), 0).unwrap();
    assert_eq!((ids(&delta.tokens), delta.tokens[0].logprob, delta.stop), (vec![845], Some(-3.3883), None));
    // An end token is part of the event, but not of the text.
    for (token, why) in [(1, Value::Null), (691, json!(691))] {
        let delta = Vllm.parse_delta(&request, &chunk(token, -2.6, json!("stop"), why), 1).unwrap();
        assert_eq!((delta.tokens.len(), delta.stop), (0, Some(Stop::End)));
    }
    let last = Vllm.parse_delta(&request, &chunk(652, -2.6, json!("length"), Value::Null), 4).unwrap();
    assert_eq!((ids(&last.tokens), last.stop), (vec![652], Some(Stop::Length)));
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 9}});
    assert_eq!(Vllm.parse_delta(&request, &usage, 5), Ok(Delta::default()));
    let mut other = chunk(845, -3.3, Value::Null, Value::Null);
    other["choices"][0]["prompt_token_ids"] = json!([0, 1]);
    assert!(Vllm.parse_delta(&request, &other, 0).unwrap_err().contains("another prompt"));
    assert!(Vllm.parse_delta(&request, &chunk(5, -1.0, json!("abort"), Value::Null), 0).unwrap_err().contains("abort"));
    let sampling = Sampling { seed: u64::MAX, ..Sampling::default() };
    let body = Vllm.generate(&GenerateRequest { sampling, ..request }).body;
    assert_eq!((&body["top_k"], &body["temperature"], &body["seed"]), (&json!(-1), &json!(0.0), &json!(u64::MAX >> 1)));
}

#[test]
fn sglang_scores_from_a_position_on() {
    let request = score_request(5, 0, Scoring::Prompt);
    let post = SgLang.score(&request).unwrap();
    assert_eq!((post.path, &post.body["logprob_start_len"]), ("/generate", &json!(4)));
    let rows = json!([
        [null, 928, null],
        [-9.3884, 292, null],
        [-5.1964, 268, null],
        [-6.5557, 916, null],
        [-7.6013, 17, null]
    ]);
    let reply = json!({"text": "", "output_ids": [], "meta_info": {"input_token_logprobs": rows, "cached_tokens": 4}});
    assert!(near(&SgLang.parse_scores(&request, &reply).unwrap().unwrap(), &SCORES[4..]));
    assert!(SgLang.parse_scores(&score_request(4, 0, Scoring::Prompt), &reply).is_err(), "one row too few");
}

#[test]
fn sglang_streams_are_cumulative_or_incremental() {
    let event = |from: usize, to: usize, reason: Value| {
        let rows: Vec<_> = GREEDY[from..to].iter().map(|id| json!([-3.0, id, null])).collect();
        json!({"text": "x", "output_ids": GREEDY[from..to], "meta_info": {
            "finish_reason": reason, "completion_tokens": to, "output_token_logprobs": rows}})
    };
    let request = generate_request(&[1]);
    let mut seen = Vec::new();
    for to in 1..=5 {
        let reason = if to == 5 { json!({"type": "length", "length": 5}) } else { Value::Null };
        let cumulative = SgLang.parse_delta(&request, &event(0, to, reason.clone()), seen.len()).unwrap();
        let incremental = SgLang.parse_delta(&request, &event(seen.len(), to, reason), seen.len()).unwrap();
        assert_eq!(cumulative, incremental);
        seen.extend(ids(&cumulative.tokens));
        assert_eq!(cumulative.stop, (to == 5).then_some(Stop::Length));
    }
    assert_eq!(seen, GREEDY);
    let ended = SgLang.parse_delta(&request, &event(0, 3, json!({"type": "stop", "matched": 122})), 2).unwrap();
    assert_eq!((ended.tokens.len(), ended.stop), (0, Some(Stop::End)));
    assert!(SgLang.parse_delta(&request, &event(0, 3, json!({"type": "abort", "message": "gone"})), 2).is_err());
    // The count fits neither form, unless it includes an end token that the list omits.
    let mut short = event(0, 3, json!({"type": "length", "length": 4}));
    short["meta_info"]["completion_tokens"] = json!(4);
    assert!(SgLang.parse_delta(&request, &short, 2).unwrap_err().contains("counts 4"));
    short["meta_info"]["finish_reason"] = json!({"type": "stop", "matched": 1});
    assert_eq!(ids(&SgLang.parse_delta(&request, &short, 2).unwrap().tokens), GREEDY[2..3]);
}

#[test]
fn llama_server_scores_by_teacher_forcing() {
    let scoring = Scoring::Forced { width: 2, ascii_token: 17 };
    let request = ScoreRequest { list: &LIST[..5], ..score_request(4, 0, scoring) };
    let body = LlamaServer.score(&request).unwrap().body;
    assert_eq!(
        (&body["prompt"], &body["n_probs"], &body["logit_bias"]),
        (&json!(LIST[..4]), &json!(2), &json!([[17, 1000.0]]))
    );
    let reply = |id: Token| {
        let top = json!([{"id": 5, "token": "x", "logprob": -1.0}, {"id": id, "token": "y", "logprob": -7.1340}]);
        let row = json!({"id": 17, "token": ".", "bytes": [46], "logprob": -9.0, "top_logprobs": top});
        json!({"content": ".", "stop_type": "limit", "completion_probabilities": [row]})
    };
    assert!(near(&LlamaServer.parse_scores(&request, &reply(928)).unwrap().unwrap(), &SCORES[3..4]));
    assert_eq!(LlamaServer.parse_scores(&request, &reply(929)), Ok(None), "not among the likeliest");
    assert!(
        LlamaServer.parse_scores(&request, &json!({"content": "."})).is_err(),
        "after a sampled half character there is no row"
    );
}

#[test]
fn llama_server_omits_the_rows_of_half_characters() {
    let row = |id: Token, logprob: f64| {
        let top = json!([{"id": id, "logprob": logprob}]);
        json!({"id": id, "token": "x", "bytes": [1], "logprob": logprob, "top_logprobs": top})
    };
    let reply = json!({
        "content": " design object\u{FFFD}\u{FFFD}PL", "tokens": GREEDY, "stop_type": "limit", "tokens_predicted": 5,
        "completion_probabilities": [row(845, -3.4), row(691, -2.6), row(122, -3.6), row(652, -3.6)],
    });
    let delta = LlamaServer.parse_delta(&generate_request(&[1]), &reply, 0).unwrap();
    assert_eq!((ids(&delta.tokens), delta.stop), (GREEDY.to_vec(), Some(Stop::Length)));
    let known: Vec<_> = delta.tokens.iter().map(|sampled| sampled.logprob.is_some()).collect();
    assert_eq!(known, [true, true, true, false, true]);
    let ended = json!({"content": "", "tokens": [845, 1], "stop_type": "eos"});
    assert_eq!(ids(&LlamaServer.parse_delta(&generate_request(&[1]), &ended, 0).unwrap().tokens), [845]);
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

/// JSON of any shape, with the keys that the dialects read.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("choices"),
        Just("prompt_logprobs"),
        Just("logprobs"),
        Just("token_ids"),
        Just("tokens"),
        Just("token_logprobs"),
        Just("top_logprobs"),
        Just("meta_info"),
        Just("input_token_logprobs"),
        Just("output_token_logprobs"),
        Just("output_ids"),
        Just("finish_reason"),
        Just("completion_probabilities"),
        Just("stop_type"),
        Just("text"),
        Just("id"),
        Just("logprob"),
        Just("prompt_token_id_logprobs"),
        Just("832"),
        Just("completion_tokens"),
        Just("type"),
        Just("matched"),
        Just("usage"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-9.0..1.0).prop_map(Value::from),
        Just(json!("stop")),
        Just(json!("length")),
        Just(json!("token_id:5")),
        Just(json!("k05VTVBZAQD/")),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6)
                .prop_map(|entries| entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Value>()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// Any reply gives a value or an error, and one score per requested token.
    #[test]
    fn any_reply_is_read_or_refused(reply in any_json(), from in 1usize..9, top in 0usize..3, seen in 0usize..4) {
        for dialect in DIALECTS {
            for &scoring in dialect.facts().scorings {
                let forced = matches!(scoring, Scoring::Forced { .. });
                let list = if forced { &LIST[..=from.min(8)] } else { &LIST[..] };
                let request = ScoreRequest { list, ..score_request(from.min(8), top, scoring) };
                prop_assert!(dialect.score(&request).is_ok());
                if let Ok(Some(scores)) = dialect.parse_scores(&request, &reply) {
                    prop_assert!(scores.len() == list.len() - request.from);
                    prop_assert!(scores.iter().all(|scored| scored.logprob.unwrap() <= 0.0));
                }
            }
            let _ = dialect.parse_delta(&generate_request(&[1]), &reply, seen);
            let _ = (tokens(&reply), text(&reply));
        }
    }
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

#[test]
fn llama_server_alone_follows_dry() {
    let values = |texts: &[&str]| {
        let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
        let values = Values::default().with(&DRY_MULTIPLIER, 0.5).unwrap().with(&DRY_ALLOWED_LENGTH, 3usize).unwrap();
        values.with(&DRY_SEQUENCE_BREAKERS, texts).unwrap()
    };
    let body = |texts: &[&str]| {
        let request = GenerateRequest { sampling: Sampling::from_values(&values(texts)), ..generate_request(&[]) };
        LlamaServer.generate(&request).body
    };
    let (plain, asked) = (LlamaServer.generate(&generate_request(&[])).body, body(&["\n", "::"]));
    assert_eq!((&plain["dry_multiplier"], &plain["samplers"][1]), (&Value::Null, &json!("dry")));
    let fields = ["dry_multiplier", "dry_base", "dry_allowed_length", "dry_sequence_breakers"];
    assert_eq!(fields.map(|field| asked[field].clone()), [json!(0.5), json!(1.75), json!(3), json!(["\n", "::"])]);
    let request = generate_request(&[]);
    assert_eq!(asked["dry_penalty_last_n"], json!(request.list.len() + request.max_tokens), "all");
    assert_eq!(body(&[])["dry_sequence_breakers"].as_array().map(Vec::len), Some(1), "an empty list is refused");
    for dialect in DIALECTS {
        let ignores = dialect.facts().ignored_sampling.iter().any(|setting| setting.name == DRY_MULTIPLIER.name);
        assert_eq!(ignores, dialect.facts().scheme != "llama-server");
    }
}

#[test]
fn llama_server_alone_follows_the_filters() {
    let sampling = Sampling { typical_p: 0.5, top_n_sigma: 1.0, xtc_probability: 0.25, ..Sampling::default() };
    let request = generate_request(&[]);
    assert_eq!(LlamaServer.generate(&request).body["top_n_sigma"], -1.0, "off");
    let body = LlamaServer.generate(&GenerateRequest { sampling, ..request }).body;
    assert_eq!(
        (&body["typical_p"], &body["top_n_sigma"], &body["xtc_probability"]),
        (&json!(0.5), &json!(1.0), &json!(0.25))
    );
    for dialect in DIALECTS {
        let ignored: Vec<_> = dialect.facts().ignored_sampling.iter().map(|setting| setting.name).collect();
        assert!(ignored.contains(&"presence_penalty"), "an answer is several requests");
        assert_eq!(ignored.contains(&"typical_p"), dialect.facts().scheme != "llama-server");
    }
}
