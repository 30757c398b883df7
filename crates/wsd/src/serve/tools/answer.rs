//! Answers with calls of tools and reasoning, whole and in pieces.

use serde_json::{Map, Value, json};
use wsd_core::{FinishReason, Part, Reply, TextCodec, TokenRecord};

/// A reader of one answer token by token.
pub(crate) struct AnswerReader {
    reply: Reply,
    /// The codec of the answer's tokens.
    codec: TextCodec,
}

/// An answer taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// The name and the arguments of each call, as JSON text.
    pub(crate) calls: Vec<(String, String)>,
}

impl AnswerReader {
    /// A reader of an answer in the vocabulary of `codec`.
    pub(crate) fn new(reply: Reply, codec: TextCodec) -> Self {
        Self { reply, codec }
    }

    /// Takes in a token and returns the parts that are settled.
    pub(crate) fn push(&mut self, token: &TokenRecord) -> Vec<Part> {
        let vocabulary = self.codec.tokenizer().vocabulary();
        // Some vocabularies have the marks of calls as control tokens, which have no text.
        let piece = vocabulary.pieces.get(token.id as usize).and_then(Option::as_deref);
        let mark = piece.filter(|piece| vocabulary.is_special(token.id) && self.reply.reads(piece));
        match mark {
            Some(mark) if token.text.is_empty() => self.reply.push(mark),
            _ => self.reply.push(&token.text),
        }
    }

    /// Returns what is left at the end of the answer.
    pub(crate) fn finish(&mut self) -> Vec<Part> {
        self.reply.finish()
    }

    /// The protocol's name of the reason why the answer ended.
    pub(crate) fn finish_reason(&self, reason: FinishReason) -> &'static str {
        match reason {
            FinishReason::Stop if self.reply.calls() > 0 => "tool_calls",
            reason => reason.name(),
        }
    }

    /// Reads a whole answer.
    pub(crate) fn read(&mut self, tokens: &[TokenRecord]) -> Answer {
        let mut answer = Answer::default();
        let mut parts: Vec<_> = tokens.iter().flat_map(|token| self.push(token)).collect();
        parts.extend(self.finish());
        for part in parts {
            match part {
                Part::Text(text) => answer.text += &text,
                Part::Reasoning(text) => answer.reasoning += &text,
                Part::Call { name, .. } => answer.calls.push((name, String::new())),
                Part::Arguments { index, text } => {
                    if let Some((_, arguments)) = answer.calls.get_mut(index) {
                        *arguments += &text;
                    }
                }
            }
        }
        answer
    }
}

impl Answer {
    /// Returns the message of a chat completion. `id` makes names of calls.
    pub(crate) fn message(&self, mut id: impl FnMut() -> String) -> Value {
        let has_text = !self.text.is_empty() || self.calls.is_empty();
        let mut message = json!({"role": "assistant", "content": has_text.then_some(&self.text), "refusal": null});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = json!(self.reasoning);
        }
        if !self.calls.is_empty() {
            let call = |(name, arguments): &(String, String)| {
                let function = json!({"name": name, "arguments": arguments});
                json!({"id": id(), "type": "function", "function": function})
            };
            message["tool_calls"] = self.calls.iter().map(call).collect();
        }
        message
    }
}

/// Returns the `delta` of a chunk with these parts. `id` makes names of calls.
pub(crate) fn delta(parts: Vec<Part>, mut id: impl FnMut() -> String) -> Value {
    let (mut delta, mut calls) = (Map::new(), Vec::new());
    let add = |delta: &mut Map<String, Value>, field: &str, text: String| match delta.get_mut(field) {
        Some(Value::String(before)) => before.push_str(&text),
        _ => drop(delta.insert(field.to_owned(), text.into())),
    };
    for part in parts {
        match part {
            Part::Text(text) => add(&mut delta, "content", text),
            Part::Reasoning(text) => add(&mut delta, "reasoning_content", text),
            Part::Call { index, name } => calls.push(json!({
                "index": index, "id": id(), "type": "function", "function": {"name": name, "arguments": ""},
            })),
            Part::Arguments { index, text } => {
                calls.push(json!({"index": index, "function": {"arguments": text}}));
            }
        }
    }
    if !calls.is_empty() {
        delta.insert("tool_calls".into(), calls.into());
    }
    delta.into()
}
