//! vLLM: `/v1/completions` with token ids.
//!
//! A prompt's scores come from `prompt_logprobs: 0`. Such a request computes the prompt from its
//! start and leaves it in the prefix cache, where the continuation finds it. On a GPU,
//! `/inference/v1/generate` can score named rows and read the cache; it is used only where the
//! probe has shown that it returns the same scores.
//!
//! `skip_reading_prefix_cache: false` together with `prompt_logprobs` returns uninitialized memory
//! or makes the server exit, so no request has both.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use wsd_core::{Sampled, Stop, Token};

use super::{
    Delta, Dialect, Facts, GenerateRequest, Misread, PENALTIES_AND_FILTERS, Post, ScoreRequest, Scoring, array,
    logit_bias, logprob, seed, token, top_k,
};

const FACTS: Facts = Facts {
    scheme: "vllm",
    name: "vLLM",
    owner: Some("vllm"),
    properties_path: None,
    serves_one_model: false,
    exits_at_unknown_ids: false,
    scorings: &[Scoring::Prompt, Scoring::Rows],
    rescores_from_start: true,
    streams: true,
    slice: usize::MAX,
    ignored_sampling: &PENALTIES_AND_FILTERS,
};

#[derive(Debug)]
pub(super) struct Vllm;

impl Dialect for Vllm {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn score(&self, request: &ScoreRequest<'_>) -> Result<Post, Misread> {
        if request.scoring == Scoring::Rows && request.top == 0 {
            let rows: Vec<_> = request.list[request.from..].iter().map(|token| [token]).collect();
            let sampling = json!({
                "max_tokens": 1, "temperature": 0, "skip_reading_prefix_cache": false,
                "prompt_logprob_start": request.from - 1, "prompt_logprob_token_ids": rows,
            });
            let body = json!({"model": request.model, "token_ids": request.list, "sampling_params": sampling});
            return Ok(Post { path: "/inference/v1/generate", body });
        }
        let body = json!({
            "model": request.model, "prompt": request.list, "max_tokens": 1, "temperature": 0,
            "prompt_logprobs": request.top, "return_token_ids": true,
        });
        Ok(Post { path: "/v1/completions", body })
    }

    fn parse_scores(&self, request: &ScoreRequest<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        if request.scoring == Scoring::Rows && request.top == 0 {
            return match &reply["prompt_token_id_logprobs"] {
                // The prefix cache covers the first row, so it was not computed.
                Value::Null => Ok(None),
                rows => named_rows(rows, &request.list[request.from..]).map(Some),
            };
        }
        let rows = array(&reply["choices"][0]["prompt_logprobs"], "prompt_logprobs")?;
        if rows.len() != request.list.len() {
            return Err(format!("{} scores for {} tokens", rows.len(), request.list.len()));
        }
        let scored = request.list.iter().zip(rows).enumerate().skip(request.from);
        scored.map(|(i, (&token, row))| prompt_row(row, token, request.top, i)).collect::<Result<_, _>>().map(Some)
    }

    fn generate(&self, request: &GenerateRequest<'_>) -> Post {
        let sampling = &request.sampling;
        let mut body = json!({
            "model": request.model, "prompt": request.list, "max_tokens": request.max_tokens, "stream": true,
            "temperature": sampling.temperature, "top_k": top_k_or_all(sampling.top_k), "top_p": sampling.top_p,
            "min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty, "seed": seed(sampling),
            "stop_token_ids": request.end_tokens, "logprobs": request.top,
            "return_token_ids": true, "return_tokens_as_token_ids": true,
        });
        if let Some(bias) = logit_bias(sampling) {
            body["logit_bias"] = bias;
        }
        Post { path: "/v1/completions", body }
    }

    fn separate(&self, post: &mut Post, scope: u64) {
        post.body["cache_salt"] = format!("wsd-{scope:016x}").into();
    }

    fn parse_delta(&self, request: &GenerateRequest<'_>, event: &Value, _seen: usize) -> Result<Delta, Misread> {
        completion_delta(request, event)
    }

    fn tokenize(&self, model: &str, text: &str, begin: bool) -> Option<Post> {
        let body = json!({"model": model, "prompt": text, "add_special_tokens": begin});
        Some(Post { path: "/tokenize", body })
    }

    fn detokenize(&self, model: &str, tokens: &[Token]) -> Option<Post> {
        Some(Post { path: "/detokenize", body: json!({"model": model, "tokens": tokens}) })
    }
}

/// The `top_k` of a request: -1 means no limit in every version.
fn top_k_or_all(count: usize) -> i64 {
    match count {
        0 => -1,
        count => i64::try_from(count).unwrap_or(-1),
    }
}

/// Reads `{"832": {"logprob": -10.79, ...}, ...}`: the prompt's token and the likeliest ones.
fn prompt_row(row: &Value, token: Token, top: usize, position: usize) -> Result<Sampled, Misread> {
    let subject = format!("token {token} at position {position}");
    let row = row.as_object().ok_or_else(|| format!("there is no score for {subject}"))?;
    let own = row.get(&token.to_string()).ok_or_else(|| format!("the score for {subject} is of other tokens"))?;
    let entry = |(id, entry): (&String, &Value)| {
        let id = id.parse().map_err(|_| format!("`{id}` is not a token id"))?;
        Ok((id, logprob(&entry["logprob"], &subject)?))
    };
    let others = match top {
        0 => Vec::new(),
        top => top_k(row.iter().map(entry).collect::<Result<_, Misread>>()?, top),
    };
    Ok(Sampled { token, logprob: Some(logprob(&own["logprob"], &subject)?), top: others })
}

/// Reads a base64 `.npy` file of float32, one row for each token.
fn named_rows(rows: &Value, tokens: &[Token]) -> Result<Vec<Sampled>, Misread> {
    let bytes = rows.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let bytes = bytes.ok_or("the rows of scores are not base64")?;
    let values = npy_f32(&bytes).ok_or("the rows of scores are not a .npy file of float32")?;
    if values.len() != tokens.len() {
        return Err(format!("{} rows for {} tokens", values.len(), tokens.len()));
    }
    let scored = tokens.iter().zip(values);
    scored
        .map(|(&token, value)| {
            let logprob = logprob(&json!(value), &format!("token {token}"))?;
            Ok(Sampled { token, logprob: Some(logprob), top: Vec::new() })
        })
        .collect()
}

/// The values of a `.npy` file: magic, version, header length, header, data.
fn npy_f32(bytes: &[u8]) -> Option<Vec<f32>> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (version, rest) = rest.split_at_checked(2)?;
    let width = if version[0] == 1 { 2 } else { 4 };
    let (length, rest) = rest.split_at_checked(width)?;
    let length = length.iter().rev().fold(0, |length, &byte| (length << 8) | usize::from(byte));
    let (header, data) = rest.split_at_checked(length)?;
    let plain = String::from_utf8_lossy(header).contains("<f4");
    let (values, left) = data.as_chunks::<4>();
    (plain && left.is_empty()).then(|| values.iter().map(|&value| f32::from_le_bytes(value)).collect())
}

/// Reads an event of `/v1/completions`. The end token is part of the event, but not of the text.
pub(super) fn completion_delta(request: &GenerateRequest<'_>, event: &Value) -> Result<Delta, Misread> {
    let Some(choice) = event["choices"].get(0) else {
        // The last event holds the usage counts and no tokens.
        return if event["usage"].is_object() {
            Ok(Delta::default())
        } else {
            Err("there is no list `choices` in it".into())
        };
    };
    if let Some(prompt) = choice["prompt_token_ids"].as_array()
        && !prompt.iter().map(Value::as_u64).eq(request.list.iter().map(|&token| Some(u64::from(token))))
    {
        return Err("it continues another prompt than the one that was sent".into());
    }
    let stop = match &choice["finish_reason"] {
        Value::Null => None,
        reason if reason == "stop" => Some(Stop::End),
        reason if reason == "length" => Some(Stop::Length),
        reason => return Err(format!("the server ended it: {reason}")),
    };
    let mut tokens = sampled(choice, request.top)?;
    let matched = choice["stop_reason"].as_u64().or_else(|| choice["matched_stop"].as_u64());
    let ends = |token: Token| choice["stop_reason"].is_null() || matched == Some(u64::from(token));
    if stop == Some(Stop::End) && tokens.last().is_some_and(|last| ends(last.token)) {
        tokens.pop();
    }
    Ok(Delta { tokens, text: None, stop })
}

/// Reads the tokens of a choice with their log-probabilities, named by ids or as `token_id:832`.
fn sampled(choice: &Value, top: usize) -> Result<Vec<Sampled>, Misread> {
    let logprobs = &choice["logprobs"];
    let ids = match &choice["token_ids"] {
        Value::Array(ids) => ids.iter().map(token).collect::<Result<Vec<_>, _>>()?,
        _ => match &logprobs["tokens"] {
            Value::Array(names) => names.iter().map(named).collect::<Result<_, _>>()?,
            _ => return Err("the server names no token ids; vLLM does so from 0.10.2 on".into()),
        },
    };
    let values = logprobs["token_logprobs"].as_array().filter(|values| values.len() == ids.len());
    let one = |(i, token): (usize, Token)| {
        let own = match values {
            Some(values) => Some(logprob(&values[i], &format!("token {token}"))?),
            None => None,
        };
        let others = logprobs["top_logprobs"][i].as_object().filter(|_| top > 0);
        let others = others.map_or_else(|| Ok(Vec::new()), named_tops)?;
        Ok(Sampled { token, logprob: own, top: top_k(others, top) })
    };
    ids.into_iter().enumerate().map(one).collect()
}

fn named_tops(row: &Map<String, Value>) -> Result<Vec<(Token, f64)>, Misread> {
    row.iter().map(|(name, value)| Ok((named(&json!(name))?, logprob(value, name)?))).collect()
}

fn named(name: &Value) -> Result<Token, Misread> {
    let id = name.as_str().and_then(|name| name.strip_prefix("token_id:")?.parse().ok());
    id.ok_or_else(|| format!("the server names a token `{name}` where its id was asked for"))
}
