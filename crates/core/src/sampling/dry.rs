//! DRY, "don't repeat yourself": a penalty on tokens that would continue a repetition
//! (text-generation-webui PR 5677; the limits are those of llama.cpp).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::settings::{
    DRY_ALLOWED_LENGTH, DRY_BASE, DRY_BREAKERS, DRY_MULTIPLIER, DRY_PENALTY_LAST_N, DRY_SEQUENCE_BREAKERS,
};
use crate::{Token, Tokenizer, Values, token_bytes};

/// The parameters of DRY.
///
/// The match of a token is the longest sequence at the end of the list that stood before an earlier
/// occurrence of the token, too. Where it has at least `allowed_length` tokens,
/// `multiplier * base^(match - allowed_length)` is subtracted from the token's logit. A match does not
/// reach beyond the latest sequence breaker, and a token that completes one has no penalty.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// The penalty at the allowed length; 0 for none.
    pub multiplier: f32,
    /// The factor of the penalty for each further token, at least 1.
    pub base: f32,
    /// The length from which matches count, in tokens, at least 1.
    pub allowed_length: usize,
    /// The number of last tokens of the list among which matches are found.
    pub penalty_last_n: usize,
    /// The texts at which sequences end.
    pub breakers: Breakers,
}

impl Dry {
    pub(super) fn from_values(values: &Values) -> Self {
        let texts = match values.value(&DRY_SEQUENCE_BREAKERS) {
            Some(_) => values.get(&DRY_SEQUENCE_BREAKERS),
            None => DRY_BREAKERS.map(String::from).to_vec(),
        };
        Self {
            multiplier: values.get(&DRY_MULTIPLIER),
            base: values.get(&DRY_BASE),
            allowed_length: values.get(&DRY_ALLOWED_LENGTH),
            penalty_last_n: values.get(&DRY_PENALTY_LAST_N),
            breakers: Breakers::from(texts),
        }
    }

    /// Returns the penalties after a list, by token.
    pub(super) fn penalties(&self, list: &[Token]) -> BTreeMap<Token, f64> {
        let window = &list[list.len().saturating_sub(self.penalty_last_n)..];
        let matches = matches(window);
        let longest = matches.iter().copied().max().unwrap_or_default();
        if longest < self.allowed_length {
            return BTreeMap::new();
        }
        let limit = self.breakers.behind(list, longest);
        let mut found = BTreeMap::<Token, usize>::new();
        for (&token, length) in window.iter().zip(matches) {
            let length = length.min(limit);
            if length >= self.allowed_length {
                let most = found.entry(token).or_default();
                *most = length.max(*most);
            }
        }
        self.breakers.remove_completing(list, &mut found);
        let (multiplier, base) = (f64::from(self.multiplier), f64::from(self.base));
        let penalty = |length: usize| multiplier * base.powf((length - self.allowed_length) as f64);
        found.into_iter().map(|(token, length)| (token, penalty(length))).collect()
    }
}

/// Returns for each position of a list the number of tokens before it that are also the last ones of
/// the list: the Z function (Gusfield 1997) of the reversed list.
fn matches(list: &[Token]) -> Vec<usize> {
    let count = list.len();
    let token = |index: usize| list[count - 1 - index];
    let mut lengths = vec![0; count];
    // The match that reaches furthest: its start, and the first index behind it.
    let (mut start, mut end) = (0, 0);
    for index in 1..count {
        let mut length = if index < end { lengths[index - start].min(end - index) } else { 0 };
        while index + length < count && token(length) == token(index + length) {
            length += 1;
        }
        if index + length > end {
            (start, end) = (index, index + length);
        }
        lengths[index] = length;
    }
    // The token behind the one at reversed index `i` has the index `i - 1`.
    let before = (0..count).map(|position| count - position);
    before.map(|index| lengths.get(index).copied().unwrap_or(0)).collect()
}

/// Texts at which sequences end, and the tokenizer that spells a list. Without a tokenizer no
/// sequence ends.
#[derive(Clone, Debug, Default)]
pub struct Breakers {
    texts: Arc<[String]>,
    /// The length of the longest text, in bytes.
    longest: usize,
    tokenizer: Option<Arc<dyn Tokenizer>>,
}

impl From<Vec<String>> for Breakers {
    fn from(texts: Vec<String>) -> Self {
        let longest = texts.iter().map(String::len).max().unwrap_or(0);
        Self { texts: texts.into(), longest, tokenizer: None }
    }
}

impl PartialEq for Breakers {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Breakers {
    /// The texts.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The same breakers for lists in the vocabulary of a tokenizer.
    pub(super) fn spelled_by(&self, tokenizer: &Arc<dyn Tokenizer>) -> Self {
        Self { tokenizer: Some(tokenizer.clone()), ..self.clone() }
    }

    /// The number of tokens at the end of a list, at most `most`, behind the last one in which a breaker
    /// ends.
    fn behind(&self, list: &[Token], most: usize) -> usize {
        let Some(tokenizer) = &self.tokenizer else { return most };
        let tokens = &list[list.len().saturating_sub(most + self.longest)..];
        let (mut text, mut starts) = (Vec::new(), Vec::new());
        for &token in tokens {
            starts.push(text.len());
            text.extend(spell(tokenizer, token));
        }
        let end = |breaker: &String| {
            let start = text.windows(breaker.len()).rposition(|part| part == breaker.as_bytes());
            start.map(|start| start + breaker.len())
        };
        let Some(end) = self.texts.iter().filter_map(end).max() else { return most };
        starts.iter().rev().take_while(|&&start| start >= end).count().min(most)
    }

    /// Removes the tokens in which a breaker ends where they follow a list.
    fn remove_completing<T>(&self, list: &[Token], found: &mut BTreeMap<Token, T>) {
        let Some(tokenizer) = &self.tokenizer else { return };
        let end = &list[list.len().saturating_sub(self.longest)..];
        let before: Vec<u8> = end.iter().flat_map(|&token| spell(tokenizer, token)).collect();
        let before = &before[before.len().saturating_sub(self.longest)..];
        found.retain(|&token, _| {
            let text = [before, &spell(tokenizer, token)].concat();
            let ends = |breaker: &String| {
                let start = (before.len() + 1).saturating_sub(breaker.len());
                text[start..].windows(breaker.len()).any(|part| part == breaker.as_bytes())
            };
            !self.texts.iter().any(ends)
        });
    }
}

/// The bytes of a token; none for one that spells nothing.
fn spell(tokenizer: &Arc<dyn Tokenizer>, token: Token) -> Vec<u8> {
    token_bytes(tokenizer.as_ref(), token).unwrap_or_default()
}
