//! Softmax attention of one token over a KV cache, for a group of queries that share a key and
//! value head.

use wsd_core::exp;

use super::activation::softcap_body;
use super::simd::{LANES, Lanes, dispatch, padded};

/// One token's attention in one key and value head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    /// Queries that share the head: `(group, head_dim)`.
    pub(crate) queries: &'a [f32],
    /// Keys, oldest position first: `(seen or more, head_dim)`.
    pub(crate) keys: &'a [f32],
    /// Values: `(seen or more, head_dim)`.
    pub(crate) values: &'a [f32],
    /// The sink of each query; empty without sinks.
    pub(crate) sinks: &'a [f32],
    /// Number of positions that the token attends to, its own included.
    pub(crate) seen: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// `cap` of `cap * tanh(score / cap)`, applied to the scaled scores.
    pub(crate) softcap: Option<f32>,
}

dispatch! {
    /// Computes `softmax(cap(queries * keys^T * scale)) * values` into `out`, `(group, head_dim)`. A
    /// sink is one more score of the softmax, whose share is dropped.
    /// `scores` is scratch memory of any size. Sums run from the oldest position to the newest and
    /// depend on nothing else.
    pub(crate) fn attend(attention: Attention<'_>, scores: &mut Vec<f32>, out: &mut [f32]) = body
}

#[inline(always)]
fn body<S: Lanes>(simd: S, attention: Attention<'_>, scores: &mut Vec<f32>, out: &mut [f32]) {
    let Attention { queries, seen, head_dim, softcap, .. } = attention;
    let group = queries.len() / head_dim;
    scores.clear();
    scores.resize(group * seen, 0.0);
    let mut member = 0;
    while member < group {
        member += match group - member {
            4.. if S::WIDE => score::<S, 4, 4>(simd, &attention, member, scores),
            3 if S::WIDE => score::<S, 3, 4>(simd, &attention, member, scores),
            2 if S::WIDE => score::<S, 2, 4>(simd, &attention, member, scores),
            2.. => score::<S, 2, 2>(simd, &attention, member, scores),
            _ => score::<S, 1, 4>(simd, &attention, member, scores),
        }
    }
    for (index, scores) in scores.chunks_exact_mut(seen).enumerate() {
        if let Some(cap) = softcap {
            softcap_body(simd, scores, cap);
        }
        softmax(simd, scores, attention.sinks.get(index).copied());
    }
    let mut member = 0;
    while member < group {
        member += match group - member {
            4.. if S::WIDE => weigh::<S, 4, 4>(simd, &attention, member, scores, out),
            3 if S::WIDE => weigh::<S, 3, 4>(simd, &attention, member, scores, out),
            2 if S::WIDE => weigh::<S, 2, 4>(simd, &attention, member, scores, out),
            2.. => weigh::<S, 2, 2>(simd, &attention, member, scores, out),
            _ => weigh::<S, 1, 4>(simd, &attention, member, scores, out),
        }
    }
}

/// Computes the scores of `M` queries from `member` on, `P` positions at a time; returns `M`.
#[inline(always)]
fn score<S: Lanes, const M: usize, const P: usize>(
    simd: S,
    attention: &Attention<'_>,
    member: usize,
    scores: &mut [f32],
) -> usize {
    let Attention { keys, seen, head_dim, scale, .. } = *attention;
    let queries = &attention.queries[member * head_dim..][..M * head_dim];
    let mut position = 0;
    while position < seen {
        let count = if position + P <= seen { P } else { 1 };
        let keys = &keys[position * head_dim..][..count * head_dim];
        let mut products = [[0.0; P]; M];
        if count == P {
            products = dots::<S, M, P>(simd, queries, keys, head_dim);
        } else {
            let alone = dots::<S, M, 1>(simd, queries, keys, head_dim);
            for (products, [alone]) in products.iter_mut().zip(alone) {
                products[0] = alone;
            }
        }
        for (m, products) in products.iter().enumerate() {
            let scores = &mut scores[(member + m) * seen + position..][..count];
            for (score, product) in scores.iter_mut().zip(products) {
                *score = product * scale;
            }
        }
        position += count;
    }
    M
}

/// Returns the dot products of `M` queries and `P` keys, each in sixteen lanes of its own.
#[inline(always)]
fn dots<S: Lanes, const M: usize, const P: usize>(
    simd: S,
    queries: &[f32],
    keys: &[f32],
    head_dim: usize,
) -> [[f32; P]; M] {
    let mut sums = [[simd.splat(0.0); P]; M];
    let (queries, queries_left) = rows::<M>(queries, head_dim);
    let (keys, keys_left) = rows::<P>(keys, head_dim);
    for block in 0..head_dim / LANES {
        add_products(simd, &mut sums, queries.map(|row| &row[block]), keys.map(|row| &row[block]));
    }
    if !head_dim.is_multiple_of(LANES) {
        let (queries, keys) = (queries_left.map(padded), keys_left.map(padded));
        add_products(simd, &mut sums, queries.each_ref(), keys.each_ref());
    }
    let mut out = [[0.0; P]; M];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = simd.sums(sums);
    }
    out
}

/// Splits `N` rows of `width` floats into whole blocks, equally many of each, and the rests.
#[inline(always)]
fn rows<const N: usize>(floats: &[f32], width: usize) -> ([&[[f32; LANES]]; N], [&[f32]; N]) {
    let (mut blocks, mut rests) = ([&[][..]; N], [&[][..]; N]);
    for ((blocks, rest), row) in blocks.iter_mut().zip(&mut rests).zip(floats.chunks_exact(width)) {
        (*blocks, *rest) = row.as_chunks::<LANES>();
    }
    // Bounds that the compiler knows to be equal need no checks in loops.
    (blocks.map(|blocks| &blocks[..width / LANES]), rests)
}

/// Adds the products of sixteen floats of `M` queries and `P` keys.
#[inline(always)]
fn add_products<S: Lanes, const M: usize, const P: usize>(
    simd: S,
    sums: &mut [[S::Floats; P]; M],
    queries: [&[f32; LANES]; M],
    keys: [&[f32; LANES]; P],
) {
    let mut of_keys = [simd.splat(0.0); P];
    for (of_key, key) in of_keys.iter_mut().zip(keys) {
        *of_key = simd.load(key);
    }
    for (sums, query) in sums.iter_mut().zip(queries) {
        let query = simd.load(query);
        for (sum, key) in sums.iter_mut().zip(of_keys) {
            *sum = simd.mul_add(query, key, *sum);
        }
    }
}

#[inline(always)]
fn softmax<S: Lanes>(simd: S, scores: &mut [f32], sink: Option<f32>) {
    let most = largest(scores).max(sink.unwrap_or(f32::NEG_INFINITY));
    for score in scores.iter_mut() {
        *score = exp(*score - most);
    }
    let (blocks, tail) = scores.as_chunks::<LANES>();
    let mut sum = simd.splat(0.0);
    for block in blocks {
        sum = simd.mul_add(simd.load(block), simd.splat(1.0), sum);
    }
    let dropped = sink.map_or(0.0, |sink| exp(sink - most));
    let scale = 1.0 / (simd.sum(sum) + tail.iter().sum::<f32>() + dropped);
    for score in scores {
        *score *= scale;
    }
}

#[inline(always)]
fn largest(scores: &[f32]) -> f32 {
    let (blocks, tail) = scores.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for (most, score) in most.iter_mut().zip(block) {
            // `f32::max` also defines what happens to NaN, which takes more than one instruction.
            *most = if *score > *most { *score } else { *most };
        }
    }
    most.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Computes the outputs of `M` queries from `member` on, `16 * B` dimensions at a time; returns
/// `M`.
#[inline(always)]
fn weigh<S: Lanes, const M: usize, const B: usize>(
    simd: S,
    attention: &Attention<'_>,
    member: usize,
    scores: &[f32],
    out: &mut [f32],
) -> usize {
    let Attention { head_dim, seen, .. } = *attention;
    let scores = &scores[member * seen..][..M * seen];
    let out = &mut out[member * head_dim..][..M * head_dim];
    let mut first = 0;
    while first < head_dim {
        first += match head_dim - first {
            left if left >= B * LANES => weighted_values::<S, M, B>(simd, attention, first, scores, out),
            _ => weighted_values::<S, M, 1>(simd, attention, first, scores, out),
        }
    }
    M
}

/// Computes up to `16 * B` dimensions, from `first` on, of the outputs of `M` queries; returns
/// their number.
#[inline(always)]
fn weighted_values<S: Lanes, const M: usize, const B: usize>(
    simd: S,
    attention: &Attention<'_>,
    first: usize,
    scores: &[f32],
    out: &mut [f32],
) -> usize {
    let Attention { values, head_dim, seen, .. } = *attention;
    let end = head_dim.min(first + B * LANES);
    let mut sums = [[simd.splat(0.0); B]; M];
    let mut weights = [&[][..]; M];
    for (weights, scores) in weights.iter_mut().zip(scores.chunks_exact(seen)) {
        *weights = scores;
    }
    let weights = weights.map(|weights| &weights[..seen]);
    for (position, value) in (0..seen).zip(values.chunks_exact(head_dim)) {
        let mut blocks = [simd.splat(0.0); B];
        match value[first..end].as_chunks().0.first_chunk::<B>() {
            Some(whole) => {
                for (block, value) in blocks.iter_mut().zip(whole) {
                    *block = simd.load(value);
                }
            }
            None => blocks[0] = simd.load(&padded(&value[first..end])),
        }
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = simd.splat(weights[position]);
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum = simd.mul_add(weight, block, *sum);
            }
        }
    }
    for (out, sums) in out.chunks_exact_mut(head_dim).zip(sums) {
        for (out, sum) in out[first..end].chunks_mut(LANES).zip(sums) {
            out.copy_from_slice(&simd.to_array(sum)[..out.len()]);
        }
    }
    end - first
}

#[cfg(test)]
mod tests {
    use super::super::Simd;
    use super::*;

    fn naive(attention: &Attention<'_>, query: &[f32]) -> Vec<f64> {
        let scores: Vec<f64> = (0..attention.seen)
            .map(|j| {
                let key = &attention.keys[j * attention.head_dim..];
                let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let score = dot * f64::from(attention.scale);
                attention.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            })
            .collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let scores: Vec<f64> = scores.iter().map(|score| score - most).collect();
        let total: f64 = scores.iter().map(|score| score.exp()).sum();
        let mut out = vec![0.0; attention.head_dim];
        for (j, score) in scores.iter().enumerate() {
            for (d, out) in out.iter_mut().enumerate() {
                *out += score.exp() / total * f64::from(attention.values[j * attention.head_dim + d]);
            }
        }
        out
    }

    /// Returns pseudo-random numbers of magnitude up to `size`.
    fn noise(len: usize, seed: usize, size: f32) -> Vec<f32> {
        (0..len).map(|i| (((i + 31 * seed) as f32 * 12.9898).sin() * 43758.547).fract() * size).collect()
    }

    #[test]
    fn matches_the_formula_on_every_instruction_set() {
        for (head_dim, seen) in [(8, 1), (16, 33), (20, 70), (64, 5), (64, 130), (80, 9), (128, 18), (83, 17)] {
            for (group, softcap, size) in [(1, None, 2.0), (2, Some(3.0), 2.0), (3, None, 1e-20), (7, None, 20.0)] {
                let queries = noise(group * head_dim, 1, size);
                let (keys, values) = (noise((seen + 1) * head_dim, 2, size), noise((seen + 1) * head_dim, 3, size));
                let (keys, values) = (keys.as_slice(), values.as_slice());
                let scale = 1.0 / (head_dim as f32).sqrt();
                let attention =
                    Attention { queries: &queries, keys, values, sinks: &[], seen, head_dim, scale, softcap };
                for simd in Simd::all() {
                    let mut out = vec![f32::NAN; group * head_dim];
                    attend(simd, attention, &mut vec![5.0; 3], &mut out);
                    for (query, out) in queries.chunks(head_dim).zip(out.chunks(head_dim)) {
                        for (value, expected) in out.iter().zip(naive(&attention, query)) {
                            let error = (f64::from(*value) - expected).abs();
                            assert!(error <= 5e-4 * f64::from(size), "{simd:?} {head_dim} {seen}: {value} {expected}");
                        }
                    }
                    let mut alone = vec![f32::NAN; head_dim];
                    let last = &queries[(group - 1) * head_dim..];
                    attend(simd, Attention { queries: last, ..attention }, &mut Vec::new(), &mut alone);
                    assert_eq!(alone, out[(group - 1) * head_dim..], "a query alone differs from one in a group");
                }
            }
        }
    }

    #[test]
    fn nan_in_a_key_reaches_every_output() {
        for simd in Simd::all() {
            let (queries, mut keys, values) = (noise(64, 1, 1.0), noise(40 * 64, 2, 1.0), noise(40 * 64, 3, 1.0));
            keys[37 * 64 + 5] = f32::NAN;
            let (keys, values) = (keys.as_slice(), values.as_slice());
            let attention = Attention {
                queries: &queries,
                keys,
                values,
                sinks: &[],
                seen: 40,
                head_dim: 64,
                scale: 1.0,
                softcap: None,
            };
            let mut out = vec![0.0; 64];
            attend(simd, attention, &mut Vec::new(), &mut out);
            assert!(out.iter().all(|value| value.is_nan()), "{simd:?}");
        }
    }
}
