//! SGLang: its own `/generate`, which scores from a position on and reads the prefix cache up to there.
//!
//! A token id outside the vocabulary ends some versions of the server, so ids are checked before they are sent. Streams are
//! cumulative: each event repeats the answer so far, unless the server was told otherwise.

use serde_json::{Value, json};
use wsd_core::{Sampled, Stop, Token};

use super::{Dialect, Facts, Misread, Piece, Post, ScoreAsk, Way, WriteAsk, array, likeliest, logprob, seed, token};

/// A cumulative stream costs the square of its length, so long answers are asked for in parts.
const SLICE: usize = 256;

const FACTS: Facts = Facts {
    scheme: "sglang",
    name: "SGLang",
    owner: Some("sglang"),
    ways: &[Way::Prompt],
    rescores_from_start: false,
    streams: true,
    slice: SLICE,
};

#[derive(Debug)]
pub(super) struct SgLang;

impl Dialect for SgLang {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn score(&self, ask: &ScoreAsk<'_>) -> Post {
        // The first row asked for is always null: the position before the first that is wanted.
        let body = json!({
            "input_ids": ask.list, "sampling_params": {"max_new_tokens": 0, "temperature": 0}, "return_logprob": true,
            "logprob_start_len": ask.from - 1, "top_logprobs_num": ask.top,
        });
        Post { path: "/generate", body }
    }

    fn scores(&self, ask: &ScoreAsk<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        let (tokens, meta) = (&ask.list[ask.from..], &reply["meta_info"]);
        let rows = array(&meta["input_token_logprobs"], "input_token_logprobs")?;
        if rows.len() != tokens.len() + 1 {
            return Err(format!("{} scores for {} tokens", rows.len().saturating_sub(1), tokens.len()));
        }
        let row = |(i, &wanted): (usize, &Token)| {
            let (id, row) = (token(&rows[i + 1][1])?, &rows[i + 1]);
            if id != wanted {
                return Err(format!("a score for token {id} where {wanted} was sent"));
            }
            let own = logprob(&row[0], &format!("token {id} at position {}", ask.from + i))?;
            let others = tops(&meta["input_top_logprobs"][i + 1], ask.top)?;
            Ok(Sampled { token: id, logprob: own, top: others })
        };
        tokens.iter().enumerate().map(row).collect::<Result<_, _>>().map(Some)
    }

    fn write(&self, ask: &WriteAsk<'_>) -> Post {
        let sampling = &ask.sampling;
        let top_k = if sampling.top_k == 0 { json!(-1) } else { json!(sampling.top_k) };
        let parameters = json!({
            "max_new_tokens": ask.max_tokens, "temperature": sampling.temperature, "top_k": top_k,
            "top_p": sampling.top_p, "min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty,
            "sampling_seed": seed(sampling), "stop_token_ids": ask.end_tokens,
        });
        let body = json!({
            "input_ids": ask.list, "sampling_params": parameters, "return_logprob": true, "logprob_start_len": -1,
            "top_logprobs_num": ask.top, "stream": true,
        });
        Post { path: "/generate", body }
    }

    fn piece(&self, ask: &WriteAsk<'_>, event: &Value, seen: usize) -> Result<Piece, Misread> {
        let (ids, meta) = (array(&event["output_ids"], "output_ids")?, &event["meta_info"]);
        let reason = &meta["finish_reason"];
        let known = known(ids.len(), seen, meta["completion_tokens"].as_u64(), reason["matched"].is_u64())?;
        let logprobs = meta["output_token_logprobs"].as_array().map_or(&[][..], Vec::as_slice);
        let behind = ids.len().saturating_sub(logprobs.len());
        let one = |i: usize| {
            let token = token(&ids[i])?;
            let row = i.checked_sub(behind).and_then(|i| logprobs.get(i));
            let own = row.map_or(Ok(f64::NAN), |row| logprob(&row[0], &format!("token {token}")))?;
            let others = i.checked_sub(behind).map_or(&Value::Null, |i| &meta["output_top_logprobs"][i]);
            Ok(Sampled { token, logprob: own, top: tops(others, ask.top)? })
        };
        let mut tokens = (known..ids.len()).map(one).collect::<Result<Vec<_>, Misread>>()?;
        let stop = match reason["type"].as_str() {
            None => None,
            Some("stop") => Some(Stop::End),
            Some("length") => Some(Stop::Length),
            Some(_) => return Err(format!("it was ended by the server: {reason}")),
        };
        let matched = reason["matched"].as_u64();
        if stop == Some(Stop::End) && tokens.last().is_some_and(|last| matched == Some(u64::from(last.token))) {
            tokens.pop();
        }
        Ok(Piece { tokens, text: None, stop })
    }

    fn tokenize(&self, model: &str, text: &str, begin: bool) -> Option<Post> {
        let body = json!({"model": model, "prompt": text, "add_special_tokens": begin});
        Some(Post { path: "/tokenize", body })
    }

    fn detokenize(&self, model: &str, tokens: &[Token]) -> Option<Post> {
        let body = json!({"model": model, "tokens": tokens, "skip_special_tokens": true});
        Some(Post { path: "/detokenize", body })
    }
}

/// How many of an event's tokens were seen before: all that were, where it holds the whole answer so far; none, where it holds
/// only what is new. The count beside them tells which. A token that ends the text may be counted and left out.
fn known(held: usize, seen: usize, counted: Option<u64>, ends: bool) -> Result<usize, Misread> {
    let counted = counted.map_or(held, |counted| counted as usize);
    let are = |tokens: usize| tokens == counted || (ends && tokens + 1 == counted);
    match (held >= seen && are(held), are(seen + held)) {
        (true, _) => Ok(seen),
        (_, true) => Ok(0),
        _ => Err(format!("it holds {held} tokens after {seen}, and counts {counted}")),
    }
}

/// `[[logprob, id, text], ...]`.
fn tops(rows: &Value, count: usize) -> Result<Vec<(Token, f64)>, Misread> {
    let rows = rows.as_array().filter(|_| count > 0).map_or(&[][..], Vec::as_slice);
    let all = rows.iter().map(|row| Ok((token(&row[1])?, logprob(&row[0], "a likely token")?)));
    Ok(likeliest(all.collect::<Result<_, Misread>>()?, count))
}
