//! Any other service with OpenAI's `/v1/completions`.
//!
//! A draft needs only to continue a prompt. A base needs `echo` with `logprobs`, which many services take and ignore, so they are
//! believed only when the reply proves it. Where a service names no token ids, its text is encoded here.

use serde_json::{Value, json};
use wsd_core::{Sampled, Stop, Token};

use super::vllm::completion_piece;
use super::{Dialect, Facts, Misread, Piece, Post, ScoreAsk, Way, WriteAsk, array, logprob, seed};

/// Tokens in one reply where it is not known how long a reply may be.
const SLICE: usize = 64;

const FACTS: Facts = Facts {
    scheme: "openai",
    name: "OpenAI-like service",
    owner: None,
    ways: &[Way::Prompt],
    rescores_from_start: true,
    streams: false,
    slice: SLICE,
};

#[derive(Debug)]
pub(super) struct OpenAi;

impl Dialect for OpenAi {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn score(&self, ask: &ScoreAsk<'_>) -> Post {
        // Some services want at least one new token.
        let body = json!({
            "model": ask.model, "prompt": ask.list, "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 1,
            "return_tokens_as_token_ids": true,
        });
        Post { path: "/v1/completions", body }
    }

    fn scores(&self, ask: &ScoreAsk<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        let logprobs = &reply["choices"][0]["logprobs"];
        let values = array(&logprobs["token_logprobs"], "token_logprobs")?;
        let count = ask.list.len();
        // The prompt, and the new token where there is one.
        if values.len() != count && values.len() != count + 1 {
            return Err(format!("{} scores for {count} tokens: the service does not echo the prompt", values.len()));
        }
        if !values[0].is_null() {
            return Err("the first token has a score: the service does not echo the prompt".into());
        }
        for (name, &token) in logprobs["tokens"].as_array().into_iter().flatten().zip(ask.list) {
            let id = name.as_str().and_then(|name| name.strip_prefix("token_id:")?.parse::<Token>().ok());
            if id.is_some_and(|id| id != token) {
                return Err(format!("a score for `{name}` where token {token} was sent"));
            }
        }
        let scored = ask.list.iter().zip(values).enumerate().skip(ask.from);
        let one = |(i, (&token, value))| {
            let logprob = logprob(value, &format!("token {token} at position {i}"))?;
            Ok(Sampled { token, logprob, top: Vec::new() })
        };
        scored.map(one).collect::<Result<_, _>>().map(Some)
    }

    fn write(&self, ask: &WriteAsk<'_>) -> Post {
        let sampling = &ask.sampling;
        let mut body = json!({
            "model": ask.model, "prompt": ask.list, "max_tokens": ask.max_tokens, "temperature": sampling.temperature,
            "top_p": sampling.top_p, "seed": seed(sampling),
        });
        // Services refuse fields that they do not know: what is not in OpenAI's own list is sent only where it says something.
        if sampling.top_k > 0 {
            body["top_k"] = json!(sampling.top_k);
        }
        if sampling.min_p > 0.0 {
            body["min_p"] = json!(sampling.min_p);
        }
        if sampling.repetition_penalty != 1.0 {
            body["repetition_penalty"] = json!(sampling.repetition_penalty);
        }
        Post { path: "/v1/completions", body }
    }

    fn piece(&self, ask: &WriteAsk<'_>, event: &Value, _seen: usize) -> Result<Piece, Misread> {
        let choice = &event["choices"][0];
        if choice["token_ids"].is_array() {
            return completion_piece(ask, event);
        }
        let text = choice["text"].as_str().ok_or("there is no text in it")?.to_owned();
        let stop = match choice["finish_reason"].as_str() {
            Some("length") => Stop::Length,
            Some("stop") => Stop::End,
            _ => return Err(format!("it was ended by the server: {}", choice["finish_reason"])),
        };
        Ok(Piece { tokens: Vec::new(), text: Some(text), stop: Some(stop) })
    }

    fn tokenize(&self, _model: &str, _text: &str, _begin: bool) -> Option<Post> {
        None
    }

    fn detokenize(&self, _model: &str, _tokens: &[Token]) -> Option<Post> {
        None
    }
}
