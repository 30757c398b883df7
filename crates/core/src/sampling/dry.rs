//! DRY, "don't repeat yourself": a penalty on tokens that would continue a repetition
//! (text-generation-webui PR 5677; the limits are those of llama.cpp).

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
        found.retain(|&token, _| !self.breakers.completes(list, token));
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
    tokenizer: Option<Arc<dyn Tokenizer>>,
}

impl From<Vec<String>> for Breakers {
    fn from(texts: Vec<String>) -> Self {
        Self { texts: texts.into(), tokenizer: None }
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
        Self { texts: self.texts.clone(), tokenizer: Some(tokenizer.clone()) }
    }

    /// The number of tokens at the end of a list, at most `most`, behind the last one in which a breaker
    /// ends.
    fn behind(&self, list: &[Token], most: usize) -> usize {
        let Some(tokenizer) = &self.tokenizer else { return most };
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let tokens = &list[list.len().saturating_sub(most + longest)..];
        let (mut text, mut starts) = (Vec::new(), Vec::new());
        for &token in tokens {
            starts.push(text.len());
            text.extend(token_bytes(tokenizer.as_ref(), token).unwrap_or_default());
        }
        let end = |breaker: &String| {
            let start = text.windows(breaker.len()).rposition(|part| part == breaker.as_bytes());
            start.map(|start| start + breaker.len())
        };
        let Some(end) = self.texts.iter().filter_map(end).max() else { return most };
        starts.iter().rev().take_while(|&&start| start >= end).count().min(most)
    }

    /// Tells whether a breaker ends in `token` where it follows a list.
    fn completes(&self, list: &[Token], token: Token) -> bool {
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let end = &list[list.len().saturating_sub(longest)..];
        self.behind(&[end, &[token]].concat(), 1) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::Pieces;
    use crate::{Sampling, pick};
    use proptest::prelude::*;

    fn dry(multiplier: f32) -> Dry {
        Dry { multiplier, breakers: Breakers::default(), ..Dry::from_values(&Values::default()) }
    }

    /// The rule for one token, by trying every earlier occurrence and every length. `is_end` tells the
    /// tokens that are sequence breakers.
    fn by_hand(dry: &Dry, list: &[Token], token: Token, is_end: impl Fn(Token) -> bool) -> f64 {
        let list = &list[list.len().saturating_sub(dry.penalty_last_n)..];
        let mut longest = 0;
        for at in (0..list.len()).filter(|&at| list[at] == token) {
            for length in 1..=at {
                let last = &list[list.len() - length..];
                if list[at - length..at] == *last && !last.iter().any(|&token| is_end(token)) {
                    longest = longest.max(length);
                }
            }
        }
        if longest < dry.allowed_length || is_end(token) {
            return 0.0;
        }
        let further = (longest - dry.allowed_length) as i32;
        f64::from(dry.multiplier) * f64::from(dry.base).powi(further)
    }

    fn pieces(words: &[&str]) -> Arc<dyn Tokenizer> {
        Arc::new(Pieces::new(words.iter().map(ToString::to_string)))
    }

    #[test]
    fn the_penalty_grows_with_the_repetition() {
        // 5 6 7 8 stood there; 5 6 7 came again, so 8 would continue three tokens, and 6 none.
        let list = [5, 6, 7, 8, 9, 5, 6, 7];
        let at = |allowed_length| Dry { allowed_length, base: 3.0, ..dry(0.5) }.penalties(&list);
        assert_eq!(at(1), BTreeMap::from([(8, 4.5)]));
        assert_eq!(at(2), BTreeMap::from([(8, 1.5)]));
        assert_eq!(at(3), BTreeMap::from([(8, 0.5)]));
        assert_eq!(at(4), BTreeMap::new());
        // Of several occurrences the longest counts, also one that overlaps the end.
        let again = Dry { base: 2.0, ..dry(1.0) };
        assert_eq!(again.penalties(&[1, 2, 3, 9, 2, 3, 8, 1, 2]), BTreeMap::from([(3, 1.0)]));
        assert_eq!(again.penalties(&[4, 4, 4, 4]), BTreeMap::from([(4, 2.0)]));
        // The first two tokens, or all, are out of sight.
        assert_eq!(Dry { penalty_last_n: 6, ..dry(0.5) }.penalties(&list), BTreeMap::new());
        assert_eq!(Dry { penalty_last_n: 0, ..dry(0.5) }.penalties(&list), BTreeMap::new());
    }

    #[test]
    fn the_choice_moves_and_the_logprob_stays() {
        let list = [1, 2, 3, 1, 2];
        let row = [0.0, 0.5, 0.25, 2.0];
        let sampling = Sampling { dry: dry(1.8), ..Sampling::default() };
        let (mut changed, plain) = (row, crate::logprob(&row, 1));
        let sampled = pick(&mut changed, &list, &sampling).unwrap();
        assert_eq!((changed, sampled.token, sampled.logprob), ([0.0, 0.5, 0.25, 2.0 - 1.8], 1, plain));
        assert!(!sampling.is_argmax() && Sampling::default().is_argmax());
        // A penalty beyond single precision leaves a number.
        let steep = Sampling { dry: Dry { base: 100.0, ..dry(100.0) }, ..Sampling::default() };
        let repeated = [1, 2, 3].repeat(40);
        assert_eq!(pick(&mut row.clone(), &repeated, &steep).unwrap().token, 3);
        let warm = Sampling { temperature: 1.0, ..steep };
        assert!(pick(&mut row.clone(), &repeated, &warm).unwrap().token != 1);
    }

    #[test]
    fn repetitions_end_at_breakers() {
        let tokenizer = pieces(&["a", "b", "c", ":", "x:y", "<", "br>"]);
        let token = |piece: &str| tokenizer.encode(piece).unwrap()[0];
        let [a, b, c, colon, xy, open, close] = ["a", "b", "c", ":", "x:y", "<", "br>"].map(token);
        let with = |texts: &[&str]| {
            let breakers = Breakers::from(texts.iter().map(ToString::to_string).collect::<Vec<_>>());
            Dry { breakers: breakers.spelled_by(&tokenizer), base: 2.0, ..dry(1.0) }
        };
        let list = |end: Token| [a, b, end, a, b, c, a, b, end, a, b];
        // Without a breaker five tokens are repeated before `c`, with one behind it two.
        for end in [colon, xy] {
            assert_eq!(with(&[]).penalties(&list(end)), BTreeMap::from([(c, 8.0), (end, 1.0)]), "{end}");
            assert_eq!(with(&[":"]).penalties(&list(end)), BTreeMap::from([(c, 1.0)]), "a breaker itself is free");
        }
        // A breaker of two tokens, and one that ends within a longer one.
        let list = [a, b, open, close, a, b, c, a, b, open, close, a, b];
        assert_eq!(with(&["<br>"]).penalties(&list), BTreeMap::from([(c, 1.0), (open, 1.0)]));
        assert_eq!(with(&["<br>", "b"]).penalties(&list), BTreeMap::new());
        // Half of it is none.
        assert_eq!(with(&["<br>"]).penalties(&[close, a, b, c, close, a, b]), BTreeMap::from([(c, 2.0)]));
        // A token that completes one is free.
        assert_eq!(with(&["<br>"]).penalties(&[a, b, open, close, a, b, open]), BTreeMap::new());
    }

    proptest! {
        #[test]
        fn penalties_are_those_of_the_rule(
            list in prop::collection::vec(0u32..4, 0..60), allowed_length in 1usize..5, penalty_last_n in 0usize..70,
            has_breaker: bool,
        ) {
            let tokenizer = pieces(&["a", "b"]);
            let words: Vec<Token> = ["a", "b"].map(|piece| tokenizer.encode(piece).unwrap()[0]).to_vec();
            // Control tokens, which have no text, and two words.
            let token = |&i: &u32| words.get(i as usize).copied().unwrap_or_else(|| i - 2);
            let list: Vec<Token> = list.iter().map(token).collect();
            let texts = if has_breaker { vec!["b".to_owned()] } else { vec![] };
            let breakers = Breakers::from(texts).spelled_by(&tokenizer);
            let dry = Dry { allowed_length, penalty_last_n, base: 2.0, breakers, ..dry(0.25) };
            let found = dry.penalties(&list);
            for token in 0..words.iter().max().unwrap() + 2 {
                let wanted = by_hand(&dry, &list, token, |token| has_breaker && token == words[1]);
                prop_assert_eq!(found.get(&token).copied().unwrap_or(0.0), wanted);
            }
        }
    }
}
