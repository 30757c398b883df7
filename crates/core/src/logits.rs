//! Rows of logits: argmax, softmax, the most likely tokens.

use std::cmp::Ordering;

use crate::{Token, exp};

/// Returns the index of a row's largest entry, the first among equals, or `None` if the row holds
/// NaN or plus infinity, or nothing but minus infinity.
pub(crate) fn argmax(logits: &[f32]) -> Option<usize> {
    // The loop has no branches, so that compilers vectorize it; a comparison with NaN is false,
    // hence the separate flag.
    let (mut max, mut has_nan) = (f32::NEG_INFINITY, false);
    for &x in logits {
        max = if x > max { x } else { max };
        has_nan |= x.is_nan();
    }
    let is_finite = !has_nan && max.is_finite();
    is_finite.then(|| logits.iter().position(|&x| x == max))?
}

/// Returns `ln sum exp` of a row and its argmax, or `None` if [`argmax`] finds none.
pub(crate) fn log_sum_exp(logits: &[f32]) -> Option<(f64, usize)> {
    let best = argmax(logits)?;
    let max = logits[best];
    // Sixteen sums side by side fill the SIMD lanes. Each sum has at most 16 terms, none above 1,
    // so single precision suffices; the parts are added in double precision. The order of additions
    // does not depend on the machine, and neither does the result.
    let mut sum = 0.0;
    for part in logits.chunks(256) {
        let mut sums = [0f32; 16];
        let (blocks, tail) = part.as_chunks::<16>();
        for block in blocks {
            for (sum, &x) in sums.iter_mut().zip(block) {
                *sum += exp(x - max);
            }
        }
        sum += sums.iter().copied().chain(tail.iter().map(|&x| exp(x - max))).map(f64::from).sum::<f64>();
    }
    Some((f64::from(max) + sum.ln(), best))
}

/// Returns the natural log-probability of one token under the plain softmax of a row, or `None` if
/// the row is not finite or has no such token.
///
/// ```
/// let logprob = wsd_core::logprob(&[0.0, 0.0], 1).unwrap();
/// assert!((logprob.exp() - 0.5).abs() < 1e-6);
/// assert_eq!(wsd_core::logprob(&[f32::NAN, 0.0], 1), None);
/// ```
#[must_use]
pub fn logprob(logits: &[f32], token: Token) -> Option<f64> {
    logprob_top(logits, token, 0).map(|(logprob, _)| logprob)
}

/// Returns [`logprob`] and [`top_tokens`] of a row, whose exponentials are computed once.
///
/// ```
/// let (logprob, top) = wsd_core::logprob_top(&[0.0, 0.0, -100.0], 1, 1).unwrap();
/// assert!((logprob.exp() - 0.5).abs() < 1e-6);
/// assert_eq!(top, [(0, logprob)]);
/// ```
#[must_use]
pub fn logprob_top(logits: &[f32], token: Token, count: usize) -> Option<(f64, Vec<(Token, f64)>)> {
    let (lse, _) = log_sum_exp(logits)?;
    let logprob = logits.get(token as usize).map(|&x| (f64::from(x) - lse).min(0.0))?;
    Some((logprob, most_likely(logits, count, lse)))
}

/// Number of entries up to which the largest ones are found in one pass without sorting: those that a
/// request may ask for. A pass over 262,144 entries is then several times as fast.
const FEW: usize = 32;

/// The indices of the `count` largest entries of a finite row, in one pass.
fn largest(logits: &[f32], count: usize) -> Vec<usize> {
    let mut ids: Vec<usize> = Vec::with_capacity(count + 1);
    for (block, part) in logits.chunks(16).enumerate() {
        // Most blocks hold nothing, which a loop without branches finds.
        let max = part.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
        if ids.len() == count && ids.last().is_some_and(|&last| max <= logits[last]) {
            continue;
        }
        for (id, &x) in (block * 16..).zip(part) {
            let at = ids.iter().position(|&other| x > logits[other]).unwrap_or(ids.len());
            if at < count {
                ids.insert(at, id);
                ids.truncate(count);
            }
        }
    }
    ids
}

/// The indices of the `count` largest entries of a finite row.
fn sorted(logits: &[f32], count: usize) -> Vec<usize> {
    let mut ids: Vec<_> = (0..logits.len()).collect();
    // Unlike `total_cmp`, this treats both zeros as equal, as `argmax` does. NaN has been excluded.
    let descending =
        |a: &usize, b: &usize| logits[*b].partial_cmp(&logits[*a]).unwrap_or(Ordering::Equal).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, descending);
        ids.truncate(count);
    }
    ids.sort_unstable_by(descending);
    ids
}

/// Returns the `count` most likely tokens of a row with their natural log-probabilities, most
/// likely first and the lower id first among equals, or `None` if the row is not finite.
///
/// ```
/// let top = wsd_core::top_tokens(&[0.0, 2.0, 1.0, 2.0], 3).unwrap();
/// let ids: Vec<_> = top.into_iter().map(|(id, _)| id).collect();
/// assert_eq!(ids, [1, 3, 2]);
/// ```
#[must_use]
pub fn top_tokens(logits: &[f32], count: usize) -> Option<Vec<(Token, f64)>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let (lse, _) = log_sum_exp(logits)?;
    Some(most_likely(logits, count, lse))
}

/// The `count` most likely tokens of a finite row whose exponentials have the sum `exp(lse)`.
fn most_likely(logits: &[f32], count: usize, lse: f64) -> Vec<(Token, f64)> {
    let ids = match count {
        0 => Vec::new(),
        1..=FEW => largest(logits, count),
        _ => sorted(logits, count),
    };
    ids.into_iter().map(|id| (id as Token, (f64::from(logits[id]) - lse).min(0.0))).collect()
}

/// Replaces a row of logits by natural log-probabilities. Returns `None` and leaves the row
/// unchanged if it is not finite.
#[must_use]
pub fn log_softmax(logits: &mut [f32]) -> Option<()> {
    let (lse, _) = log_sum_exp(logits)?;
    logits.iter_mut().for_each(|x| *x = (f64::from(*x) - lse) as f32);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sampling, pick};

    #[test]
    fn top_tokens_are_sorted() {
        let row = [0.0, 2.0, 1.0, 2.0];
        let top = top_tokens(&row, 3).unwrap();
        assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
        assert!(top.iter().all(|&(id, p)| logprob(&row, id) == Some(p)));
        assert_eq!((top_tokens(&row, 9).unwrap().len(), top_tokens(&row, 0).unwrap().len()), (4, 0));
        assert_eq!(top_tokens(&[f32::NAN], 1), None);
        assert_eq!(
            top_tokens(&[-0.0, 0.0], 1).unwrap()[0].0,
            pick(&mut [-0.0, 0.0], &[], &Sampling::default()).unwrap().token
        );
    }

    #[test]
    fn few_and_many_largest_entries_are_the_same() {
        for len in [1, 7, 16, 17, 900] {
            let row: Vec<f32> = (0..len).map(|i| ((i * 7919 % 613) % 89) as f32 - 44.0).collect();
            for count in 1..=FEW {
                assert_eq!(largest(&row, count), sorted(&row, count), "{len} {count}");
            }
        }
        assert_eq!(largest(&[-0.0, 0.0, f32::NEG_INFINITY], 3), [0, 1, 2]);
    }

    #[test]
    fn long_rows_have_the_logprobs_of_double_precision() {
        for (len, spread) in [(1, 1.0), (15, 9.0), (257, 1.0), (32_003, 0.0), (32_003, 1.0), (131_072, 20.0)] {
            let row: Vec<f32> = (0..len).map(|i| spread * (i as f32 * 12.9898).sin()).collect();
            let expected = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            let (lse, best) = log_sum_exp(&row).unwrap();
            assert!((lse - expected).abs() < 1e-6, "{len} {spread}: {lse} {expected}");
            assert!(row.iter().all(|&x| x <= row[best]));
        }
    }
}
