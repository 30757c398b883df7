//! SGLang's requests and replies.

use super::*;

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
