//! Parts of the tasks that are scored: choices are continuations of a context, and the likeliest one
//! is the answer.

use serde_json::json;

use crate::{ChoiceScore, Item, Metric, Response, Score, Verdict};

/// Metrics of a task whose choices differ in length.
pub(super) const NORMALIZED: &[Metric] = &[Metric::new("acc_norm", "acc_norm,none"), Metric::new("acc", "acc,none")];
/// The metric of a task whose choices are labels.
pub(super) const PLAIN: &[Metric] = &[Metric::new("acc", "acc,none")];

/// An item whose choices follow its context after a space, as in lm-evaluation-harness.
pub(super) fn item(id: String, context: String, choices: &[String], gold: usize) -> Item {
    let lengths: Vec<usize> = choices.iter().map(|choice| choice.chars().count()).collect();
    Item {
        id,
        prompt: context,
        choices: choices.iter().map(|choice| format!(" {choice}")).collect(),
        max_tokens: 1,
        doc: json!({"gold": gold, "lengths": lengths}),
        ..Item::default()
    }
}

/// Index of the first largest value.
pub(super) fn argmax(values: impl Iterator<Item = f64>) -> Option<usize> {
    values.enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(index, _)| index)
}

/// Accuracy by log-likelihood, and by log-likelihood divided by the length of the choice in characters.
pub(super) fn grade(item: &Item, response: Response<'_>) -> Verdict {
    let lengths: Vec<f64> = serde_json::from_value(item.doc["lengths"].clone()).unwrap_or_default();
    let gold = item.index("gold");
    let normalized = |(score, length): (&ChoiceScore, &f64)| score.logprob / length;
    let plain = argmax(response.choices.iter().map(|score| score.logprob));
    let by_length = argmax(response.choices.iter().zip(&lengths).map(normalized));
    let is_right = |found: Option<usize>| Score::of(found.is_some() && found == gold);
    Verdict::default().with("acc", is_right(plain)).with("acc_norm", is_right(by_length))
}

/// Accuracy by log-likelihood alone.
pub(super) fn grade_plain(item: &Item, response: Response<'_>) -> Verdict {
    let mut verdict = grade(item, response);
    verdict.scores.remove("acc_norm");
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_characters_and_the_first_of_equals_wins() {
        let item = item("1".into(), "c".into(), &["é".into(), "abcd".into()], 1);
        assert_eq!(item.choices, [" é", " abcd"]);
        let score = |logprob| ChoiceScore { logprob, tokens: 1 };
        let verdict = grade(&item, Response { text: "", choices: &[score(-2.0), score(-3.0)] });
        assert_eq!((verdict.scores["acc"].sum, verdict.scores["acc_norm"].sum), (0.0, 1.0));
        let tie = grade(&item, Response { text: "", choices: &[score(-2.0), score(-2.0)] });
        assert_eq!(tie.scores["acc"].sum, 0.0);
    }
}
