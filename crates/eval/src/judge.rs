//! Pairwise judgements by a model: each pair is shown in both orders, and every reply is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use wsd_lab::stats::{Estimate, mean_of_means};

use crate::{Item, Sample, raters};

/// The most tokens in a judge's reply.
const MAX_TOKENS: usize = 512;

/// Instructions to the judge.
const INSTRUCTIONS: &str = "Compare two answers to the request of a user. Judge whether each does what the user asks, \
    is correct, clear and complete, and declines what would do harm. Neither the order of the answers nor their \
    length counts. Explain the comparison in a few sentences. End with one of these marks alone on the last line: \
    [[A]] if answer A is better, [[B]] if answer B is better, [[C]] if they are equally good.";

/// A judge's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// The first answer.
    A,
    /// The second answer.
    B,
    /// Neither.
    Tie,
}

/// Finds the last mark of a reply; `None` if it has none.
///
/// ```
/// use wsd_eval::judge::{Choice, choice};
/// assert_eq!(choice("A names no source. [[B]]"), Some(Choice::B));
/// assert_eq!(choice("[[A]]? No, they are equal: [[C]]"), Some(Choice::Tie));
/// assert_eq!(choice("Answer B is better."), None);
/// ```
#[must_use]
pub fn choice(reply: &str) -> Option<Choice> {
    let marks = [("[[A]]", Choice::A), ("[[B]]", Choice::B), ("[[C]]", Choice::Tie)];
    let found = marks.iter().filter_map(|(mark, choice)| Some((reply.rfind(mark)?, *choice)));
    found.max_by_key(|(at, _)| *at).map(|(_, choice)| choice)
}

/// The items for a judge: each answer of a system beside the reference's answer to the same item, in
/// both orders. `references` has the reference's answers by item; items without one are left out.
#[must_use]
pub fn items(samples: &[Sample], references: &BTreeMap<String, String>) -> Vec<Item> {
    let pairs = samples.iter().filter(|sample| sample.item.sample == 0 && sample.error.is_none());
    let pairs = pairs.filter_map(|sample| Some((&sample.item, &sample.output, references.get(&sample.item.id)?)));
    let both = pairs.flat_map(|(item, own, other)| {
        let question = question(item);
        [(true, own, other), (false, other, own)].map(|(is_first, a, b)| Item {
            id: format!("{}/{}", item.id, if is_first { "ab" } else { "ba" }),
            prompt: format!(
                "{INSTRUCTIONS}\n\n[Request]\n{question}\n\n[Answer A]\n{a}\n[End of answer A]\n\n[Answer B]\n{b}\n\
                 [End of answer B]"
            ),
            max_tokens: MAX_TOKENS,
            doc: json!({"item": item.id, "first": is_first}),
            ..Item::default()
        })
    });
    both.collect()
}

/// The text of an item's question.
fn question(item: &Item) -> String {
    if item.messages.is_empty() { item.prompt.clone() } else { raters::question(&item.messages) }
}

/// Judgements on one system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgements {
    /// Share of wins, ties counted half, over items; the two orders of an item are averaged. `None`
    /// without a reply that has a mark.
    pub win_rate: Option<Estimate>,
    /// Number of items with a mark in at least one order.
    pub n: usize,
    /// Number of replies without a mark.
    pub unmarked: usize,
    /// Number of replies that failed.
    pub failed: usize,
    /// Share of the items, among those with both marks, on which the two orders agree.
    pub consistent: Option<f64>,
}

impl Judgements {
    /// Aggregates a judge's replies to [`items`].
    #[must_use]
    pub fn of(replies: &[Sample]) -> Self {
        let mut points: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let (mut unmarked, mut failed) = (0, 0);
        for reply in replies {
            let is_first = reply.item.doc["first"] == true;
            match choice(&reply.output) {
                _ if reply.error.is_some() => failed += 1,
                None => unmarked += 1,
                Some(choice) => points.entry(reply.item.text("item")).or_default().push(match choice {
                    Choice::Tie => 0.5,
                    choice => f64::from(u8::from((choice == Choice::A) == is_first)),
                }),
            }
        }
        let means: Vec<f64> = points.values().map(|both| both.iter().sum::<f64>() / both.len() as f64).collect();
        let both: Vec<_> = points.values().filter(|both| both.len() > 1).collect();
        let equal = both.iter().filter(|both| both.iter().all(|one| *one == both[0])).count();
        Self {
            n: means.len(),
            win_rate: mean_of_means(&[means]),
            unmarked,
            failed,
            consistent: (!both.is_empty()).then(|| equal as f64 / both.len() as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(item: Item, output: &str) -> Sample {
        Sample { item, output: output.into(), scores: Vec::new(), error: None, wsd: None }
    }

    #[test]
    fn both_orders_count_and_nothing_is_dropped_silently() {
        let answers: Vec<_> = ["1", "2", "3"]
            .map(|id| sample(Item { id: id.into(), prompt: "Why?".into(), ..Item::default() }, "own"))
            .into();
        let references = BTreeMap::from([("1".to_owned(), "other".to_owned()), ("2".to_owned(), "other".to_owned())]);
        let asked = items(&answers, &references);
        assert_eq!(asked.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["1/ab", "1/ba", "2/ab", "2/ba"]);
        assert!(asked[1].prompt.contains("[Answer A]\nother\n"));
        // The judge prefers our answer to the first item in both orders, and the first answer shown otherwise.
        let replies = ["[[A]]", "[[B]]", "[[A]]", "none"];
        let replies: Vec<_> = asked.into_iter().zip(replies).map(|(item, reply)| sample(item, reply)).collect();
        let found = Judgements::of(&replies);
        assert_eq!((found.n, found.unmarked, found.failed, found.consistent), (2, 1, 0, Some(1.0)));
        assert_eq!(found.win_rate.map(|rate| rate.value), Some(1.0));
    }
}
