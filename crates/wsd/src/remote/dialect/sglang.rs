//! SGLang: its own `/generate`, which scores from a position on and reads the prefix cache up to
//! it.
//!
//! Some versions of the server exit at a token id outside the vocabulary, so ids are checked before
//! they are sent. Streams are cumulative: each event repeats the answer so far, unless the server
//! was started with incremental streaming.

use serde_json::{Value, json};
use wsd_core::{Sampled, Stop, Token};

use super::{
    Delta, Dialect, Facts, GenerateRequest, Misread, PENALTIES_AND_FILTERS, Post, ScoreRequest, Scoring, array,
    logit_bias, logprob, seed, token, top_k,
};

/// Most tokens in one continuation: a cumulative stream costs the square of its length.
const SLICE: usize = 256;

const FACTS: Facts = Facts {
    scheme: "sglang",
    name: "SGLang",
    owner: Some("sglang"),
    properties_path: None,
    serves_one_model: false,
    exits_at_unknown_ids: true,
    scorings: &[Scoring::Prompt],
    rescores_from_start: false,
    streams: true,
    slice: SLICE,
    ignored_sampling: &PENALTIES_AND_FILTERS,
};

#[derive(Debug)]
pub(super) struct SgLang;

impl Dialect for SgLang {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn score(&self, request: &ScoreRequest<'_>) -> Result<Post, Misread> {
        // The first row returned is always null, so ask from one position earlier.
        let body = json!({
            "input_ids": request.list, "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": true, "logprob_start_len": request.from - 1, "top_logprobs_num": request.top,
        });
        Ok(Post { path: "/generate", body })
    }

    fn parse_scores(&self, request: &ScoreRequest<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        let (tokens, meta) = (&request.list[request.from..], &reply["meta_info"]);
        let rows = array(&meta["input_token_logprobs"], "input_token_logprobs")?;
        if rows.len() != tokens.len() + 1 {
            return Err(format!("{} scores for {} tokens", rows.len().saturating_sub(1), tokens.len()));
        }
        let row = |(i, &wanted): (usize, &Token)| {
            let (id, row) = (token(&rows[i + 1][1])?, &rows[i + 1]);
            if id != wanted {
                return Err(format!("a score for token {id} where {wanted} was sent"));
            }
            let own = logprob(&row[0], &format!("token {id} at position {}", request.from + i))?;
            let others = tops(&meta["input_top_logprobs"][i + 1], request.top)?;
            Ok(Sampled { token: id, logprob: Some(own), top: others })
        };
        tokens.iter().enumerate().map(row).collect::<Result<_, _>>().map(Some)
    }

    fn generate(&self, request: &GenerateRequest<'_>) -> Post {
        let sampling = &request.sampling;
        let top_k = if sampling.top_k == 0 { json!(-1) } else { json!(sampling.top_k) };
        let mut parameters = json!({
            "max_new_tokens": request.max_tokens, "temperature": sampling.temperature, "top_k": top_k,
            "top_p": sampling.top_p, "min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty,
            "sampling_seed": seed(sampling), "stop_token_ids": request.end_tokens,
        });
        if let Some(bias) = logit_bias(sampling) {
            parameters["logit_bias"] = bias;
        }
        let body = json!({
            "input_ids": request.list, "sampling_params": parameters, "return_logprob": true, "logprob_start_len": -1,
            "top_logprobs_num": request.top, "stream": true,
        });
        Post { path: "/generate", body }
    }

    fn parse_delta(&self, request: &GenerateRequest<'_>, event: &Value, seen: usize) -> Result<Delta, Misread> {
        let (ids, meta) = (array(&event["output_ids"], "output_ids")?, &event["meta_info"]);
        let reason = &meta["finish_reason"];
        let known = known(ids.len(), seen, meta["completion_tokens"].as_u64(), reason["matched"].is_u64())?;
        let logprobs = meta["output_token_logprobs"].as_array().map_or(&[][..], Vec::as_slice);
        let behind = ids.len().saturating_sub(logprobs.len());
        let one = |i: usize| {
            let token = token(&ids[i])?;
            let row = i.checked_sub(behind).and_then(|i| logprobs.get(i));
            let own = row.map(|row| logprob(&row[0], &format!("token {token}"))).transpose()?;
            let others = i.checked_sub(behind).map_or(&Value::Null, |i| &meta["output_top_logprobs"][i]);
            Ok(Sampled { token, logprob: own, top: tops(others, request.top)? })
        };
        let mut tokens = (known..ids.len()).map(one).collect::<Result<Vec<_>, Misread>>()?;
        let stop = match reason["type"].as_str() {
            None => None,
            Some("stop") => Some(Stop::End),
            Some("length") => Some(Stop::Length),
            Some(_) => return Err(format!("the server ended it: {reason}")),
        };
        let matched = reason["matched"].as_u64();
        if stop == Some(Stop::End) && tokens.last().is_some_and(|last| matched == Some(u64::from(last.token))) {
            tokens.pop();
        }
        Ok(Delta { tokens, text: None, stop })
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

/// The number of an event's tokens that earlier events held: `seen` in a cumulative stream, 0 in an
/// incremental one. The server's total count tells the two apart; it may include an end token that
/// the list omits.
fn known(held: usize, seen: usize, counted: Option<u64>, ends: bool) -> Result<usize, Misread> {
    let counted = counted.map_or(held, |counted| counted as usize);
    let is_total = |tokens: usize| tokens == counted || (ends && tokens + 1 == counted);
    if held >= seen && is_total(held) {
        Ok(seen)
    } else if is_total(seen + held) {
        Ok(0)
    } else {
        Err(format!("it holds {held} tokens after {seen}, and counts {counted}"))
    }
}

/// Reads the alternatives `[[logprob, id, text], ...]`.
fn tops(rows: &Value, count: usize) -> Result<Vec<(Token, f64)>, Misread> {
    let rows = rows.as_array().filter(|_| count > 0).map_or(&[][..], Vec::as_slice);
    let all = rows.iter().map(|row| Ok((token(&row[1])?, logprob(&row[0], "a likely token")?)));
    Ok(top_k(all.collect::<Result<_, Misread>>()?, count))
}
