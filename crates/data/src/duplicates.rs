//! Equal and nearly equal texts.
//!
//! Two texts are equal if their words are. They are nearly equal if the sets of their runs of five
//! characters have a Jaccard similarity of at least a threshold. MinHash (Broder 1997) finds the
//! candidates: with 128 hashes in 32 bands of 4, a pair of similarity J becomes one with the probability
//! 1 - (1 - J^4)^32, which is 0.9998 at 0.7. Each candidate is then compared exactly, so that no pair
//! below the threshold is taken for one.

use std::collections::{BTreeSet, HashMap};

use wsd_core::splitmix64;

use crate::text::{normalized, shingles};

/// Number of hash functions.
const HASHES: usize = 128;
/// Number of bands that the hashes are divided into.
const BANDS: usize = 32;
/// Length of a shingle, in characters.
pub const SHINGLE: usize = 5;

/// The smallest hash of a set under each of 128 hash functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinHash([u64; HASHES]);

impl MinHash {
    /// The signature of a set.
    #[must_use]
    pub fn of(set: &BTreeSet<u64>) -> Self {
        let mut signature = [u64::MAX; HASHES];
        for &element in set {
            for (function, least) in signature.iter_mut().enumerate() {
                *least = (*least).min(splitmix64(element ^ splitmix64(function as u64)));
            }
        }
        Self(signature)
    }

    /// Estimate of the Jaccard similarity of two sets: the share of hash functions under which their
    /// smallest hashes are equal.
    ///
    /// ```
    /// use wsd_data::duplicates::{MinHash, jaccard};
    /// let (a, b) = ((0..900).collect(), (300..1200).collect());
    /// let estimate = MinHash::of(&a).similarity(&MinHash::of(&b));
    /// assert_eq!(jaccard(&a, &b), 0.5);
    /// assert!((estimate - 0.5).abs() < 0.12, "{estimate}");
    /// ```
    #[must_use]
    pub fn similarity(&self, other: &Self) -> f64 {
        self.0.iter().zip(&other.0).filter(|(a, b)| a == b).count() as f64 / HASHES as f64
    }

    /// Keys of the bands; two sets that share one are candidates.
    fn bands(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let fold = |key: u64, hash: &u64| splitmix64(key ^ hash);
        self.0.chunks(HASHES / BANDS).map(move |rows| rows.iter().fold(0, fold)).enumerate()
    }
}

/// Size of the intersection of two sets divided by that of their union; 1 for two empty sets.
#[must_use]
pub fn jaccard(a: &BTreeSet<u64>, b: &BTreeSet<u64>) -> f64 {
    let common = a.intersection(b).count();
    let all = a.len() + b.len() - common;
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

/// A text that repeats an earlier one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicate {
    /// Index of the earlier text, by the order of [`Duplicates::add`].
    pub of: usize,
    /// Jaccard similarity of the two; 1 for equal words.
    pub similarity: f64,
}

/// The texts seen so far.
#[derive(Debug)]
pub struct Duplicates {
    threshold: f64,
    equal: HashMap<String, usize>,
    bands: HashMap<(usize, u64), Vec<usize>>,
    kept: HashMap<usize, BTreeSet<u64>>,
    count: usize,
}

impl Duplicates {
    /// No texts yet. Texts count as nearly equal from a Jaccard similarity of `threshold` on; above 1
    /// only equal ones are found.
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        let (equal, bands, kept) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { threshold, equal, bands, kept, count: 0 }
    }

    /// Adds a text. Returns the earlier text that it repeats: an equal one, or else the most similar
    /// one among those that repeat none themselves.
    ///
    /// ```
    /// use wsd_data::duplicates::Duplicates;
    /// let mut seen = Duplicates::new(0.7);
    /// assert_eq!(seen.add("Give three tips for staying healthy."), None);
    /// assert_eq!(seen.add("give three tips for staying healthy").unwrap().similarity, 1.0);
    /// assert_eq!(seen.add("Please give three tips for staying healthy.").unwrap().of, 0);
    /// assert_eq!(seen.add("Name three primary colors."), None);
    /// ```
    pub fn add(&mut self, text: &str) -> Option<Duplicate> {
        let index = self.count;
        self.count += 1;
        let text = normalized(text);
        if let Some(&of) = self.equal.get(&text) {
            return Some(Duplicate { of, similarity: 1.0 });
        }
        let set = shingles(&text, SHINGLE);
        self.equal.insert(text, index);
        if self.threshold > 1.0 {
            return None;
        }
        let signature = MinHash::of(&set);
        let found = self.most_similar(&set, &signature);
        if found.is_none() {
            for band in signature.bands() {
                self.bands.entry(band).or_default().push(index);
            }
            self.kept.insert(index, set);
        }
        found
    }

    fn most_similar(&self, set: &BTreeSet<u64>, signature: &MinHash) -> Option<Duplicate> {
        let candidates: BTreeSet<usize> =
            signature.bands().filter_map(|band| self.bands.get(&band)).flatten().copied().collect();
        let found = candidates.into_iter().filter_map(|of| {
            let similarity = jaccard(set, self.kept.get(&of)?);
            (similarity >= self.threshold).then_some(Duplicate { of, similarity })
        });
        found.reduce(|best, next| if next.similarity > best.similarity { next } else { best })
    }
}
