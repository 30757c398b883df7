//! A grade from 1 to 10 by a judge, as in MT-Bench (Zheng et al. 2023, arXiv 2306.05685).

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use regex::Regex;
use wsd_core::{Need, Recipe, Result, Seat};

use super::prompted::{JUDGE_PROMPT, Prompted};
use super::{Rated, Rater, Rating};

pub(super) static RECIPE: Recipe<dyn Rater> = Recipe {
    name: "grade",
    title: "grade",
    about: "a grade from 1 to 10 that a judge writes as [[7]] (--model judge=MODEL)",
    needs: &[Need::any(Seat::JUDGE)],
    settings: &[&JUDGE_PROMPT],
    make: |models, values| Ok(Arc::new(Grade(Prompted::try_new(RECIPE.name, models, (values, Some(TEXT)), 512)?))),
};

/// The text that the judge is shown.
const TEXT: &str = "Grade an answer to the request of a user. Judge whether it does what the user asks, is correct, \
    clear and complete, and declines what would do harm. Its length does not count. Explain the grade in a few \
    sentences. End with the grade from 1 (useless) to 10 (could not be better) in double brackets, as [[5]].\n\n\
    [Request]\n{question}\n\n[Answer]\n{answer}\n[End of the answer]";

struct Grade(Prompted);

#[async_trait]
impl Rater for Grade {
    async fn rate(&self, rated: &Rated<'_>) -> Result<Rating> {
        self.0.rate(rated, grade).await
    }
}

/// Finds the grade of a reply: the first number in double brackets, else the first in single ones, as
/// MT-Bench's program. `None` without one, or with one outside 1 to 10.
///
/// ```
/// use wsd_eval::raters::grade;
/// assert_eq!(grade("Clear and right. Rating: [[8.5]]"), Some(8.5));
/// assert_eq!(grade("Rating: [7]"), Some(7.0));
/// assert_eq!((grade("Rating: 7"), grade("[[11]]")), (None, None));
/// ```
#[must_use]
pub fn grade(reply: &str) -> Option<f64> {
    static MARKS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
        let patterns = [r"\[\[(\d+\.?\d*)\]\]", r"\[(\d+\.?\d*)\]"];
        patterns.iter().filter_map(|pattern| Regex::new(pattern).ok()).collect()
    });
    let found = MARKS.iter().find_map(|mark| mark.captures(reply))?;
    found[1].parse().ok().filter(|grade| (1.0..=10.0).contains(grade))
}
