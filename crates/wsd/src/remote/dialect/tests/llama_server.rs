//! Requests and replies of llama-server.

use wsd_core::{DRY_ALLOWED_LENGTH, DRY_MULTIPLIER, DRY_SEQUENCE_BREAKERS, Values};

use super::*;

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
