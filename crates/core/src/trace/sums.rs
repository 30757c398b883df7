//! Sums over an answer: tokens by author, and times.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Call, CallKind, Proposed, is_zero};
use crate::{Author, Seat};

/// Counts of tokens. In JSON the counts by author are `draft_tokens`, `base_tokens`, and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Tokens in the answer.
    pub completion_tokens: usize,
    /// Tokens in the answer by author.
    #[serde(flatten)]
    pub by_author: TokensByAuthor,
}

/// Tokens of an answer counted by author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokensByAuthor(BTreeMap<Author, usize>);

impl Default for TokensByAuthor {
    /// Zero for draft and base, which readers of JSON may rely on.
    fn default() -> Self {
        Self([Seat::DRAFT, Seat::BASE].map(|seat| (seat.into(), 0)).into())
    }
}

impl TokensByAuthor {
    /// The tokens that `author` wrote.
    #[must_use]
    pub fn get(&self, author: impl Into<Author>) -> usize {
        self.0.get(&author.into()).copied().unwrap_or(0)
    }

    /// Adds tokens of `author`.
    pub fn add(&mut self, author: impl Into<Author>, tokens: usize) {
        *self.0.entry(author.into()).or_default() += tokens;
    }

    /// Iterates over the authors with their tokens.
    pub fn iter(&self) -> impl Iterator<Item = (Author, usize)> {
        self.0.iter().map(|(&author, &tokens)| (author, tokens))
    }
}

impl Serialize for TokensByAuthor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(author, tokens)| (format!("{author}_tokens"), tokens)))
    }
}

impl<'de> Deserialize<'de> for TokensByAuthor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let counts = BTreeMap::<String, usize>::deserialize(deserializer)?;
        let author = |name: &str| Author::find(name.strip_suffix("_tokens")?);
        Ok(Self(counts.into_iter().filter_map(|(name, tokens)| Some((author(&name)?, tokens))).collect()))
    }
}

/// Times of an answer, in seconds. In JSON the times of writing are `draft`, `base`, and so on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Time from the request to its end.
    pub total: f64,
    /// Time from the request to the first token.
    pub first_token: Option<f64>,
    /// Time spent in scoring calls.
    pub score: f64,
    /// Tokens that were proposed to the base during speculation. Not reproducible: the number of
    /// proposals depends on measured times.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub proposed_tokens: usize,
    /// Proposed tokens that the base confirmed. Not reproducible either.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted_tokens: usize,
    /// Proposals to the base by source. Not reproducible either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<Proposed>,
    /// Steps of the base that wrote tokens. Not reproducible where it speculated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub base_steps: usize,
    /// Tokens of the prompt that the output engine read from its prefix cache. Not reproducible
    /// either: other requests fill the cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_tokens: usize,
    /// Time that each model spent writing.
    #[serde(flatten)]
    pub writing: SecondsBySeat,
}

impl Timings {
    /// Adds the steps of a call of the base and what was proposed for it.
    pub(super) fn add_base_call(&mut self, call: &Call) {
        self.base_steps += match call.kind {
            CallKind::Generate => call.tokens,
            CallKind::Check => 1,
            CallKind::Score => 0,
        };
        let Some(accepted) = call.accepted else { return };
        self.proposed_tokens += call.tokens - 1;
        self.accepted_tokens += accepted;
        for proposed in &call.proposals {
            match self.proposals.iter_mut().find(|sum| sum.by == proposed.by) {
                Some(sum) => {
                    sum.tokens += proposed.tokens;
                    sum.accepted += proposed.accepted;
                }
                None => self.proposals.push(*proposed),
            }
        }
    }
}

/// Seconds by seat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecondsBySeat(BTreeMap<Seat, f64>);

impl Default for SecondsBySeat {
    /// Zero for draft and base, which readers of JSON may rely on.
    fn default() -> Self {
        Self([Seat::DRAFT, Seat::BASE].map(|seat| (seat, 0.0)).into())
    }
}

impl SecondsBySeat {
    /// The seconds of the model in `seat`.
    #[must_use]
    pub fn get(&self, seat: Seat) -> f64 {
        self.0.get(&seat).copied().unwrap_or(0.0)
    }

    /// Adds seconds to `seat`.
    pub fn add(&mut self, seat: Seat, seconds: f64) {
        *self.0.entry(seat).or_default() += seconds;
    }
}
