//! Filters: the tokens that may be drawn, with their weights.

use super::Sampling;

/// The tokens that remain, with weights relative to the most likely token of the row. They are in
/// the order of their ids, or in descending order of weight.
type Kept = Vec<(usize, f64)>;

/// A filter, which removes tokens but never all.
type Filter = fn(&Row<'_>, &mut Kept);

/// All filters, in the order in which they apply.
static FILTERS: &[Filter] = &[top_n_sigma, top_k, top_p, min_p, typical_p, xtc];

/// A row to draw from.
pub(super) struct Row<'a> {
    pub(super) logits: &'a [f32],
    /// The index of the largest logit.
    pub(super) best: usize,
    /// A uniform random number in 0..1, for XTC.
    pub(super) chance: f64,
    pub(super) sampling: &'a Sampling,
}

/// Returns the tokens that pass all filters.
pub(super) fn filter(row: &Row<'_>) -> Kept {
    let temperature = f64::from(row.sampling.temperature);
    let weight = |id: usize| (f64::from(row.logits[id] - row.logits[row.best]) / temperature).exp();
    // Impossible tokens have no weight, and pass no filter.
    let weights = (0..row.logits.len()).map(|id| (id, weight(id)));
    let mut kept = weights.filter(|(_, weight)| *weight > 0.0).collect();
    for filter in FILTERS {
        filter(row, &mut kept);
    }
    kept
}

/// The head of a row: its most likely tokens. What is known of the others.
pub(super) struct Head {
    /// The most that another token weighs.
    pub(super) rest: f64,
    /// The sum of all weights, and its relative error.
    pub(super) mass: f64,
    pub(super) error: f64,
}

/// Returns the tokens that pass all filters but top-n-sigma, given the head of a row in the order of
/// ids; `None` if another token of the row might pass or change what passes.
pub(super) fn filter_head(row: &Row<'_>, mut kept: Kept, head: &Head) -> Option<Kept> {
    let Sampling { top_k: k, top_p: p, min_p: least, .. } = *row.sampling;
    // Impossible tokens pass no filter.
    let mut is_whole = head.rest == 0.0;
    let is_ahead = |kept: &Kept| kept.iter().all(|(_, weight)| *weight > head.rest);
    top_k(row, &mut kept);
    if k > 0 && !is_whole {
        is_whole = is_ahead(&kept);
        if !is_whole {
            return None;
        }
    }
    if is_whole {
        top_p(row, &mut kept);
    } else if p < 1.0 {
        kept.sort_unstable_by(descending);
        let [low, high] = [1.0 - head.error, 1.0 + head.error].map(|part| part * f64::from(p) * head.mass);
        let ends = [low, high].map(|wanted| shortest(&kept, wanted));
        kept.truncate(ends[0].filter(|_| ends[0] == ends[1])?);
        is_whole = is_ahead(&kept);
        if !is_whole {
            return None;
        }
    }
    min_p(row, &mut kept);
    if !is_whole && f64::from(least) <= head.rest {
        return None;
    }
    typical_p(row, &mut kept);
    xtc(row, &mut kept);
    Some(kept)
}

/// Compares by weight, the largest first, and the lower id first among equals.
fn descending(a: &(usize, f64), b: &(usize, f64)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Returns the sum of all weights.
fn mass(kept: &[(usize, f64)]) -> f64 {
    kept.iter().map(|(_, w)| w).sum()
}

/// Keeps the logits that are at most `n` standard deviations below the largest. Impossible tokens
/// have no logit to count.
fn top_n_sigma(row: &Row<'_>, kept: &mut Kept) {
    let n = f64::from(row.sampling.top_n_sigma);
    if n == 0.0 {
        return;
    }
    let possible = || row.logits.iter().copied().filter(|x| x.is_finite()).map(f64::from);
    let count = possible().count() as f64;
    let mean = possible().sum::<f64>() / count;
    let variance = possible().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let least = f64::from(row.logits[row.best]) - n * variance.sqrt();
    kept.retain(|&(id, _)| f64::from(row.logits[id]) >= least);
}

/// Keeps the `k` largest weights.
fn top_k(row: &Row<'_>, kept: &mut Kept) {
    let k = row.sampling.top_k;
    if k == 0 || k >= kept.len() {
        return;
    }
    kept.select_nth_unstable_by(k - 1, descending);
    kept.truncate(k);
    kept.sort_unstable_by_key(|&(id, _)| id);
}

/// Keeps the largest weights that together reach the share `p` of all.
fn top_p(row: &Row<'_>, kept: &mut Kept) {
    if row.sampling.top_p >= 1.0 {
        return;
    }
    let wanted = f64::from(row.sampling.top_p) * mass(kept);
    // Sorting the whole vocabulary is rarely necessary: sort a growing head of it until the head
    // holds the mass.
    let mut head = 256;
    loop {
        let head_len = head.min(kept.len());
        if head_len < kept.len() {
            kept.select_nth_unstable_by(head_len - 1, descending);
        }
        kept[..head_len].sort_unstable_by(descending);
        match shortest(&kept[..head_len], wanted) {
            None if head_len < kept.len() => head *= 8,
            end => return kept.truncate(end.unwrap_or(kept.len())),
        }
    }
}

/// Returns the length of the shortest head of a list whose weights reach a sum, at least 1; `None`
/// if it is the whole list or longer.
fn shortest(list: &[(usize, f64)], wanted: f64) -> Option<usize> {
    let mut before = 0.0;
    let end = list.iter().position(|(_, w)| {
        let is_full = before >= wanted;
        before += w;
        is_full
    });
    end.map(|end| end.max(1))
}

/// Keeps weights of at least `p`, relative to the largest.
fn min_p(row: &Row<'_>, kept: &mut Kept) {
    let least = f64::from(row.sampling.min_p);
    kept.retain(|&(_, w)| w >= least);
}

/// Keeps the tokens whose surprise, `-ln p`, is closest to the entropy, as many as together reach
/// probability `p`.
fn typical_p(row: &Row<'_>, kept: &mut Kept) {
    if row.sampling.typical_p >= 1.0 {
        return;
    }
    let total = mass(kept);
    let surprise = |w: f64| -(w / total).ln();
    let entropy: f64 = kept.iter().map(|(_, w)| w / total * surprise(*w)).sum();
    let mut order: Kept = kept.clone();
    let distance = |w: f64| (surprise(w) - entropy).abs();
    order.sort_by(|a, b| distance(a.1).total_cmp(&distance(b.1)).then(a.0.cmp(&b.0)));
    let end = shortest(&order, f64::from(row.sampling.typical_p) * total).unwrap_or(order.len());
    order.truncate(end);
    order.sort_unstable_by_key(|&(id, _)| id);
    *kept = order;
}

/// With probability `xtc_probability`, removes all tokens of at least probability `xtc_threshold`
/// but the least likely of them.
fn xtc(row: &Row<'_>, kept: &mut Kept) {
    if row.chance >= f64::from(row.sampling.xtc_probability) {
        return;
    }
    let least = f64::from(row.sampling.xtc_threshold) * mass(kept);
    let mut likely: Kept = kept.iter().copied().filter(|(_, w)| *w >= least).collect();
    likely.sort_unstable_by(descending);
    if let Some(&last) = likely.last() {
        kept.retain(|entry| entry.1 < least || entry.0 == last.0);
    }
}
