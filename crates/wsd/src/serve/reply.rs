//! What both protocols say of an answer, besides its text.

use serde_json::{Map, Value, json};
use wsd_core::{Completion, Engine, Event, Handover, Sampled, Token, TokenRecord, TokensByAuthor};

use super::decoding::finish_reason;
use super::request::Ask;
use super::sse::Envelope;

/// The least log-probability that is written; JSON has no minus infinity.
const LEAST_LOGPROB: f64 = -9999.0;

/// A log-probability as it is written.
pub(super) fn logprob(value: f64) -> f64 {
    value.max(LEAST_LOGPROB)
}

/// A token's own text, whatever stands around it; the name of a special one.
pub(super) fn spell(engine: &dyn Engine, token: Token) -> String {
    let (text, vocabulary) = (engine.codec(), engine.codec().tokenizer().vocabulary());
    let piece = || vocabulary.pieces.get(token as usize).cloned().flatten().unwrap_or_default();
    if vocabulary.is_special(token) {
        return piece();
    }
    // What it adds after itself: a decoder may swallow the space of a first token.
    let mut detokenizer = text.detokenizer(&[token]);
    let pushed = detokenizer.push(token).and_then(|text| Ok(text + &detokenizer.flush()?));
    pushed.unwrap_or_else(|_| piece())
}

/// A token as chat completions write it among log-probabilities.
fn chat_token(engine: &dyn Engine, token: Token, value: f64) -> Value {
    let text = spell(engine, token);
    let bytes = (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| text.as_bytes().to_vec());
    json!({"token": text, "logprob": logprob(value), "bytes": bytes})
}

/// `logprobs` of chat completions.
pub(super) fn chat_logprobs(engine: &dyn Engine, tokens: &[TokenRecord]) -> Value {
    let content = tokens.iter().map(|record| {
        let mut entry = chat_token(engine, record.id, record.logprob.unwrap_or(LEAST_LOGPROB));
        entry["top_logprobs"] = record.top.iter().map(|&(id, value)| chat_token(engine, id, value)).collect();
        entry
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}

/// `logprobs` of text completions, token by token.
pub(super) struct TextLogprobs<'a> {
    engine: &'a dyn Engine,
    tokens: Vec<String>,
    values: Vec<Option<f64>>,
    tops: Vec<Value>,
    offsets: Vec<usize>,
    with_tops: bool,
}

impl<'a> TextLogprobs<'a> {
    pub(super) fn new(engine: &'a dyn Engine, top: usize) -> Self {
        let empty = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (tokens, values, tops, offsets) = empty;
        Self { engine, tokens, values, tops, offsets, with_tops: top > 0 }
    }

    /// A token at this place of the text; the first of a list has no probability.
    pub(super) fn push(&mut self, token: Token, value: Option<f64>, top: &[(Token, f64)], offset: usize) {
        self.tokens.push(spell(self.engine, token));
        self.values.push(value.map(logprob));
        let mut named = Map::new();
        for (id, value) in top.iter().copied().chain(value.map(|value| (token, value))) {
            named.entry(spell(self.engine, id)).or_insert_with(|| json!(logprob(value)));
        }
        self.tops.push(if value.is_some() && self.with_tops { Value::Object(named) } else { Value::Null });
        self.offsets.push(offset);
    }

    pub(super) fn scored(&mut self, token: &Sampled, offset: usize) {
        self.push(token.token, token.logprob, &token.top, offset);
    }

    pub(super) fn record(&mut self, record: &TokenRecord, offset: usize) {
        self.push(record.id, record.logprob, &record.top, offset);
    }

    pub(super) fn json(self) -> Value {
        let tops = if self.with_tops { Value::Array(self.tops) } else { Value::Null };
        json!({
            "tokens": self.tokens, "token_logprobs": self.values, "top_logprobs": tops, "text_offset": self.offsets,
        })
    }
}

/// Author and confidence of a token.
pub(super) fn token_details(record: &TokenRecord) -> Value {
    json!({
        "id": record.id, "text": record.text, "by": record.by, "confidence": record.confidence,
        "logprob": record.logprob.map(logprob),
    })
}

/// The reply with all answers. `choice` makes of each what the two protocols spell differently.
pub(super) fn whole(
    envelope: &Envelope,
    ask: &Ask,
    answers: &[Completion],
    choice: impl Fn(usize, &Completion) -> Value,
) -> Value {
    let mut count = Count::default();
    let choices = answers.iter().enumerate().map(|(index, answer)| {
        count.prompt(index / ask.n, answer.usage.prompt_tokens);
        count.completion += answer.usage.completion_tokens;
        let mut choice = choice(index, answer);
        choice["finish_reason"] = json!(finish_reason(answer.finish_reason));
        choice["wsd"] = details(ask, answer, index);
        choice
    });
    let choices: Vec<_> = choices.collect();
    let first = choices.first().map_or(Value::Null, |choice| choice["wsd"].clone());
    let mut reply = envelope.json(choices, &count);
    reply["wsd"] = first;
    reply
}

/// How a whole answer came about.
fn details(ask: &Ask, answer: &Completion, index: usize) -> Value {
    let mut details = summary(ask, answer.handover, &answer.usage.by_author, index);
    if ask.details {
        details["tokens"] = answer.tokens.iter().map(token_details).collect();
    }
    details["timings"] = json!(answer.timings);
    details
}

/// The switch and who wrote how much.
fn summary(ask: &Ask, handover: Option<Handover>, tokens: &TokensByAuthor, index: usize) -> Value {
    let by: Map<_, _> = tokens.iter().map(|(author, tokens)| (author.to_string(), json!(tokens))).collect();
    json!({
        "strategy": ask.model,
        "handover": handover,
        "by": by,
        "seed": ask.seed().wrapping_add((index % ask.n) as u64).cast_signed(),
    })
}

/// Token counts over all answers.
#[derive(Default)]
pub(super) struct Count {
    prompts: Vec<usize>,
    pub(super) completion: usize,
}

impl Count {
    /// Take in an event of the answer to prompt `prompt`; a prompt with many answers counts once.
    pub(super) fn see(&mut self, prompt: usize, event: &Event) {
        match event {
            Event::Prompt { tokens } => self.prompt(prompt, *tokens),
            Event::Token(_) => self.completion += 1,
            _ => {}
        }
    }

    /// Take in the length of prompt `prompt`.
    pub(super) fn prompt(&mut self, prompt: usize, tokens: usize) {
        self.prompts.resize(self.prompts.len().max(prompt + 1), 0);
        self.prompts[prompt] = tokens;
    }

    pub(super) fn json(&self) -> Value {
        let prompt: usize = self.prompts.iter().sum();
        json!({
            "prompt_tokens": prompt, "completion_tokens": self.completion, "total_tokens": prompt + self.completion,
        })
    }
}

/// How far an answer has come.
#[derive(Clone, Default)]
pub(super) struct Progress {
    tokens: TokensByAuthor,
    handover: Option<Handover>,
    /// Characters of text sent.
    pub(super) characters: usize,
}

impl Progress {
    pub(super) fn see(&mut self, event: &Event) {
        match event {
            Event::Token(token) => {
                self.tokens.add(token.by, 1);
                self.characters += token.text.chars().count();
            }
            Event::Handover(handover) => self.handover = Some(*handover),
            _ => {}
        }
    }

    pub(super) fn summary(&self, ask: &Ask, index: usize) -> Value {
        summary(ask, self.handover, &self.tokens, index)
    }
}
