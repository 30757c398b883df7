//! Any other service with OpenAI's `/v1/completions`.
//!
//! A draft needs only to continue a prompt. A base needs `echo` with `logprobs`, which many
//! services accept and ignore, so every reply is checked for the echo. Where a service names no
//! token ids, its text is encoded here.

use serde_json::{Value, json};
use wsd_core::{Sampled, Stop, Token};

use super::vllm::completion_delta;
use super::{
    Delta, Dialect, Facts, GenerateRequest, Misread, PENALTIES_AND_FILTERS, Post, ScoreRequest, Scoring, array,
    logit_bias, logprob, seed,
};

/// Most tokens in one reply, since a service's own limit is not known.
const SLICE: usize = 64;

const FACTS: Facts = Facts {
    scheme: "openai",
    name: "OpenAI-like service",
    owner: None,
    properties_path: None,
    serves_one_model: false,
    exits_at_unknown_ids: false,
    scorings: &[Scoring::Prompt],
    rescores_from_start: true,
    streams: false,
    slice: SLICE,
    ignored_sampling: &PENALTIES_AND_FILTERS,
};

#[derive(Debug)]
pub(super) struct OpenAi;

impl Dialect for OpenAi {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn score(&self, request: &ScoreRequest<'_>) -> Result<Post, Misread> {
        // Some services require at least one new token.
        let body = json!({
            "model": request.model, "prompt": request.list, "max_tokens": 1, "temperature": 0, "echo": true,
            "logprobs": 1,
            "return_tokens_as_token_ids": true,
        });
        Ok(Post { path: "/v1/completions", body })
    }

    fn parse_scores(&self, request: &ScoreRequest<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        let logprobs = &reply["choices"][0]["logprobs"];
        let values = array(&logprobs["token_logprobs"], "token_logprobs")?;
        let count = request.list.len();
        // One for each prompt token, and one for the new token if there is one.
        if values.len() != count && values.len() != count + 1 {
            return Err(format!("{} scores for {count} tokens: the service does not echo the prompt", values.len()));
        }
        if !values[0].is_null() {
            return Err("the first token has a score: the service does not echo the prompt".into());
        }
        for (name, &token) in logprobs["tokens"].as_array().into_iter().flatten().zip(request.list) {
            let id = name.as_str().and_then(|name| name.strip_prefix("token_id:")?.parse::<Token>().ok());
            if id.is_some_and(|id| id != token) {
                return Err(format!("a score for `{name}` where token {token} was sent"));
            }
        }
        let scored = request.list.iter().zip(values).enumerate().skip(request.from);
        let one = |(i, (&token, value))| {
            let logprob = logprob(value, &format!("token {token} at position {i}"))?;
            Ok(Sampled { token, logprob: Some(logprob), top: Vec::new() })
        };
        scored.map(one).collect::<Result<_, _>>().map(Some)
    }

    fn generate(&self, request: &GenerateRequest<'_>) -> Post {
        let sampling = &request.sampling;
        let mut body = json!({
            "model": request.model, "prompt": request.list, "max_tokens": request.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p, "seed": seed(sampling),
        });
        // Services refuse unknown fields: those outside OpenAI's own list are sent only where they
        // have an effect.
        if sampling.top_k > 0 {
            body["top_k"] = json!(sampling.top_k);
        }
        if sampling.min_p > 0.0 {
            body["min_p"] = json!(sampling.min_p);
        }
        if sampling.repetition_penalty != 1.0 {
            body["repetition_penalty"] = json!(sampling.repetition_penalty);
        }
        if let Some(bias) = logit_bias(sampling) {
            body["logit_bias"] = bias;
        }
        Post { path: "/v1/completions", body }
    }

    fn parse_delta(&self, request: &GenerateRequest<'_>, event: &Value, _seen: usize) -> Result<Delta, Misread> {
        let choice = &event["choices"][0];
        if choice["token_ids"].is_array() {
            return completion_delta(request, event);
        }
        let text = choice["text"].as_str().ok_or("there is no text in it")?.to_owned();
        let stop = match choice["finish_reason"].as_str() {
            Some("length") => Stop::Length,
            Some("stop") => Stop::End,
            _ => return Err(format!("the server ended it: {}", choice["finish_reason"])),
        };
        Ok(Delta { tokens: Vec::new(), text: Some(text), stop: Some(stop) })
    }
}
