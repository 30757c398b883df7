//! Proposals from text at hand: n-grams of prompt and answer, and the rest of the draft.

use std::collections::HashMap;

use crate::Token;
use crate::acceptance::Hint;

/// The shortest n-gram that is looked up.
const SHORTEST: usize = 2;
/// The longest match that is told apart.
const LONGEST: usize = 32;
/// The most earlier places compared for one proposal, latest first.
const PLACES: usize = 32;

/// An index of the n-grams of a growing token list.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// Positions that follow each n-gram of the shortest length, in order.
    places: HashMap<[Token; SHORTEST], Vec<u32>>,
    /// Number of tokens indexed.
    indexed: usize,
}

impl Lookup {
    /// Takes in the tokens that a list has grown by. A list that became shorter is not read again.
    pub(super) fn extend(&mut self, list: &[Token]) {
        for end in self.indexed.max(SHORTEST)..=list.len() {
            if let Some(&gram) = list[..end].last_chunk() {
                let places = self.places.entry(gram).or_default();
                if places.last().is_none_or(|&last| (last as usize) < end) {
                    places.push(end as u32);
                }
            }
        }
        self.indexed = list.len();
    }

    /// Proposes at most `count` tokens: those after the earlier place whose preceding tokens agree
    /// with the end of `list` for longest, the latest place among equals. A proposal that reaches the
    /// end of the list goes on with its own tokens, as periodic text does.
    pub(super) fn propose(&self, list: &[Token], count: usize) -> Vec<(Token, Hint)> {
        let Some(places) = list.last_chunk().and_then(|gram| self.places.get::<[Token; SHORTEST]>(gram)) else {
            return Vec::new();
        };
        let agreeing = |place: usize| {
            let pairs = list[..place].iter().rev().zip(list.iter().rev());
            pairs.take(LONGEST).take_while(|(one, other)| one == other).count()
        };
        let earlier = places.iter().rev().map(|&place| place as usize).filter(|&place| place < list.len());
        let mut best = (0, 0);
        for place in earlier.take(PLACES) {
            let length = agreeing(place);
            if length > best.1 {
                best = (place, length);
            }
        }
        let (place, length) = best;
        if length < SHORTEST {
            return Vec::new();
        }
        let mut proposal: Vec<(Token, Hint)> = Vec::with_capacity(count);
        for ahead in 0..count {
            let token = list.get(place + ahead).copied().unwrap_or_else(|| proposal[place + ahead - list.len()].0);
            proposal.push((token, Hint::Match(length + ahead)));
        }
        proposal
    }
}

/// The part of a draft after the switch, with the base's own probability of each token.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// The position of its first token in the base's list.
    pub(crate) at: usize,
    /// Tokens and probabilities.
    pub(crate) tokens: Vec<(Token, f64)>,
}

impl Rest {
    /// Proposes at most `count` tokens, as long as the base has written what the draft did.
    pub(super) fn propose(&mut self, list: &[Token], count: usize) -> Vec<(Token, Hint)> {
        let since = list.get(self.at..).unwrap_or_default();
        let is_same =
            since.len() < self.tokens.len() && since.iter().zip(&self.tokens).all(|(one, (other, _))| one == other);
        if !is_same {
            self.tokens.clear();
            return Vec::new();
        }
        let rest = self.tokens[since.len()..].iter().take(count);
        rest.map(|&(token, probability)| (token, Hint::Checked(probability))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(proposal: Vec<(Token, Hint)>) -> Vec<Token> {
        proposal.into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn the_longest_and_latest_match_is_continued() {
        let mut lookup = Lookup::default();
        let list = [1, 2, 3, 9, 2, 3, 7, 5, 2, 3, 8, 1, 2, 3];
        lookup.extend(&list[..5]);
        lookup.extend(&list);
        let proposal = lookup.propose(&list, 4);
        assert_eq!(proposal[0], (9, Hint::Match(3)), "three tokens agree at the start");
        assert_eq!(tokens(proposal), [9, 2, 3, 7]);
        assert_eq!(tokens(lookup.propose(&list[..10], 2)), [7, 5], "the later of two matches of two tokens");
        assert!(lookup.propose(&[4, 4], 3).is_empty() && lookup.propose(&[1], 3).is_empty());
    }

    #[test]
    fn periodic_text_goes_on() {
        let mut lookup = Lookup::default();
        let list = [9, 1, 2, 3, 1, 2, 3, 1, 2];
        lookup.extend(&list);
        assert_eq!(tokens(lookup.propose(&list, 7)), [3, 1, 2, 3, 1, 2, 3]);
        let mut same = Lookup::default();
        same.extend(&[5, 5, 5]);
        assert_eq!(tokens(same.propose(&[5, 5, 5], 3)), [5, 5, 5]);
    }

    #[test]
    fn the_rest_is_used_while_it_agrees() {
        let rest = || Rest { at: 2, tokens: vec![(7, 0.9), (8, 0.4), (9, 0.6)] };
        assert_eq!(tokens(rest().propose(&[1, 2], 2)), [7, 8]);
        assert_eq!(rest().propose(&[1, 2, 7], 9)[0], (8, Hint::Checked(0.4)));
        let mut other = rest();
        assert!(other.propose(&[1, 2, 8], 9).is_empty() && other.propose(&[1, 2], 9).is_empty(), "it is dropped");
        assert!(rest().propose(&[1, 2, 7, 8, 9], 9).is_empty());
    }
}
