//! Dialects: the request and reply formats of each kind of engine. JSON in, JSON out, no socket.

mod llama_server;
mod openai;
mod sglang;
mod vllm;

use std::fmt::Debug;

use serde_json::Value;
use wsd_core::{
    DRY_MULTIPLIER, FREQUENCY_PENALTY, PRESENCE_PENALTY, Sampled, Sampling, Setting, Stop, TOP_N_SIGMA, TYPICAL_P,
    Token, XTC_PROBABILITY,
};

use crate::words::any_of;

/// All known engines. A new one is a file beside this one and a line here.
pub(super) static DIALECTS: &[&dyn Dialect] = &[
    // In the order of help and messages.
    &vllm::Vllm,
    &sglang::SgLang,
    &llama_server::LlamaServer,
    &openai::OpenAi,
];

/// The schemes of all engines' addresses, without `+http`.
pub(crate) fn schemes() -> Vec<&'static str> {
    DIALECTS.iter().map(|dialect| dialect.facts().scheme).collect()
}

/// The names of the engines that can be installed, in words: all but the generic one.
pub(super) fn programs() -> String {
    any_of(&names(|facts| facts.owner.is_some()))
}

/// The names of the engines that are scored by teacher forcing only, in words.
pub(crate) fn teacher_forced() -> String {
    any_of(&names(|facts| matches!(facts.scorings, [Scoring::Forced { .. }])))
}

fn names(filter: impl Fn(&Facts) -> bool) -> Vec<&'static str> {
    DIALECTS.iter().map(|dialect| dialect.facts()).filter(|facts| filter(facts)).map(|facts| facts.name).collect()
}

/// Penalties that no server can follow: an answer is several requests, and a server counts the
/// tokens of one.
static PENALTIES: [&Setting; 2] = [&FREQUENCY_PENALTY, &PRESENCE_PENALTY];
/// The penalties, and what llama-server alone has: DRY and some filters.
static PENALTIES_AND_FILTERS: [&Setting; 6] =
    [&FREQUENCY_PENALTY, &PRESENCE_PENALTY, &DRY_MULTIPLIER, &TYPICAL_P, &TOP_N_SIGMA, &XTC_PROBABILITY];

/// A request to be posted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Post {
    pub(super) path: &'static str,
    pub(super) body: Value,
}

/// A method of scoring given tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scoring {
    /// One call scores the whole prompt, or its end.
    Prompt,
    /// One call scores named positions, and may read the prefix cache.
    Rows,
    /// Teacher forcing: one call per token returns the top-k at its position, where it is looked
    /// up.
    Forced {
        /// The k of top-k.
        width: usize,
        /// A token of plain ASCII that the engine is forced to emit: some replies omit the
        /// alternatives beside a token that is half a UTF-8 character.
        ascii_token: Token,
    },
}

/// A request to score the tokens `list[from..]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScoreRequest<'a> {
    pub(super) model: &'a str,
    pub(super) list: &'a [Token],
    pub(super) from: usize,
    /// Alternatives to return at each position.
    pub(super) top: usize,
    pub(super) scoring: Scoring,
}

impl ScoreRequest<'_> {
    /// The same request, with teacher forcing widened to the whole vocabulary.
    pub(super) fn widened(self, vocab: Option<usize>) -> Self {
        match (self.scoring, vocab) {
            (Scoring::Forced { ascii_token, .. }, Some(width)) => {
                Self { scoring: Scoring::Forced { width, ascii_token }, ..self }
            }
            _ => self,
        }
    }
}

/// A request to continue `list`.
#[derive(Clone, Debug)]
pub(super) struct GenerateRequest<'a> {
    pub(super) model: &'a str,
    pub(super) list: &'a [Token],
    pub(super) max_tokens: usize,
    /// Sampling settings, with a seed derived for this position of the list.
    pub(super) sampling: Sampling,
    /// Alternatives to return at each position.
    pub(super) top: usize,
    pub(super) end_tokens: &'a [Token],
}

/// The new part of a continuation, from one event or reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delta {
    pub(super) tokens: Vec<Sampled>,
    /// The text, where the engine names no tokens.
    pub(super) text: Option<String>,
    pub(super) stop: Option<Stop>,
}

/// The reason why a reply cannot be used.
pub(super) type Misread = String;

/// Static properties of an engine.
#[derive(Debug)]
pub(super) struct Facts {
    /// Name in addresses: the `vllm` of `vllm+http://`.
    pub(super) scheme: &'static str,
    /// Name for people.
    pub(super) name: &'static str,
    /// The `owned_by` of its models in `/v1/models`; `None` matches any service.
    pub(super) owner: Option<&'static str>,
    /// Path of a description of the model and its template, where it has one.
    pub(super) properties_path: Option<&'static str>,
    /// It serves one model, and may list it under another name than the user's (the path of a
    /// file).
    pub(super) serves_one_model: bool,
    /// It exits at a token id outside its vocabulary, so the vocabulary's size must be known.
    pub(super) exits_at_unknown_ids: bool,
    /// Methods of scoring, the best last; each is proven before it is used. Empty for an engine that
    /// only continues, which can be a draft.
    pub(super) scorings: &'static [Scoring],
    /// Scoring a whole prompt recomputes the list from its start.
    pub(super) rescores_from_start: bool,
    /// Continuations come as a stream of events; otherwise as one reply.
    pub(super) streams: bool,
    /// Most tokens requested in one continuation; the next request goes on from there.
    pub(super) slice: usize,
    /// Settings of sampling that it does not follow.
    pub(super) ignored_sampling: &'static [&'static Setting],
}

impl Facts {
    /// The reason for which an engine without a method of scoring cannot score.
    pub(super) fn unscored(&self) -> Misread {
        format!("{} returns no scores of a prompt", self.name)
    }
}

/// One engine's request and reply formats. The abilities that an engine may lack are refused by
/// default.
pub(super) trait Dialect: Debug + Send + Sync {
    fn facts(&self) -> &'static Facts;

    /// The request for scores, by a method in [`Facts::scorings`].
    fn score(&self, _request: &ScoreRequest<'_>) -> Result<Post, Misread> {
        Err(self.facts().unscored())
    }

    /// Reads the scores; `None` where this method does not return them for this request.
    fn parse_scores(&self, _request: &ScoreRequest<'_>, _reply: &Value) -> Result<Option<Vec<Sampled>>, Misread> {
        Err(self.facts().unscored())
    }

    /// The request for a continuation.
    fn generate(&self, request: &GenerateRequest<'_>) -> Post;

    /// Keeps the server's cached prefixes of a scope apart from those of others, where it can.
    fn separate(&self, _post: &mut Post, _scope: u64) {}

    /// Reads an event, given the `seen` tokens of this continuation that earlier events brought.
    fn parse_delta(&self, request: &GenerateRequest<'_>, event: &Value, seen: usize) -> Result<Delta, Misread>;

    /// The request for the ids of a text, with special tokens recognized; `begin` adds the
    /// beginning-of-text token. `None` where the engine has no such route.
    fn tokenize(&self, _model: &str, _text: &str, _begin: bool) -> Option<Post> {
        None
    }

    /// The request for the text of ids; `None` where the engine has no such route.
    fn detokenize(&self, _model: &str, _tokens: &[Token]) -> Option<Post> {
        None
    }
}

/// Reads a reply in every dialect and by every method, and returns the faults.
pub(super) fn read_everywhere(reply: &Value) -> Vec<Misread> {
    const LIST: &[Token] = &[5, 7];
    let mut faults = Vec::new();
    for dialect in DIALECTS {
        for &scoring in dialect.facts().scorings {
            let request = ScoreRequest { model: "m", list: LIST, from: 1, top: 1, scoring };
            faults.extend(dialect.parse_scores(&request, reply).err());
        }
        let sampling = Sampling::default();
        let request = GenerateRequest { model: "m", list: LIST, max_tokens: 3, sampling, top: 1, end_tokens: &[2] };
        faults.extend(dialect.parse_delta(&request, reply, 0).err());
    }
    faults.extend([tokens(reply).err(), text(reply).err()].into_iter().flatten());
    faults
}

/// Reads a log-probability of `subject`. Values up to 1e-3 above 0 are rounding errors of f32 and
/// become 0.
pub(super) fn logprob(value: &Value, subject: &str) -> Result<f64, Misread> {
    match value.as_f64() {
        Some(logprob) if logprob <= 1e-3 => Ok(logprob.min(0.0)),
        Some(logprob) => Err(format!("the log-probability of {subject} is {logprob}, above 0")),
        None => Err(format!("the log-probability of {subject} is `{value}`")),
    }
}

pub(super) fn token(value: &Value) -> Result<Token, Misread> {
    value.as_u64().and_then(|id| Token::try_from(id).ok()).ok_or_else(|| format!("`{value}` is not a token id"))
}

pub(super) fn array<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], Misread> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("there is no list `{name}` in it"))
}

/// Reads the ids in the reply to [`Dialect::tokenize`].
pub(super) fn tokens(reply: &Value) -> Result<Vec<Token>, Misread> {
    array(&reply["tokens"], "tokens")?.iter().map(|entry| token(entry.get("id").unwrap_or(entry))).collect()
}

/// Reads the text in the reply to [`Dialect::detokenize`].
pub(super) fn text(reply: &Value) -> Result<String, Misread> {
    let text = ["prompt", "text", "content"].iter().find_map(|key| reply[key].as_str());
    text.map(str::to_owned).ok_or_else(|| "there is no text in it".into())
}

/// The `count` likeliest entries in descending order, the lower id first among equals.
pub(super) fn top_k(mut entries: Vec<(Token, f64)>, count: usize) -> Vec<(Token, f64)> {
    entries.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    entries.truncate(count);
    entries
}

/// The logit bias as an object of numbers by token id, as OpenAI has it; `None` where there is none.
pub(super) fn logit_bias(sampling: &Sampling) -> Option<Value> {
    let bias = sampling.logit_bias.iter().map(|(token, bias)| (token.to_string(), Value::from(*bias)));
    (!sampling.logit_bias.is_empty()).then(|| bias.collect())
}

/// The seed in the 63 bits that every engine accepts.
pub(super) fn seed(sampling: &Sampling) -> u64 {
    sampling.seed & (u64::MAX >> 1)
}

#[cfg(test)]
mod captures;
#[cfg(test)]
mod tests;
