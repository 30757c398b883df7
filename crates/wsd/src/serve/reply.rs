//! Parts of replies that both protocols share: log-probabilities, authors, the hand-over.

use std::sync::Arc;

use axum::body::Bytes;
use serde_json::{Map, Value, json};
use wsd_core::{Completion, Engine, Event, Sampled, Timings, Token, TokenRecord, Trace};

use super::envelope::{Envelope, Usage};
use super::json_reply::JsonReply;
use super::request::GenerationRequest;

/// The least log-probability in a reply, because JSON has no minus infinity.
const LEAST_LOGPROB: f64 = -9999.0;

/// Returns a log-probability as JSON can hold it, at least [`LEAST_LOGPROB`].
pub(super) fn logprob(value: f64) -> f64 {
    value.max(LEAST_LOGPROB)
}

/// Returns the text of a token by itself, or the name of a special token.
pub(super) fn token_text(engine: &dyn Engine, token: Token) -> String {
    let (text, vocabulary) = (engine.codec(), engine.codec().tokenizer().vocabulary());
    let piece = || vocabulary.pieces.get(token as usize).cloned().flatten().unwrap_or_default();
    if vocabulary.is_special(token) {
        return piece();
    }
    // The token is decoded after another one, since decoders may drop the leading space of the first
    // token.
    let mut detokenizer = text.detokenizer(&[token]);
    let pushed = detokenizer.push(token).and_then(|text| Ok(text + &detokenizer.flush()?));
    pushed.unwrap_or_else(|_| piece())
}

/// Returns an entry of the `logprobs` of chat completions.
fn chat_token(engine: &dyn Engine, token: Token, value: f64) -> Value {
    let text = token_text(engine, token);
    let whole = (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| text.as_bytes().to_vec());
    let bytes = engine.codec().tokenizer().vocabulary().bytes(token).or(whole);
    json!({"token": text, "logprob": logprob(value), "bytes": bytes})
}

/// Returns the `logprobs` of chat completions.
pub(super) fn chat_logprobs(engine: &dyn Engine, tokens: &[TokenRecord]) -> Value {
    let content = tokens.iter().map(|record| {
        let mut entry = chat_token(engine, record.id, record.logprob.unwrap_or(LEAST_LOGPROB));
        entry["top_logprobs"] = record.top.iter().map(|&(id, value)| chat_token(engine, id, value)).collect();
        entry
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}

/// The `logprobs` of text completions, built token by token as JSON text.
#[derive(Clone)]
pub(super) struct TextLogprobs {
    engine: Arc<dyn Engine>,
    tokens: String,
    values: String,
    tops: String,
    /// The position of each token in the text, in characters.
    offsets: String,
    has_tops: bool,
}

impl TextLogprobs {
    /// An empty list. With `top` above 0, each token has its alternatives.
    pub(super) fn new(engine: Arc<dyn Engine>, top: usize) -> Self {
        let (tokens, values, tops, offsets) = Default::default();
        Self { engine, tokens, values, tops, offsets, has_tops: top > 0 }
    }

    /// Adds a token that begins at character `offset` of the text. `value` is its log-probability,
    /// which the first token of a list does not have; `top` are the most likely tokens there.
    pub(super) fn push(&mut self, token: Token, value: Option<f64>, top: &[(Token, f64)], offset: usize) {
        let engine = self.engine.as_ref();
        let text = token_text(engine, token);
        let mut alternatives = Map::new();
        let listed = top.iter().copied().chain(value.map(|value| (token, value)));
        for (id, value) in listed.filter(|_| self.has_tops) {
            alternatives.entry(token_text(engine, id)).or_insert_with(|| json!(logprob(value)));
        }
        let tops = if value.is_some() && self.has_tops { Value::Object(alternatives) } else { Value::Null };
        for (list, item) in [
            (&mut self.tokens, json!(text)),
            (&mut self.values, json!(value.map(logprob))),
            (&mut self.tops, tops),
            (&mut self.offsets, json!(offset)),
        ] {
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(&item.to_string());
        }
    }

    /// Adds a token of the prompt.
    pub(super) fn push_scored(&mut self, token: &Sampled, offset: usize) {
        self.push(token.token, token.logprob, &token.top, offset);
    }

    /// Adds a token of the answer.
    pub(super) fn push_record(&mut self, record: &TokenRecord, offset: usize) {
        self.push(record.id, record.logprob, &record.top, offset);
    }

    /// Returns the object as JSON text.
    pub(super) fn json(&self) -> String {
        let tops = if self.has_tops { format!("[{}]", self.tops) } else { "null".into() };
        format!(
            r#"{{"tokens":[{}],"token_logprobs":[{}],"top_logprobs":{tops},"text_offset":[{}]}}"#,
            self.tokens, self.values, self.offsets
        )
    }
}

/// Returns the author and the confidence of a token.
pub(super) fn token_details(record: &TokenRecord) -> Value {
    json!({
        "id": record.id, "text": record.text, "by": record.by, "confidence": record.confidence,
        "logprob": record.logprob.map(logprob),
    })
}

/// Returns the reply with all answers. `choice` makes the part of each that depends on the
/// protocol, and its log-probabilities if they are built apart.
pub(super) fn complete_reply(
    envelope: &Envelope,
    request: &GenerationRequest,
    answers: &[Completion],
    choice: impl Fn(usize, &Completion) -> (Value, Option<Bytes>),
) -> JsonReply {
    let (mut usage, mut first, mut reply) = (Usage::default(), Value::Null, JsonReply::new(envelope));
    for (index, answer) in answers.iter().enumerate() {
        usage.set_prompt(request.prompt_of(index), answer.usage.prompt_tokens);
        usage.set_cached(request.prompt_of(index), answer.timings.cached_tokens);
        usage.completion += answer.usage.completion_tokens;
        let (mut choice, logprobs) = choice(index, answer);
        if choice["finish_reason"].is_null() {
            choice["finish_reason"] = json!(answer.finish_reason.name());
        }
        choice["wsd"] = details(request, answer, index);
        reply.push(&choice, logprobs.as_ref());
        if index == 0 {
            first = choice["wsd"].clone();
        }
    }
    let timings = answers.first().map(timings).unwrap_or_default();
    reply.finish(&usage, &[("wsd", &first), ("timings", &timings)])
}

/// Returns the times of an answer in llama-server's form. The first token ends the prompt's part.
fn timings(answer: &Completion) -> Value {
    let (usage, &Timings { total, first_token, cached_tokens, .. }) = (&answer.usage, &answer.timings);
    let prompt = first_token.unwrap_or(total);
    let part = |tokens: usize, seconds: f64| {
        let each = if tokens > 0 { seconds * 1e3 / tokens as f64 } else { 0.0 };
        let rate = if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        (seconds * 1e3, each, rate)
    };
    let computed = usage.prompt_tokens.saturating_sub(cached_tokens);
    let written = usage.completion_tokens;
    let (prompt_ms, prompt_each, prompt_rate) = part(computed, prompt);
    let (written_ms, written_each, written_rate) = part(written, total - prompt);
    json!({
        "cache_n": cached_tokens,
        "prompt_n": computed, "prompt_ms": prompt_ms, "prompt_per_token_ms": prompt_each,
        "prompt_per_second": prompt_rate,
        "predicted_n": written, "predicted_ms": written_ms, "predicted_per_token_ms": written_each,
        "predicted_per_second": written_rate,
    })
}

/// Returns the `wsd` object of a complete answer.
pub(super) fn details(request: &GenerationRequest, answer: &Completion, index: usize) -> Value {
    let mut details = summary(request, answer, index);
    if request.token_details {
        details["tokens"] = answer.tokens.iter().map(token_details).collect();
    }
    details["timings"] = json!(answer.timings);
    details
}

/// Returns the hand-over, the tokens by author, the seed, and the end of a draft that came before any
/// switch.
fn summary(request: &GenerationRequest, answer: &Completion, index: usize) -> Value {
    let by = answer.usage.by_author.iter();
    let mut summary = json!({
        "strategy": request.model,
        "handover": answer.handover,
        "by": by.map(|(author, tokens)| (author.to_string(), json!(tokens))).collect::<Map<_, _>>(),
        "seed": request.seed(index).cast_signed(),
    });
    if let Some(end) = answer.draft_end {
        summary["draft_end"] = json!(end);
    }
    summary
}

/// The state of an answer in a stream.
#[derive(Clone)]
pub(super) struct Progress {
    trace: Trace,
    /// Number of characters of text that were sent.
    pub(super) characters: usize,
}

impl Progress {
    /// An answer that begins now.
    pub(super) fn begin() -> Self {
        Self { trace: Trace::sums(), characters: 0 }
    }

    /// Adds an event of the answer.
    pub(super) fn push(&mut self, event: &Event) {
        self.trace.push(event);
        if let Event::Token(token) = event {
            self.characters += token.text.chars().count();
        }
    }

    /// Returns the `wsd` object at the end of the answer.
    pub(super) fn summary(&self, request: &GenerationRequest, index: usize) -> Value {
        summary(request, self.trace.completion(), index)
    }

    /// Returns the times of the answer, after its end.
    pub(super) fn timings(&self) -> Value {
        timings(self.trace.completion())
    }
}
