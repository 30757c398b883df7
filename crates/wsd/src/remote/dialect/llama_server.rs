//! llama-server, of llama.cpp: the native `/completion`.
//!
//! It gives no scores of a prompt. A base is therefore asked one token at a time, where the user wants that, for the likeliest
//! tokens at each position under the plain softmax, among which the given one is looked up; where it is not among them, more
//! are asked for, up to the whole vocabulary. So the score is the server's own, to the last bit that it prints.
//!
//! Streams lose the ids of tokens that are half a character, and scores of sampled ones, so continuations are whole replies of
//! few tokens each: its cache makes the next one go on where the last one ended.

use serde_json::{Value, json};
use wsd_core::{Sampled, Stop, Token};

use super::{Dialect, Facts, Misread, Piece, Post, ScoreAsk, Way, WriteAsk, array, likeliest, logprob, seed, token};

/// Tokens in one reply.
const SLICE: usize = 16;
/// The bias that makes the engine write a token.
const FORCED: f64 = 1000.0;
/// How many of the likeliest are asked for at first.
const WIDTH: usize = 64;

const FACTS: Facts = Facts {
    scheme: "llama-server",
    name: "llama-server",
    owner: Some("llamacpp"),
    ways: &[Way::Forced { width: WIDTH, harmless: 0 }],
    rescores_from_start: false,
    streams: false,
    slice: SLICE,
};

#[derive(Debug)]
pub(super) struct LlamaServer;

impl Dialect for LlamaServer {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn score(&self, ask: &ScoreAsk<'_>) -> Post {
        let Way::Forced { width, harmless } = ask.way else {
            return self.score(&ScoreAsk { way: FACTS.ways[0], ..*ask });
        };
        let body = json!({
            "prompt": ask.list[..ask.from], "n_predict": 1, "n_probs": width.max(ask.top), "temperature": 0,
            "logit_bias": [[harmless, FORCED]], "cache_prompt": true,
        });
        Post { path: "/completion", body }
    }

    fn scores(&self, ask: &ScoreAsk<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        let Some(&wanted) = ask.list.get(ask.from) else { return Ok(Some(Vec::new())) };
        let rows = array(&reply["completion_probabilities"][0]["top_logprobs"], "top_logprobs")?;
        let row = |row: &Value| Ok((token(&row["id"])?, logprob(&row["logprob"], "a likely token")?));
        let rows = rows.iter().map(row).collect::<Result<Vec<_>, Misread>>()?;
        let own = rows.iter().find(|(id, _)| *id == wanted).map(|&(_, logprob)| logprob);
        Ok(own.map(|logprob| vec![Sampled { token: wanted, logprob, top: likeliest(rows, ask.top) }]))
    }

    fn write(&self, ask: &WriteAsk<'_>) -> Post {
        let sampling = &ask.sampling;
        let body = json!({
            "prompt": ask.list, "n_predict": ask.max_tokens, "cache_prompt": true, "return_tokens": true,
            "n_probs": ask.top.max(1), "temperature": sampling.temperature, "top_k": sampling.top_k,
            "top_p": sampling.top_p, "min_p": sampling.min_p, "typical_p": 1.0, "repeat_last_n": ask.list.len() + ask.max_tokens,
            "repeat_penalty": sampling.repetition_penalty, "seed": seed(sampling) & u64::from(u32::MAX >> 1),
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
        });
        Post { path: "/completion", body }
    }

    fn piece(&self, ask: &WriteAsk<'_>, event: &Value, _seen: usize) -> Result<Piece, Misread> {
        let ids = array(&event["tokens"], "tokens")?.iter().map(token).collect::<Result<Vec<_>, _>>()?;
        // Half characters have no row of their own, so rows are matched by their ids.
        let mut rows = event["completion_probabilities"].as_array().into_iter().flatten().peekable();
        let mut tokens = Vec::with_capacity(ids.len());
        for id in ids {
            let row = rows.next_if(|row| row["id"].as_u64() == Some(u64::from(id)));
            let own = row.map_or(Ok(f64::NAN), |row| logprob(&row["logprob"], &format!("token {id}")))?;
            let others = row.and_then(|row| row["top_logprobs"].as_array()).into_iter().flatten();
            let others = others.map(|row| Ok((token(&row["id"])?, logprob(&row["logprob"], "a likely token")?)));
            tokens.push(Sampled {
                token: id,
                logprob: own,
                top: likeliest(others.collect::<Result<_, Misread>>()?, ask.top),
            });
        }
        let stop = match event["stop_type"].as_str() {
            Some("eos") => Stop::End,
            Some("limit") => Stop::Length,
            _ => return Err(format!("it was ended by the server: {}", event["stop_type"])),
        };
        let counted = event["tokens_predicted"].as_u64().map_or(tokens.len(), |counted| counted as usize);
        // The token that ends the text may be counted and left out.
        if tokens.len() != counted && (stop, tokens.len() + 1) != (Stop::End, counted) {
            return Err(format!("it holds {} tokens, and counts {counted}", tokens.len()));
        }
        if stop == Stop::End && tokens.last().is_some_and(|last| ask.end_tokens.contains(&last.token)) {
            tokens.pop();
        }
        Ok(Piece { tokens, text: None, stop: Some(stop) })
    }

    fn tokenize(&self, _model: &str, text: &str, begin: bool) -> Option<Post> {
        let body = json!({"content": text, "add_special": begin, "parse_special": true});
        Some(Post { path: "/tokenize", body })
    }

    fn detokenize(&self, _model: &str, tokens: &[Token]) -> Option<Post> {
        Some(Post { path: "/detokenize", body: json!({"tokens": tokens}) })
    }
}
