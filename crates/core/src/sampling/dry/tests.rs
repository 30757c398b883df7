//! DRY against a plain writing of its rule.

use super::*;
use crate::scripted::{Pieces, Scripted};
use crate::{Engine as _, Generation, Sampling, pick};
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

#[test]
fn an_engine_finds_breakers_in_its_own_tokens() {
    // "ab." again and again.
    let pieces = Arc::new(Pieces::letters("ab."));
    let engine = Scripted::new("cycle", pieces, |tokens| {
        let next = match tokens.last() {
            Some(2) => 3,
            Some(3) => 4,
            _ => 2,
        };
        (0..5).map(|token| if token == next { 5.0 } else { -(token as f32) }).collect()
    });
    let written = |breakers: &str| {
        let breakers = Breakers::from(breakers.chars().map(String::from).collect::<Vec<_>>());
        let sampling = Sampling { dry: Dry { breakers, ..dry(9.0) }, ..Sampling::default() };
        let generation = Generation { max_tokens: 9, sampling, top_logprobs: 0, guide: None };
        let list = engine.codec().tokenizer().encode("ab.ab.").unwrap();
        let written = async { engine.open(&list).await?.write(&generation).await };
        let ids = futures::executor::block_on(written).unwrap().ids();
        engine.codec().tokenizer().decode(&ids).unwrap()
    };
    assert_eq!(written("."), "ab.ab.ab.");
    assert_ne!(written(""), "ab.ab.ab.");
}

proptest! {
    #[test]
    fn penalties_are_those_of_the_rule(
        list in prop::collection::vec(0usize..4, 0..60), allowed_length in 1usize..5, penalty_last_n in 0usize..70,
        has_breaker: bool,
    ) {
        let tokenizer = pieces(&["a", "b"]);
        let words: Vec<Token> = ["a", "b"].map(|piece| tokenizer.encode(piece).unwrap()[0]).to_vec();
        // Control tokens, which have no text, and two words.
        let list: Vec<Token> = list.iter().map(|&i| [0, 1, words[0], words[1]][i]).collect();
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
