//! vLLM: `/v1/completions` with token ids.
//!
//! A prompt's scores come from `prompt_logprobs: 0`. Such a request computes the prompt from its beginning, and leaves it in the
//! prefix cache, where the continuation finds it. On a GPU, `/inference/v1/generate` can score named rows and read the cache; it
//! is used only where the server proves at start that it answers the same.
//!
//! `skip_reading_prefix_cache: false` together with `prompt_logprobs` returns uninitialised memory or ends the server, so the
//! two never meet in one request.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use wsd_core::{Sampled, Stop, Token};

use super::{Dialect, Facts, Misread, Piece, Post, ScoreAsk, Way, WriteAsk, array, likeliest, logprob, seed, token};

const FACTS: Facts = Facts {
    scheme: "vllm",
    name: "vLLM",
    owner: Some("vllm"),
    ways: &[Way::Prompt, Way::Rows],
    rescores_from_start: true,
    streams: true,
    slice: usize::MAX,
};

#[derive(Debug)]
pub(super) struct Vllm;

impl Dialect for Vllm {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn score(&self, ask: &ScoreAsk<'_>) -> Post {
        if ask.way == Way::Rows && ask.top == 0 {
            let rows: Vec<_> = ask.list[ask.from..].iter().map(|token| [token]).collect();
            let sampling = json!({
                "max_tokens": 1, "temperature": 0, "skip_reading_prefix_cache": false,
                "prompt_logprob_start": ask.from - 1, "prompt_logprob_token_ids": rows,
            });
            let body = json!({"model": ask.model, "token_ids": ask.list, "sampling_params": sampling});
            return Post { path: "/inference/v1/generate", body };
        }
        let body = json!({
            "model": ask.model, "prompt": ask.list, "max_tokens": 1, "temperature": 0, "prompt_logprobs": ask.top,
            "return_token_ids": true,
        });
        Post { path: "/v1/completions", body }
    }

    fn scores(&self, ask: &ScoreAsk<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        if ask.way == Way::Rows && ask.top == 0 {
            return match &reply["prompt_token_id_logprobs"] {
                // The cache reaches beyond the first row.
                Value::Null => Ok(None),
                rows => named_rows(rows, &ask.list[ask.from..]).map(Some),
            };
        }
        let rows = array(&reply["choices"][0]["prompt_logprobs"], "prompt_logprobs")?;
        if rows.len() != ask.list.len() {
            return Err(format!("{} scores for {} tokens", rows.len(), ask.list.len()));
        }
        let scored = ask.list.iter().zip(rows).enumerate().skip(ask.from);
        scored.map(|(i, (&token, row))| prompt_row(row, token, ask.top, i)).collect::<Result<_, _>>().map(Some)
    }

    fn write(&self, ask: &WriteAsk<'_>) -> Post {
        let sampling = &ask.sampling;
        let body = json!({
            "model": ask.model, "prompt": ask.list, "max_tokens": ask.max_tokens, "stream": true,
            "temperature": sampling.temperature, "top_k": top_k(sampling.top_k), "top_p": sampling.top_p,
            "min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty, "seed": seed(sampling),
            "stop_token_ids": ask.end_tokens, "logprobs": ask.top,
            "return_token_ids": true, "return_tokens_as_token_ids": true,
        });
        Post { path: "/v1/completions", body }
    }

    fn piece(&self, ask: &WriteAsk<'_>, event: &Value, _seen: usize) -> Result<Piece, Misread> {
        completion_piece(ask, event)
    }

    fn tokenize(&self, model: &str, text: &str, begin: bool) -> Option<Post> {
        let body = json!({"model": model, "prompt": text, "add_special_tokens": begin});
        Some(Post { path: "/tokenize", body })
    }

    fn detokenize(&self, model: &str, tokens: &[Token]) -> Option<Post> {
        Some(Post { path: "/detokenize", body: json!({"model": model, "tokens": tokens}) })
    }
}

/// No limit is -1 to every version.
fn top_k(count: usize) -> i64 {
    match count {
        0 => -1,
        count => i64::try_from(count).unwrap_or(-1),
    }
}

/// `{"832": {"logprob": -10.79, ...}, ...}`: the prompt's token, and the likeliest.
fn prompt_row(row: &Value, token: Token, top: usize, position: usize) -> Result<Sampled, Misread> {
    let what = format!("token {token} at position {position}");
    let row = row.as_object().ok_or_else(|| format!("there is no score for {what}"))?;
    let own = row.get(&token.to_string()).ok_or_else(|| format!("the score for {what} is of other tokens"))?;
    let entry = |(id, entry): (&String, &Value)| {
        let id = id.parse().map_err(|_| format!("`{id}` is no token id"))?;
        Ok((id, logprob(&entry["logprob"], &what)?))
    };
    let others = match top {
        0 => Vec::new(),
        top => likeliest(row.iter().map(entry).collect::<Result<_, Misread>>()?, top),
    };
    Ok(Sampled { token, logprob: logprob(&own["logprob"], &what)?, top: others })
}

/// Base64 of a `.npy` file of float32, one row for each token.
fn named_rows(rows: &Value, tokens: &[Token]) -> Result<Vec<Sampled>, Misread> {
    let bytes = rows.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let bytes = bytes.ok_or("the rows of scores are not base64")?;
    let values = npy_f32(&bytes).ok_or("the rows of scores are no .npy file of float32")?;
    if values.len() != tokens.len() {
        return Err(format!("{} rows for {} tokens", values.len(), tokens.len()));
    }
    let scored = tokens.iter().zip(values);
    scored
        .map(|(&token, value)| {
            let logprob = logprob(&json!(value), &format!("token {token}"))?;
            Ok(Sampled { token, logprob, top: Vec::new() })
        })
        .collect()
}

/// The values of a `.npy` file: magic, version, length of the header, header, data.
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

/// An event of `/v1/completions`. The token that ends the text is in it, and is not a token of the text.
pub(super) fn completion_piece(ask: &WriteAsk<'_>, event: &Value) -> Result<Piece, Misread> {
    let Some(choice) = event["choices"].get(0) else {
        // The last event counts tokens and holds none.
        return if event["usage"].is_object() {
            Ok(Piece::default())
        } else {
            Err("there is no list `choices` in it".into())
        };
    };
    if let Some(prompt) = choice["prompt_token_ids"].as_array()
        && !prompt.iter().map(Value::as_u64).eq(ask.list.iter().map(|&token| Some(u64::from(token))))
    {
        return Err("it continues another prompt than the one that was sent".into());
    }
    let stop = match &choice["finish_reason"] {
        Value::Null => None,
        reason if reason == "stop" => Some(Stop::End),
        reason if reason == "length" => Some(Stop::Length),
        reason => return Err(format!("it was ended by the server: {reason}")),
    };
    let mut tokens = sampled(choice, ask.top)?;
    let matched = choice["stop_reason"].as_u64().or_else(|| choice["matched_stop"].as_u64());
    let ends = |token: Token| choice["stop_reason"].is_null() || matched == Some(u64::from(token));
    if stop == Some(Stop::End) && tokens.last().is_some_and(|last| ends(last.token)) {
        tokens.pop();
    }
    Ok(Piece { tokens, text: None, stop })
}

/// The tokens of a choice with their log-probabilities, as ids or as names such as `token_id:832`.
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
            Some(values) => logprob(&values[i], &format!("token {token}"))?,
            None => f64::NAN,
        };
        let others = logprobs["top_logprobs"][i].as_object().filter(|_| top > 0);
        let others = others.map_or_else(|| Ok(Vec::new()), named_tops)?;
        Ok(Sampled { token, logprob: own, top: likeliest(others, top) })
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
