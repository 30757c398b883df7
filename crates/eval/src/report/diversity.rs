//! Diversity of texts.

use std::collections::BTreeSet;

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
