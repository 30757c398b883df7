//! vLLM's requests and replies.

use super::*;

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
