//! The step that leaves prompts out.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contamination::{EvaluationSets, Overlap, SetReport, report};
use crate::duplicates::Duplicates;
use crate::share::{Share, Spread, keep};
use crate::text::script;
use crate::{DataError, PromptRow};

/// Rules that prompts must satisfy, applied in this order.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The fewest words of the whole conversation, separated by white space.
    pub min_words: usize,
    /// The most words of the whole conversation.
    pub max_words: usize,
    /// The script of most letters.
    pub script: Option<String>,
    /// Patterns that no message may contain.
    pub exclude: Vec<Regex>,
    /// Jaccard similarity from which on two prompts count as nearly equal; above 1 for equal ones only.
    pub near: f64,
    /// Texts that prompts must not overlap with.
    pub sets: EvaluationSets,
    /// Shares of labels.
    pub shares: Vec<Share>,
    /// The most prompts, evenly spread.
    pub limit: Option<usize>,
}

/// A prompt that a rule leaves out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Removed {
    /// Identifier of the prompt.
    pub id: String,
    /// Name of the rule.
    pub rule: &'static str,
    /// The evidence.
    pub detail: Value,
}

/// The prompts that remain, and those that do not.
#[derive(Clone, Debug, Default)]
pub struct Filtered {
    /// Prompts that satisfy all rules.
    pub kept: Vec<PromptRow>,
    /// The others, in the order of the rules.
    pub removed: Vec<Removed>,
    /// Overlaps by evaluation set.
    pub contamination: BTreeMap<String, SetReport>,
}

impl Filtered {
    /// Numbers of removed prompts by rule.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for removed in &self.removed {
            *counts.entry(removed.rule).or_default() += 1;
        }
        counts
    }

    /// Removes the prompts for which a rule has evidence.
    fn apply(&mut self, rule: &'static str, mut evidence: impl FnMut(&PromptRow) -> Option<Value>) {
        let removed = &mut self.removed;
        self.kept.retain(|prompt| {
            let detail = evidence(prompt);
            removed.extend(detail.iter().map(|detail| Removed { id: prompt.id.clone(), rule, detail: detail.clone() }));
            detail.is_none()
        });
    }
}

impl Filter {
    /// Applies the rules.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no prompt is left; [`DataError::Setting`] for a share of a label that no
    /// prompt has.
    pub fn apply(&self, prompts: Vec<PromptRow>) -> Result<Filtered, DataError> {
        let of = prompts.len();
        let mut found = Filtered { kept: prompts, ..Filtered::default() };
        let words = |prompt: &PromptRow| prompt.text().split_whitespace().count();
        found.apply("short", |prompt| Some(words(prompt)).filter(|&count| count < self.min_words).map(Value::from));
        found.apply("long", |prompt| Some(words(prompt)).filter(|&count| count > self.max_words).map(Value::from));
        if let Some(wanted) = &self.script {
            found.apply("script", |prompt| {
                Some(script(&prompt.text())).filter(|s| *s != Some(wanted)).map(|s| json!(s))
            });
        }
        found.apply("excluded", |prompt| {
            let text = prompt.text();
            self.exclude.iter().find_map(|pattern| pattern.find(&text)).map(|found| found.as_str().into())
        });
        self.remove_duplicates(&mut found);
        let mut overlaps: Vec<(String, Overlap)> = Vec::new();
        found.apply("contaminated", |prompt| {
            let overlap = self.sets.overlap(&prompt.text())?;
            overlaps.push((prompt.id.clone(), overlap.clone()));
            Some(json!(overlap))
        });
        found.contamination = report(&self.sets, &overlaps);
        let mut shared = keep(&found.kept, &self.shares)?.into_iter();
        found.apply("share", |prompt| (!shared.next().unwrap_or(true)).then(|| prompt.label.clone().into()));
        let mut spread = Spread::new(self.limit.unwrap_or(usize::MAX), found.kept.len());
        found.apply("limit", |_| (!spread.keeps_next()).then_some(Value::Null));
        if found.kept.is_empty() {
            let reasons = found.counts().into_iter().map(|(rule, count)| format!("{rule} {count}"));
            let reasons = reasons.collect::<Vec<_>>().join(", ");
            let reasons = if reasons.is_empty() { "there were none".into() } else { reasons };
            return Err(DataError::Empty { what: "prompt", of, reasons, hint: "loosen the rule that removes most" });
        }
        Ok(found)
    }

    fn remove_duplicates(&self, found: &mut Filtered) {
        let mut seen = Duplicates::new(self.near);
        let duplicates: Vec<_> = found.kept.iter().map(|prompt| seen.add(&prompt.text())).collect();
        let ids: Vec<_> = found.kept.iter().map(|prompt| prompt.id.clone()).collect();
        for (rule, is_equal) in [("equal", true), ("similar", false)] {
            let evidence = ids.iter().zip(&duplicates).filter_map(|(id, duplicate)| {
                let duplicate = (*duplicate)?;
                let detail = json!({"of": ids[duplicate.of], "similarity": duplicate.similarity});
                ((duplicate.similarity >= 1.0) == is_equal).then_some((id.as_str(), detail))
            });
            let evidence: BTreeMap<&str, Value> = evidence.collect();
            found.apply(rule, |prompt| evidence.get(prompt.id.as_str()).cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_core::{ChatRole, Message};

    fn prompts(texts: &[&str]) -> Vec<PromptRow> {
        let prompt = |(at, text): (usize, &&str)| PromptRow {
            id: format!("d/{at}"),
            messages: vec![Message::new(ChatRole::User, *text)],
            ..PromptRow::default()
        };
        texts.iter().enumerate().map(prompt).collect()
    }

    fn filter() -> Filter {
        let (exclude, sets) = (vec![Regex::new("(?i)http").unwrap()], EvaluationSets::new(3));
        let (script, shares) = (Some("latin".into()), Vec::new());
        Filter { min_words: 2, max_words: 9, script, exclude, near: 0.7, sets, shares, limit: None }
    }

    #[test]
    fn every_rule_names_its_evidence() {
        let mut filter = filter();
        filter.sets.add("test", "4", "How long do turtles live?");
        let texts = [
            "How are you today?",
            "Hi",
            "a b c d e f g h i j",
            "как дела сегодня",
            "Read HTTP://x now",
            "how are you today",
            "How are you today, x?",
            "So how long do cats sleep?",
        ];
        let found = filter.apply(prompts(&texts)).unwrap();
        assert_eq!(found.kept.iter().map(|prompt| prompt.id.as_str()).collect::<Vec<_>>(), ["d/0"]);
        let removed: Vec<_> = found.removed.iter().map(|removed| (removed.id.as_str(), removed.rule)).collect();
        let want = [("d/1", "short"), ("d/2", "long"), ("d/3", "script"), ("d/4", "excluded"), ("d/5", "equal")];
        assert_eq!(removed, [&want[..], &[("d/6", "similar"), ("d/7", "contaminated")]].concat());
        assert_eq!(found.removed[4].detail, json!({"of": "d/0", "similarity": 1.0}));
        assert_eq!(found.removed[6].detail, json!({"set": "test", "item": "4", "gram": "how long do"}));
        assert_eq!((found.contamination["test"].texts, found.contamination["test"].prompts), (1, 1));
    }

    #[test]
    fn an_empty_set_is_an_error_that_tells_why() {
        let error = filter().apply(prompts(&["Hi", "Ho"])).unwrap_err().to_string();
        assert_eq!(error, "no prompt is left of 2: short 2\n  hint: loosen the rule that removes most");
    }
}
