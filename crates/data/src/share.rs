//! Shares of labels, and evenly spread parts of lists.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::{DataError, PromptRow};

/// The part that a label is to have, relative to the other labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The label.
    pub label: String,
    /// Weight of the label, above 0.
    pub weight: f64,
}

impl FromStr for Share {
    type Err = String;

    /// Parses `LABEL=WEIGHT`.
    ///
    /// ```
    /// let share: wsd_data::share::Share = "harmless=0.4".parse()?;
    /// assert_eq!((share.label.as_str(), share.weight), ("harmless", 0.4));
    /// # Ok::<(), String>(())
    /// ```
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(label, weight)| Some((label, weight.parse::<f64>().ok()?)));
        match parsed {
            Some((label, weight)) if !label.is_empty() && weight.is_finite() && weight > 0.0 => {
                Ok(Self { label: label.to_owned(), weight })
            }
            _ => Err(format!("must be LABEL=WEIGHT with a weight above 0, got {text}")),
        }
    }
}

/// Tells which rows to keep so that the labels have their shares and as many rows as possible remain,
/// evenly spread over the rows of each label. Rows of labels without a share are dropped.
///
/// # Errors
/// [`DataError::Setting`] for a label that no row has.
pub fn keep(rows: &[PromptRow], shares: &[Share]) -> Result<Vec<bool>, DataError> {
    if shares.is_empty() {
        return Ok(vec![true; rows.len()]);
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(&row.label).or_default() += 1;
    }
    let mut total = f64::INFINITY;
    for share in shares {
        let Some(&count) = counts.get(share.label.as_str()) else {
            let known = counts.keys().map(|label| if label.is_empty() { "none" } else { label });
            let limit = format!("for labels of the prompts ({})", known.collect::<Vec<_>>().join(", "));
            return Err(DataError::Setting { name: "share", limit, value: share.label.clone() });
        };
        total = total.min(count as f64 / share.weight);
    }
    let mut spreads: BTreeMap<&str, Spread> = BTreeMap::new();
    for share in shares {
        let count = counts.get(share.label.as_str()).copied().unwrap_or_default();
        spreads.insert(&share.label, Spread::new((total * share.weight).round() as usize, count));
    }
    Ok(rows.iter().map(|row| spreads.get_mut(row.label.as_str()).is_some_and(Spread::keeps_next)).collect())
}

/// A choice of `kept` of `count` places, evenly spread.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    kept: usize,
    count: usize,
    place: usize,
}

impl Spread {
    /// Keeps `kept` of `count` places; all of them if there are fewer.
    #[must_use]
    pub fn new(kept: usize, count: usize) -> Self {
        Self { kept: kept.min(count), count, place: 0 }
    }

    /// Tells whether the next place is kept.
    ///
    /// ```
    /// let mut spread = wsd_data::share::Spread::new(2, 4);
    /// assert_eq!([(); 4].map(|()| spread.keeps_next()), [false, true, false, true]);
    /// ```
    pub fn keeps_next(&mut self) -> bool {
        let (place, count) = (self.place, self.count.max(1));
        self.place += 1;
        place < self.count && (place + 1) * self.kept / count > place * self.kept / count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_label_decides() {
        let row = |label: &str| PromptRow { label: label.into(), ..PromptRow::default() };
        let rows: Vec<_> = ["a", "a", "b", "a", "a", "c", "a", "a"].map(row).into();
        let shares = ["a=3".parse().unwrap(), "b=1".parse().unwrap()];
        let kept = keep(&rows, &shares).unwrap();
        let labels: Vec<_> = rows.iter().zip(kept).filter(|(_, kept)| *kept).map(|(row, _)| &row.label).collect();
        assert_eq!(labels, ["a", "b", "a", "a"]);
        let fault = keep(&rows, &["x=1".parse().unwrap()]).unwrap_err().to_string();
        assert_eq!(fault, "`share` must be for labels of the prompts (a, b, c), got x");
    }
}
