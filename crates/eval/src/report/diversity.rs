//! Diversity of texts.

use std::collections::{BTreeMap, BTreeSet};

/// Distinct n-grams of words divided by all n-grams of words, over all texts together (distinct-n,
/// Li et al. 2016, arXiv 1510.03055). Words are separated by white space. 0 without an n-gram.
///
/// ```
/// use wsd_eval::report::distinct;
/// assert_eq!(distinct(["a b a b"].into_iter(), 1), 0.5);
/// assert_eq!(distinct(["a b a b"].into_iter(), 2), 2.0 / 3.0);
/// ```
#[must_use]
pub fn distinct<'a>(texts: impl Iterator<Item = &'a str>, n: usize) -> f64 {
    let (mut seen, mut all) = (BTreeSet::new(), 0_usize);
    for text in texts {
        let words: Vec<&str> = text.split_whitespace().collect();
        for gram in words.windows(n.max(1)) {
            seen.insert(gram.to_vec());
            all += 1;
        }
    }
    if all == 0 { 0.0 } else { seen.len() as f64 / all as f64 }
}

/// Longest n-gram of [`self_bleu`].
const MAX_N: usize = 4;
/// Number of matches in the place of none (method 1 of Chen and Cherry 2014, as NLTK has it).
const EPSILON: f64 = 0.1;

/// Mean BLEU-4 of each text with the others as references (self-BLEU, Zhu et al. 2018, arXiv
/// 1802.01886): 1 for equal texts, near 0 for texts without a common word. Words are separated by white
/// space. `None` for fewer than two texts with a word.
///
/// ```
/// use wsd_eval::report::self_bleu;
/// assert_eq!(self_bleu(&["a b c d e", "a b c d e"]), Some(1.0));
/// assert!(self_bleu(&["a b c d e", "v w x y z"]).unwrap() < 0.05);
/// assert_eq!(self_bleu(&["a b c d e"]), None);
/// ```
#[must_use]
pub fn self_bleu(texts: &[&str]) -> Option<f64> {
    let texts: Vec<Vec<&str>> = texts.iter().map(|text| text.split_whitespace().collect()).collect();
    let texts: Vec<_> = texts.into_iter().filter(|words| !words.is_empty()).collect();
    let score = |at: usize| {
        let others: Vec<_> =
            texts.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, words)| words).collect();
        bleu(&texts[at], &others)
    };
    (texts.len() > 1).then(|| (0..texts.len()).map(score).sum::<f64>() / texts.len() as f64)
}

/// BLEU-4 of a text with equal weights (Papineni et al. 2002).
fn bleu(text: &[&str], references: &[&Vec<&str>]) -> f64 {
    let log_precision = |n: usize| {
        let grams = counted(text, n);
        let all: usize = grams.values().sum();
        let references: Vec<_> = references.iter().map(|reference| counted(reference, n)).collect();
        let most = |gram: &[&str]| references.iter().filter_map(|counts| counts.get(gram)).max().copied().unwrap_or(0);
        let matches: usize = grams.iter().map(|(gram, count)| (*count).min(most(gram))).sum();
        let matches = if matches == 0 { EPSILON } else { matches as f64 };
        (matches / all.max(1) as f64).ln()
    };
    if counted(text, 1).keys().all(|word| references.iter().all(|reference| !reference.contains(&word[0]))) {
        return 0.0;
    }
    let len = text.len();
    let closest = references.iter().map(|reference| reference.len()).min_by_key(|other| (other.abs_diff(len), *other));
    let penalty = closest.filter(|closest| *closest > len).map_or(0.0, |closest| 1.0 - closest as f64 / len as f64);
    (penalty + (1..=MAX_N).map(log_precision).sum::<f64>() / MAX_N as f64).exp()
}

/// Counts the n-grams of a text.
fn counted<'a, 'b>(words: &'b [&'a str], n: usize) -> BTreeMap<&'b [&'a str], usize> {
    let mut counts = BTreeMap::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] = [
        "Bees need flowers near the hive and clean water.",
        "Bees need flowers and water near the hive.",
        "Put the hive near flowers , and give the bees clean water in a shallow dish.",
        "No .",
        "Zebras graze",
    ];
    const WANT: [f64; 5] = [0.1803607563513132, 0.16593602907493957, 0.03557982867938776, 0.0, 0.0];

    #[test]
    fn bleu_equals_nltk() {
        // nltk.translate.bleu_score.sentence_bleu(references, text, smoothing_function=SmoothingFunction().method1)
        let texts: Vec<Vec<&str>> = TEXTS.iter().map(|text| text.split_whitespace().collect()).collect();
        for (at, want) in WANT.iter().enumerate() {
            let others: Vec<_> = texts.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, w)| w).collect();
            let got = bleu(&texts[at], &others);
            assert!((got - want).abs() < 1e-9, "{at}: {got}");
        }
    }
}
