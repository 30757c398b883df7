//! Arithmetic on rows: distributions of the next token, combined and filtered.
//!
//! A row holds one number per token of the vocabulary, a logit or a natural log-probability; minus
//! infinity excludes a token. Nothing here needs rows to be normalized, except where it says so. Rows of
//! different lengths belong to vocabularies that differ in padding: the shorter length holds.

use crate::logits::log_sum_exp;
use crate::sampling::kept;
use crate::{Row, Sampling};

/// A row on which every token is excluded, or that holds NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoToken;

/// The tokens that a distribution keeps: top-k, then top-p, then min-p, as in [`Sampling`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    /// The number of most likely tokens to keep; 0 for all.
    pub(crate) top_k: usize,
    /// The probability that the kept tokens reach together; 1 for all.
    pub(crate) top_p: f64,
    /// The least probability of a kept token, relative to the most likely one; 0 for all.
    pub(crate) min_p: f64,
}

impl Filter {
    /// The filter that keeps every token.
    pub(crate) const ALL: Self = Self { top_k: 0, top_p: 1.0, min_p: 0.0 };
}

/// Divides a row by a temperature above 0.
pub(crate) fn temper(row: &mut [f32], temperature: f64) {
    if temperature != 1.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / temperature) as f32);
    }
}

/// Excludes the tokens that a filter does not keep.
pub(crate) fn filter(row: &mut [f32], filter: Filter) -> Result<(), NoToken> {
    let Filter { top_k, top_p, min_p } = filter;
    let (top_p, min_p) = (top_p as f32, min_p as f32);
    let kept = kept(row, &Sampling { temperature: 1.0, top_k, top_p, min_p, ..Sampling::default() }).ok_or(NoToken)?;
    let mut filtered = vec![f32::NEG_INFINITY; row.len()];
    kept.into_iter().for_each(|(id, _)| filtered[id] = row[id]);
    row.copy_from_slice(&filtered);
    Ok(())
}

/// Excludes from `row` the tokens that `by` excludes.
pub(crate) fn mask(row: &mut [f32], by: &[f32]) {
    let kept = by.iter().chain(std::iter::repeat(&f32::NEG_INFINITY));
    row.iter_mut().zip(kept).filter(|(_, by)| **by == f32::NEG_INFINITY).for_each(|(x, _)| *x = f32::NEG_INFINITY);
}

/// The weighted sum of rows, which is the log of a product of powers of their distributions. A token
/// that one of them excludes is excluded.
pub(crate) fn combine(rows: &[(f64, &[f32])]) -> Row {
    let len = rows.iter().map(|(_, row)| row.len()).min().unwrap_or(0);
    let sum = |id: usize| {
        let is_excluded = rows.iter().any(|(_, row)| row[id] == f32::NEG_INFINITY);
        let sum: f64 = rows.iter().map(|(weight, row)| weight * f64::from(row[id])).sum();
        if is_excluded { f32::NEG_INFINITY } else { sum as f32 }
    };
    (0..len).map(sum).collect()
}

/// The mixture `(1 - share) * one + share * other` of two normalized distributions, as logarithms.
pub(crate) fn interpolate(one: &[f32], other: &[f32], share: f64) -> Row {
    let mix = |(&a, &b): (&f32, &f32)| (1.0 - share) * f64::from(a).exp() + share * f64::from(b).exp();
    one.iter().zip(other).map(|pair| mix(pair).ln() as f32).collect()
}

/// The Kullback-Leibler divergence `KL(p || q)` of two normalized distributions, in nats; infinite where
/// `q` excludes a token of `p`.
pub(crate) fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let terms = p.iter().zip(q).filter(|(p, _)| **p > f32::NEG_INFINITY);
    terms.map(|(&p, &q)| f64::from(p).exp() * (f64::from(p) - f64::from(q))).sum()
}

/// The most likely token and its probability, in a normalized distribution.
pub(crate) fn most_likely(row: &[f32]) -> Result<(usize, f64), NoToken> {
    let best = crate::logits::argmax(row).ok_or(NoToken)?;
    Ok((best, f64::from(row[best]).exp()))
}

/// The token at `uniform`, a number in 0..1, of the cumulative distribution of a row.
pub(crate) fn draw(row: &[f32], uniform: f64) -> Result<usize, NoToken> {
    let (lse, best) = log_sum_exp(row).ok_or(NoToken)?;
    let mut left = uniform;
    for (id, &x) in row.iter().enumerate() {
        left -= (f64::from(x) - lse).exp();
        if left < 0.0 {
            return Ok(id);
        }
    }
    // Only rounding leads here.
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(p: &[f64]) -> Row {
        p.iter().map(|p| p.ln() as f32).collect()
    }

    fn probabilities(row: &[f32]) -> Vec<f64> {
        let mut row = row.to_vec();
        crate::log_softmax(&mut row).unwrap();
        row.iter().map(|&x| f64::from(x).exp()).collect()
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {want:?}");
    }

    #[test]
    fn a_temperature_raises_probabilities_to_its_inverse() {
        let mut row = logs(&[0.5, 0.3, 0.2]);
        temper(&mut row, 0.5);
        let z = 0.25 + 0.09 + 0.04;
        close(&probabilities(&row), &[0.25 / z, 0.09 / z, 0.04 / z]);
    }

    #[test]
    fn filters_keep_what_they_define() {
        let row = logs(&[0.1, 0.4, 0.05, 0.3, 0.15]);
        for (filtering, kept) in [
            (Filter::ALL, &[0, 1, 2, 3, 4][..]),
            (Filter { top_k: 2, ..Filter::ALL }, &[1, 3]),
            (Filter { top_p: 0.65, ..Filter::ALL }, &[1, 3]),
            (Filter { top_p: 0.75, ..Filter::ALL }, &[1, 3, 4]),
            (Filter { min_p: 0.3, ..Filter::ALL }, &[1, 3, 4]),
            // Of the two most likely ones, whose masses are 4/7 and 3/7.
            (Filter { top_k: 2, top_p: 0.5, ..Filter::ALL }, &[1]),
        ] {
            let mut row = row.clone();
            filter(&mut row, filtering).unwrap();
            let got: Vec<_> = (0..5).filter(|&id| row[id] > f32::NEG_INFINITY).collect();
            assert_eq!(got, kept, "{filtering:?}");
        }
        assert_eq!(filter(&mut [f32::NEG_INFINITY; 2], Filter::ALL), Err(NoToken));
    }

    #[test]
    fn a_sum_of_rows_is_a_product_of_powers() {
        let (a, b, c) = (logs(&[0.5, 0.25, 0.25]), logs(&[0.2, 0.2, 0.6]), logs(&[0.1, 0.8, 0.1]));
        let product = combine(&[(1.0, &a), (1.0, &b), (-1.0, &c)]);
        let want = [0.5 * 0.2 / 0.1, 0.25 * 0.2 / 0.8, 0.25 * 0.6 / 0.1];
        let z: f64 = want.iter().sum();
        close(&probabilities(&product), &want.map(|w| w / z));
        let excluded = combine(&[(1.0, &a), (-1.0, &[0.0, f32::NEG_INFINITY, 0.0])]);
        assert_eq!(excluded[1], f32::NEG_INFINITY);
        assert_eq!(combine(&[(1.0, &a), (1.0, &b[..2])]).len(), 2, "padding is cut");
    }

    #[test]
    fn a_mixture_a_mask_and_a_divergence() {
        let (a, b) = (logs(&[0.5, 0.5, 0.0]), logs(&[0.25, 0.0, 0.75]));
        close(&probabilities(&interpolate(&a, &b, 0.2)), &[0.45, 0.4, 0.15]);
        let mut masked = logs(&[0.2, 0.2, 0.6]);
        mask(&mut masked, &a);
        close(&probabilities(&masked), &[0.5, 0.5, 0.0]);
        assert!(
            (divergence(&logs(&[0.5, 0.5]), &logs(&[0.25, 0.75])) - (0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln()))
                .abs()
                < 1e-6
        );
        assert_eq!(divergence(&a, &b), f64::INFINITY);
        assert!(divergence(&a, &a).abs() < 1e-12);
    }

    #[test]
    fn a_draw_inverts_the_cumulative_distribution() {
        let row = logs(&[0.25, 0.0, 0.5, 0.25]);
        let drawn = [0.0, 0.2, 0.3, 0.7, 0.76, 0.999_999_9].map(|uniform| draw(&row, uniform).unwrap());
        assert_eq!(drawn, [0, 0, 2, 2, 3, 3]);
        assert_eq!(most_likely(&row).unwrap().0, 2);
    }
}
