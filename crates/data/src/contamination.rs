//! Prompts that occur in evaluation sets.
//!
//! A prompt is contaminated if one of its runs of n words stands in a text of an evaluation set, as in
//! the reports of GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C, with n = 8 to 13). Texts of an
//! evaluation set with fewer words than n count only where they are the whole prompt.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::text::words;

/// Examples that a report lists for each set.
const LISTED: usize = 5;

/// An overlap of a prompt with an evaluation set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// Name of the set.
    pub set: String,
    /// Identifier of the text in the set.
    pub item: String,
    /// The words in common.
    pub gram: String,
}

/// The n-grams of evaluation sets.
#[derive(Clone, Debug)]
pub struct EvaluationSets {
    n: usize,
    /// Number of texts of each set.
    sizes: BTreeMap<String, usize>,
    grams: HashMap<String, (String, String)>,
    short: HashMap<String, (String, String)>,
}

impl EvaluationSets {
    /// No sets yet. `n` is the number of words in a run, at least 1.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let (sizes, grams, short) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        Self { n: n.max(1), sizes, grams, short }
    }

    /// Adds a text of a set.
    pub fn add(&mut self, set: &str, item: &str, text: &str) {
        *self.sizes.entry(set.to_owned()).or_default() += 1;
        let words = words(text);
        let place = || (set.to_owned(), item.to_owned());
        if words.len() < self.n {
            self.short.entry(words.join(" ")).or_insert_with(place);
        }
        for gram in words.windows(self.n) {
            self.grams.entry(gram.join(" ")).or_insert_with(place);
        }
    }

    /// Numbers of texts by set.
    #[must_use]
    pub fn sizes(&self) -> &BTreeMap<String, usize> {
        &self.sizes
    }

    /// The first run of words of a prompt that stands in a set.
    ///
    /// ```
    /// use wsd_data::contamination::EvaluationSets;
    /// let mut sets = EvaluationSets::new(4);
    /// sets.add("test", "7", "Where do wild bees sleep in winter?");
    /// sets.add("test", "8", "Who are you?");
    /// assert_eq!(sets.overlap("Tell me: do wild bees sleep at all?").unwrap().gram, "do wild bees sleep");
    /// assert_eq!(sets.overlap("who are you").unwrap().item, "8");
    /// assert_eq!(sets.overlap("Who are you talking to?"), None);
    /// ```
    #[must_use]
    pub fn overlap(&self, prompt: &str) -> Option<Overlap> {
        let words = words(prompt);
        let found =
            |gram: String, (set, item): &(String, String)| Overlap { set: set.clone(), item: item.clone(), gram };
        let whole = words.join(" ");
        if let Some(place) = self.short.get(&whole).filter(|_| !whole.is_empty()) {
            return Some(found(whole, place));
        }
        words.windows(self.n).map(|gram| gram.join(" ")).find_map(|gram| {
            let place = self.grams.get(&gram)?;
            Some(found(gram, place))
        })
    }
}

/// Overlaps found with one set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReport {
    /// Number of texts of the set.
    pub texts: usize,
    /// Number of prompts that overlap with it.
    pub prompts: usize,
    /// The first of these, each with its identifier.
    pub examples: Vec<(String, Overlap)>,
}

/// Counts overlaps by set; `found` has the identifier of each contaminated prompt.
#[must_use]
pub fn report(sets: &EvaluationSets, found: &[(String, Overlap)]) -> BTreeMap<String, SetReport> {
    let empty = |(set, &texts): (&String, &usize)| (set.clone(), SetReport { texts, ..SetReport::default() });
    let mut reports: BTreeMap<String, SetReport> = sets.sizes().iter().map(empty).collect();
    for (id, overlap) in found {
        let report = reports.entry(overlap.set.clone()).or_default();
        report.prompts += 1;
        if report.examples.len() < LISTED {
            report.examples.push((id.clone(), overlap.clone()));
        }
    }
    reports
}
