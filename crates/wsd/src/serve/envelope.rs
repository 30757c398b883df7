//! The fields around the choices of a reply, and its token counts.

use serde_json::{Value, json};
use wsd_core::Event;

use super::app::App;
use super::clock::unix_time;

/// The fields around the choices of every reply and chunk.
pub(super) struct Envelope(Value);

impl Envelope {
    pub(super) fn new(app: &App, prefix: &str, object: &str, model: &str) -> Self {
        Self(json!({
            "id": app.next_id(prefix), "object": object, "created": unix_time(), "model": model,
            "system_fingerprint": concat!("wsd-", env!("CARGO_PKG_VERSION")),
        }))
    }

    /// Returns a reply with these choices and token counts.
    pub(super) fn json(&self, choices: Vec<Value>, usage: &Usage) -> Value {
        let mut reply = self.0.clone();
        reply["choices"] = Value::Array(choices);
        reply["usage"] = usage.json();
        reply
    }

    /// Returns the JSON text of a reply up to its first choice.
    pub(super) fn before_choices(&self) -> String {
        let text = self.0.to_string();
        format!("{},\"choices\":[", text.strip_suffix('}').unwrap_or(&text))
    }

    /// Returns the JSON text before and after the choice of each chunk of a stream, made once for
    /// all chunks, without the brace at the end. With `include_usage` every chunk has a `usage` of
    /// null, as the protocol requires.
    pub(super) fn around_choice(&self, include_usage: bool) -> (String, &'static str) {
        (self.before_choices(), if include_usage { "],\"usage\":null" } else { "]" })
    }
}

/// Token counts over all answers.
#[derive(Default)]
pub(super) struct Usage {
    /// Tokens of each prompt.
    prompts: Vec<usize>,
    /// Tokens of each prompt that were read from the prefix cache.
    cached: Vec<usize>,
    /// Tokens of all answers.
    pub(super) completion: usize,
}

impl Usage {
    /// Counts an event of an answer to prompt `prompt`. A prompt with several answers counts once.
    pub(super) fn push(&mut self, prompt: usize, event: &Event) {
        match event {
            Event::Prompt { tokens } => self.set_prompt(prompt, *tokens),
            Event::Reused { tokens } => self.set_cached(prompt, *tokens),
            Event::Token(_) => self.completion += 1,
            _ => {}
        }
    }

    /// Sets the length of prompt `prompt`.
    pub(super) fn set_prompt(&mut self, prompt: usize, tokens: usize) {
        self.prompts.resize(self.prompts.len().max(prompt + 1), 0);
        self.prompts[prompt] = tokens;
    }

    /// Sets the cached part of prompt `prompt`: for the first answer to it, as further ones find all
    /// of it in the cache.
    pub(super) fn set_cached(&mut self, prompt: usize, tokens: usize) {
        if self.cached.len() <= prompt {
            self.cached.resize(prompt + 1, usize::MAX);
        }
        self.cached[prompt] = self.cached[prompt].min(tokens);
    }

    /// Tokens of all prompts.
    pub(super) fn prompt(&self) -> usize {
        self.prompts.iter().sum()
    }

    /// Tokens of all prompts that were read from the prefix cache.
    pub(super) fn cached(&self) -> usize {
        self.cached.iter().filter(|tokens| **tokens < usize::MAX).sum()
    }

    pub(super) fn json(&self) -> Value {
        let (prompt, cached) = (self.prompt(), self.cached());
        json!({
            "prompt_tokens": prompt, "completion_tokens": self.completion, "total_tokens": prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        })
    }
}
