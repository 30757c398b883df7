//! Replies of any shape.

use proptest::prelude::*;

use super::*;

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
