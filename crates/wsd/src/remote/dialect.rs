//! How each engine wants to be asked: JSON out, JSON in, nothing else.

mod llama_server;
mod openai;
mod sglang;
mod vllm;

use std::fmt::Debug;

use serde_json::Value;
use wsd_core::{Sampled, Sampling, Stop, Token};

/// Every engine that can be talked to. One more is a file and a line here.
pub(super) static DIALECTS: &[&dyn Dialect] =
    &[&vllm::Vllm, &sglang::SgLang, &llama_server::LlamaServer, &openai::OpenAi];

/// A request to be posted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Post {
    pub(super) path: &'static str,
    pub(super) body: Value,
}

/// How given tokens are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// One call scores the whole prompt, or its end.
    Prompt,
    /// One call scores rows that are named, and may read the prefix cache.
    Rows,
    /// One call for each token: the likeliest that could stand there, among which it is looked up.
    Forced {
        /// How many of the likeliest.
        width: usize,
        /// A token of plain ASCII that the engine is made to write: some replies lose what belongs to half a character.
        harmless: Token,
    },
}

/// Tokens to score: those of `list` from `from` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScoreAsk<'a> {
    pub(super) model: &'a str,
    pub(super) list: &'a [Token],
    pub(super) from: usize,
    pub(super) top: usize,
    pub(super) way: Way,
}

impl ScoreAsk<'_> {
    /// The same, looked up among as many of the likeliest as there are tokens.
    pub(super) fn widened(self, vocab: Option<usize>) -> Self {
        match (self.way, vocab) {
            (Way::Forced { harmless, .. }, Some(width)) => Self { way: Way::Forced { width, harmless }, ..self },
            _ => self,
        }
    }
}

/// A list to continue.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteAsk<'a> {
    pub(super) model: &'a str,
    pub(super) list: &'a [Token],
    pub(super) max_tokens: usize,
    /// With a seed of this position's own.
    pub(super) sampling: Sampling,
    pub(super) top: usize,
    pub(super) end_tokens: &'a [Token],
}

/// What one event of a continuation holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Piece {
    pub(super) tokens: Vec<Sampled>,
    /// The text, where the engine names no tokens.
    pub(super) text: Option<String>,
    pub(super) stop: Option<Stop>,
}

/// A reply that does not say what was asked.
pub(super) type Misread = String;

/// What is so of an engine whatever it is asked.
#[derive(Debug)]
pub(super) struct Facts {
    /// Its name in addresses.
    pub(super) scheme: &'static str,
    /// Its name for people.
    pub(super) name: &'static str,
    /// What its list of models says of their owner.
    pub(super) owner: Option<&'static str>,
    /// The ways in which it might score, the best first; each is tried before it is used.
    pub(super) ways: &'static [Way],
    /// To score a whole prompt it computes the list from its beginning.
    pub(super) rescores_from_start: bool,
    /// Continuations come as a stream; else as one reply.
    pub(super) streams: bool,
    /// At most this many tokens are asked for in one continuation; the next goes on from there.
    pub(super) slice: usize,
}

/// One engine's way to talk.
pub(super) trait Dialect: Debug + Send + Sync {
    fn facts(&self) -> &'static Facts;

    fn score(&self, ask: &ScoreAsk<'_>) -> Post;

    /// The scores; `None` where this way does not give them this time.
    fn scores(&self, ask: &ScoreAsk<'_>, reply: &Value) -> Result<Option<Vec<Sampled>>, Misread>;

    fn write(&self, ask: &WriteAsk<'_>) -> Post;

    /// What an event adds to the `seen` tokens of this continuation.
    fn piece(&self, ask: &WriteAsk<'_>, event: &Value, seen: usize) -> Result<Piece, Misread>;

    /// Asks for the ids of a text, special tokens recognised; with `begin`, what begins a text put before it.
    fn tokenize(&self, model: &str, text: &str, begin: bool) -> Option<Post>;

    /// Asks for the text of ids.
    fn detokenize(&self, model: &str, tokens: &[Token]) -> Option<Post>;
}

/// The log-probability in a reply. What computing in f32 leaves above 0 is 0.
pub(super) fn logprob(value: &Value, what: &str) -> Result<f64, Misread> {
    match value.as_f64() {
        Some(logprob) if logprob <= 1e-3 => Ok(logprob.min(0.0)),
        Some(logprob) => Err(format!("the log-probability of {what} is {logprob}, above 0")),
        None => Err(format!("the log-probability of {what} is `{value}`")),
    }
}

pub(super) fn token(value: &Value) -> Result<Token, Misread> {
    value.as_u64().and_then(|id| Token::try_from(id).ok()).ok_or_else(|| format!("`{value}` is no token id"))
}

pub(super) fn array<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], Misread> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("there is no list `{what}` in it"))
}

/// The ids in a reply to a question for a text's tokens.
pub(super) fn tokens(reply: &Value) -> Result<Vec<Token>, Misread> {
    array(&reply["tokens"], "tokens")?.iter().map(|entry| token(entry.get("id").unwrap_or(entry))).collect()
}

/// The text in a reply to a question for the text of ids.
pub(super) fn text(reply: &Value) -> Result<String, Misread> {
    let text = ["prompt", "text", "content"].iter().find_map(|key| reply[key].as_str());
    text.map(str::to_owned).ok_or_else(|| "there is no text in it".into())
}

/// Likelier first, and the lower id first among equals, as everywhere.
pub(super) fn likeliest(mut top: Vec<(Token, f64)>, count: usize) -> Vec<(Token, f64)> {
    top.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    top.truncate(count);
    top
}

/// A seed as every engine takes it.
pub(super) fn seed(sampling: &Sampling) -> u64 {
    sampling.seed & (u64::MAX >> 1)
}

#[cfg(test)]
mod captures;
#[cfg(test)]
mod tests;
