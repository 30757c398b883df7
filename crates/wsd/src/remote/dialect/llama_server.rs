//! llama-server, of llama.cpp: the native `/completion`.
//!
//! It returns no scores of a prompt. If the user allows it, a base is scored by teacher forcing:
//! one request per token returns the top-k under the plain softmax, and the given token is looked
//! up there. If it is missing, k grows, up to the whole vocabulary. So the score is the server's
//! own, to the last digit that it prints.
//!
//! Streams lose the ids of tokens that are half a character and the scores of sampled ones, so a
//! continuation is a series of short whole replies; the prompt cache makes each one resume where
//! the last one ended.

use serde_json::{Value, json};
use wsd_core::{Dry, Sampled, Stop, Token};

use super::{
    Delta, Dialect, Facts, GenerateRequest, Misread, PENALTIES, Post, ScoreRequest, Scoring, array, logprob, seed,
    token, top_k,
};

/// Most tokens in one reply.
const SLICE: usize = 16;
/// Logit bias that forces the engine to emit a token.
const FORCED: f64 = 1000.0;
/// A text that no model writes: a code point that is no character.
const NO_TEXT: &str = "\u{10ffff}";
/// The k of the first top-k request.
const WIDTH: usize = 64;

const FACTS: Facts = Facts {
    scheme: "llama-server",
    name: "llama-server",
    owner: Some("llamacpp"),
    properties_path: Some("/props"),
    serves_one_model: true,
    exits_at_unknown_ids: false,
    scorings: &[Scoring::Forced { width: WIDTH, ascii_token: 0 }],
    rescores_from_start: false,
    streams: false,
    slice: SLICE,
    ignored_sampling: &PENALTIES,
};

#[derive(Debug)]
pub(super) struct LlamaServer;

impl Dialect for LlamaServer {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn score(&self, request: &ScoreRequest<'_>) -> Result<Post, Misread> {
        let Scoring::Forced { width, ascii_token } = request.scoring else {
            return Err(FACTS.unscored());
        };
        let body = json!({
            "prompt": request.list[..request.from], "n_predict": 1, "n_probs": width.max(request.top), "temperature": 0,
            "logit_bias": [[ascii_token, FORCED]], "cache_prompt": true,
        });
        Ok(Post { path: "/completion", body })
    }

    fn parse_scores(&self, request: &ScoreRequest<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        let Some(&wanted) = request.list.get(request.from) else { return Ok(Some(Vec::new())) };
        let rows = array(&reply["completion_probabilities"][0]["top_logprobs"], "top_logprobs")?;
        let row = |row: &Value| Ok((token(&row["id"])?, logprob(&row["logprob"], "a likely token")?));
        let rows = rows.iter().map(row).collect::<Result<Vec<_>, Misread>>()?;
        let own = rows.iter().find(|(id, _)| *id == wanted).map(|&(_, logprob)| logprob);
        let top = top_k(rows, request.top);
        Ok(own.map(|logprob| vec![Sampled { token: wanted, logprob: Some(logprob), top }]))
    }

    fn generate(&self, request: &GenerateRequest<'_>) -> Post {
        let sampling = &request.sampling;
        // It switches this filter off at a negative number.
        let top_n_sigma = if sampling.top_n_sigma > 0.0 { sampling.top_n_sigma } else { -1.0 };
        let mut body = json!({
            "prompt": request.list, "n_predict": request.max_tokens, "cache_prompt": true, "return_tokens": true,
            "n_probs": request.top.max(1), "temperature": sampling.temperature, "top_k": sampling.top_k,
            "top_p": sampling.top_p, "min_p": sampling.min_p, "typical_p": sampling.typical_p,
            "top_n_sigma": top_n_sigma, "xtc_probability": sampling.xtc_probability,
            "xtc_threshold": sampling.xtc_threshold,
            "repeat_last_n": request.list.len() + request.max_tokens,
            "repeat_penalty": sampling.repetition_penalty, "seed": seed(sampling) & u64::from(u32::MAX >> 1),
            "samplers": ["penalties", "dry", "top_n_sigma", "temperature", "top_k", "top_p", "min_p", "typ_p", "xtc"],
        });
        if sampling.dry.multiplier > 0.0 {
            let Dry { multiplier, base, allowed_length, penalty_last_n, breakers } = &sampling.dry;
            // It counts the prompt of a request, which is the list; it refuses an empty list of breakers.
            let breakers = if breakers.texts().is_empty() { json!([NO_TEXT]) } else { json!(breakers.texts()) };
            body["dry_multiplier"] = json!(multiplier);
            body["dry_base"] = json!(base);
            body["dry_allowed_length"] = json!(allowed_length);
            body["dry_penalty_last_n"] = json!((*penalty_last_n).min(request.list.len() + request.max_tokens));
            body["dry_sequence_breakers"] = breakers;
        }
        if !sampling.logit_bias.is_empty() {
            body["logit_bias"] = sampling.logit_bias.iter().map(|&(token, bias)| json!([token, bias])).collect();
        }
        Post { path: "/completion", body }
    }

    fn parse_delta(&self, request: &GenerateRequest<'_>, event: &Value, _seen: usize) -> Result<Delta, Misread> {
        let ids = array(&event["tokens"], "tokens")?.iter().map(token).collect::<Result<Vec<_>, _>>()?;
        // A token that is half a character has no row, so rows are matched by their ids.
        let mut rows = event["completion_probabilities"].as_array().into_iter().flatten().peekable();
        let mut tokens = Vec::with_capacity(ids.len());
        for id in ids {
            let row = rows.next_if(|row| row["id"].as_u64() == Some(u64::from(id)));
            let own = row.map(|row| logprob(&row["logprob"], &format!("token {id}"))).transpose()?;
            let others = row.and_then(|row| row["top_logprobs"].as_array()).into_iter().flatten();
            let others = others.map(|row| Ok((token(&row["id"])?, logprob(&row["logprob"], "a likely token")?)));
            tokens.push(Sampled {
                token: id,
                logprob: own,
                top: top_k(others.collect::<Result<_, Misread>>()?, request.top),
            });
        }
        let stop = match event["stop_type"].as_str() {
            Some("eos") => Stop::End,
            Some("limit") => Stop::Length,
            _ => return Err(format!("the server ended it: {}", event["stop_type"])),
        };
        let counted = event["tokens_predicted"].as_u64().map_or(tokens.len(), |counted| counted as usize);
        // The end token may be counted but left out of the list.
        if tokens.len() != counted && (stop, tokens.len() + 1) != (Stop::End, counted) {
            return Err(format!("it holds {} tokens, and counts {counted}", tokens.len()));
        }
        if stop == Stop::End && tokens.last().is_some_and(|last| request.end_tokens.contains(&last.token)) {
            tokens.pop();
        }
        Ok(Delta { tokens, text: None, stop: Some(stop) })
    }

    fn tokenize(&self, _model: &str, text: &str, begin: bool) -> Option<Post> {
        let body = json!({"content": text, "add_special": begin, "parse_special": true});
        Some(Post { path: "/tokenize", body })
    }

    fn detokenize(&self, _model: &str, tokens: &[Token]) -> Option<Post> {
        Some(Post { path: "/detokenize", body: json!({"tokens": tokens}) })
    }
}
