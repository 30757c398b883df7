//! The step that pairs answers: the best against the worst to each prompt.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};
use wsd_core::{ChatRole, Message, splitmix64};

use crate::text::fingerprint;
use crate::{AnswerRow, DataError, PromptRow};

/// The score that decides, for all labels or for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The label; `None` for all others.
    pub label: Option<String>,
    /// Name of the score.
    pub score: String,
}

impl FromStr for By {
    type Err = String;

    /// Parses `SCORE` or `LABEL=SCORE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (label, score) =
            text.split_once('=').map_or((None, text), |(label, score)| (Some(label.to_owned()), score));
        if score.is_empty() {
            return Err(format!("must be SCORE or LABEL=SCORE, got {text}"));
        }
        Ok(Self { label, score: score.to_owned() })
    }
}

/// A preference in the conversational form of TRL, with its origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairRow {
    /// The conversation.
    pub prompt: Vec<Message>,
    /// The better answer.
    pub chosen: [Message; 1],
    /// The worse answer.
    pub rejected: [Message; 1],
    /// Identifier of the prompt.
    pub id: String,
    /// Name of the data set.
    pub source: String,
    /// Purpose of the prompt; may be empty.
    pub label: String,
    /// Name of the score that decided.
    pub by: String,
    /// Score of the better answer.
    pub score_chosen: f64,
    /// Score of the worse answer.
    pub score_rejected: f64,
    /// Author of the better answer.
    pub author_chosen: String,
    /// Author of the worse answer.
    pub author_rejected: String,
}

/// A prompt without a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeftOut {
    /// Identifier of the prompt.
    pub id: String,
    /// `single` for fewer than two scored answers, `tie` for equal scores, `margin` for a difference below
    /// the margin, `same_text` for two answers of the same text.
    pub reason: &'static str,
    /// The evidence.
    pub detail: Value,
}

/// Pairs, and prompts without one.
#[derive(Clone, Debug, Default)]
pub struct Paired {
    /// One pair for each prompt that has one, in the order of the answers.
    pub pairs: Vec<PairRow>,
    /// The other prompts.
    pub left_out: Vec<LeftOut>,
}

impl Paired {
    /// Numbers of prompts without a pair by reason.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for left_out in &self.left_out {
            *counts.entry(left_out.reason).or_default() += 1;
        }
        counts
    }
}

/// The rule that makes pairs.
#[derive(Clone, Debug)]
pub struct Pairing {
    /// Scores that decide; the first one that is for a prompt's label, or for all.
    pub by: Vec<By>,
    /// The smallest difference of scores; pairs of equal scores are never made.
    pub margin: f64,
}

impl Pairing {
    /// Pairs the answers to each prompt. Empty answers do not count.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no prompt has a pair.
    pub fn pair(&self, answers: &[AnswerRow]) -> Result<Paired, DataError> {
        let (mut order, mut groups): (Vec<&PromptRow>, BTreeMap<&str, Vec<&AnswerRow>>) = (Vec::new(), BTreeMap::new());
        for row in answers {
            let group = groups.entry(&row.prompt.id).or_default();
            if group.is_empty() {
                order.push(&row.prompt);
            }
            group.push(row);
        }
        let mut paired = Paired::default();
        for prompt in &order {
            match self.best_and_worst(prompt, &groups[prompt.id.as_str()]) {
                Ok(pair) => paired.pairs.push(pair),
                Err(left_out) => paired.left_out.push(left_out),
            }
        }
        if paired.pairs.is_empty() {
            let reasons = paired.counts().into_iter().map(|(reason, count)| format!("{reason} {count}"));
            let reasons = reasons.collect::<Vec<_>>().join(", ");
            let hint = "score the answers with `wsd data score`, sample more of them, or lower --margin";
            return Err(DataError::Empty { what: "pair", of: order.len(), reasons, hint });
        }
        Ok(paired)
    }

    fn best_and_worst(&self, prompt: &PromptRow, group: &[&AnswerRow]) -> Result<PairRow, LeftOut> {
        let left_out = |reason, detail| LeftOut { id: prompt.id.clone(), reason, detail };
        let applies = |by: &&By| by.label.as_ref().is_none_or(|label| *label == prompt.label);
        // A score for one label goes before one for all.
        let by = self.by.iter().filter(applies).max_by_key(|by| by.label.is_some());
        let Some(by) = by else { return Err(left_out("single", json!("no score for its label"))) };
        let scored = group.iter().filter(|row| !row.answer.output.trim().is_empty());
        let scored: Vec<_> = scored.filter_map(|row| Some((*row.answer.scores.get(&by.score)?, &row.answer))).collect();
        // Of equals the first is taken.
        let best = scored.iter().copied().reduce(|best, next| if next.0 > best.0 { next } else { best });
        let worst = scored.iter().copied().reduce(|worst, next| if next.0 < worst.0 { next } else { worst });
        let (Some((high, best)), Some((low, worst)), 2..) = (best, worst, scored.len()) else {
            return Err(left_out("single", scored.len().into()));
        };
        match high - low {
            difference if difference <= 0.0 => Err(left_out("tie", high.into())),
            difference if difference < self.margin => Err(left_out("margin", difference.into())),
            _ if best.output == worst.output => Err(left_out("same_text", best.output.clone().into())),
            _ => Ok(PairRow {
                prompt: prompt.messages.clone(),
                chosen: [Message::new(ChatRole::Assistant, &best.output)],
                rejected: [Message::new(ChatRole::Assistant, &worst.output)],
                id: prompt.id.clone(),
                source: prompt.source.clone(),
                label: prompt.label.clone(),
                by: by.score.clone(),
                score_chosen: high,
                score_rejected: low,
                author_chosen: best.by.clone(),
                author_rejected: worst.by.clone(),
            }),
        }
    }
}

/// Divides pairs into training and evaluation: of each label the share `evaluation`, chosen by a hash of
/// the prompt's words and `seed`, so that equal prompts fall on one side.
#[must_use]
pub fn split(pairs: Vec<PairRow>, evaluation: f64, seed: u64) -> (Vec<PairRow>, Vec<PairRow>) {
    let hash = |pair: &PairRow| {
        let text: Vec<_> = pair.prompt.iter().map(|message| message.content.as_str()).collect();
        splitmix64(fingerprint(&text.join("\n")) ^ splitmix64(seed))
    };
    let mut by_label: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for pair in &pairs {
        by_label.entry(pair.label.clone()).or_default().push(hash(pair));
    }
    for hashes in by_label.values_mut() {
        hashes.sort_unstable();
        hashes.truncate((hashes.len() as f64 * evaluation).round() as usize);
    }
    let is_evaluation = |pair: &PairRow| by_label[&pair.label].binary_search(&hash(pair)).is_ok();
    let (evaluation, training) = pairs.into_iter().partition(is_evaluation);
    (training, evaluation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;

    fn answer(id: &str, output: &str, score: Option<f64>) -> AnswerRow {
        let messages = vec![Message::new(ChatRole::User, format!("Question {id}?"))];
        let prompt = PromptRow { id: id.into(), label: "helpful".into(), messages, ..PromptRow::default() };
        let scores = score.map(|score| ("r".to_owned(), score)).into_iter().collect();
        let answer = Answer { by: "draft".into(), output: output.into(), scores, ..Answer::default() };
        AnswerRow { prompt, answer }
    }

    fn pairing(margin: f64) -> Pairing {
        Pairing { by: vec!["r".parse().unwrap()], margin }
    }

    #[test]
    fn the_best_meets_the_worst_and_all_others_are_told() {
        let answers = [
            answer("1", "mid", Some(0.5)),
            answer("1", "bad", Some(0.1)),
            answer("1", "good", Some(0.9)),
            answer("2", "a", Some(0.5)),
            answer("2", "b", Some(0.5)),
            answer("3", "a", Some(0.5)),
            answer("3", "b", Some(0.4)),
            answer("4", "a", Some(0.5)),
            answer("4", " ", Some(0.0)),
            answer("4", "unscored", None),
            answer("5", "same", Some(1.0)),
            answer("5", "same", Some(0.0)),
        ];
        let found = pairing(0.2).pair(&answers).unwrap();
        let [pair] = found.pairs.as_slice() else { panic!("one pair: {found:?}") };
        assert_eq!((pair.chosen[0].content.as_str(), pair.rejected[0].content.as_str()), ("good", "bad"));
        let reasons: Vec<_> = found.left_out.iter().map(|left| (left.id.as_str(), left.reason)).collect();
        assert_eq!(reasons, [("2", "tie"), ("3", "margin"), ("4", "single"), ("5", "same_text")]);
        let error = pairing(5.0).pair(&answers[..5]).unwrap_err().to_string();
        assert!(error.starts_with("no pair is left of 2: margin 1, tie 1\n  hint: "), "{error}");
    }

    #[test]
    fn a_label_may_have_a_score_of_its_own() {
        let mut rows = [answer("1", "a", Some(1.0)), answer("1", "b", Some(0.0))];
        rows[0].answer.scores.insert("guard".into(), 0.0);
        rows[1].answer.scores.insert("guard".into(), 1.0);
        let by = vec!["r".parse().unwrap(), "helpful=guard".parse().unwrap()];
        let found = Pairing { by, margin: 0.0 }.pair(&rows).unwrap();
        assert_eq!((found.pairs[0].chosen[0].content.as_str(), found.pairs[0].by.as_str()), ("b", "guard"));
    }

    #[test]
    fn the_split_depends_on_prompts_alone() {
        let answers = (0..40).flat_map(|at| {
            let id = at.to_string();
            [answer(&id, "a", Some(1.0)), answer(&id, "b", Some(0.0))]
        });
        let pairs = pairing(0.0).pair(&answers.collect::<Vec<_>>()).unwrap().pairs;
        let ids = |pairs: &[PairRow]| {
            let mut ids: Vec<_> = pairs.iter().map(|pair| pair.id.clone()).collect();
            ids.sort();
            ids
        };
        let (training, evaluation) = split(pairs.clone(), 0.1, 1);
        assert_eq!((training.len(), evaluation.len()), (36, 4));
        let reversed: Vec<_> = pairs.into_iter().rev().collect();
        assert_eq!(ids(&split(reversed.clone(), 0.1, 1).1), ids(&evaluation));
        assert_ne!(ids(&split(reversed, 0.1, 2).1), ids(&evaluation));
    }
}
