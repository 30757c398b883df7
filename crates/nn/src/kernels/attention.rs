//! Softmax attention of the queries that share a key and value head, over blocks of positions.
//!
//! Each block gives a part: sums of values weighted by `exp(score - largest score)`, the largest
//! score, and the sum of the weights. Parts are merged from the oldest block to the newest (Milakov
//! and Gimelshein 2018, arXiv 1805.02867), so a block can be computed by any thread.

use wsd_core::exp;

use super::activation::softcap_body;
use super::kv_format::{BF16Chunk, Chunk, F16Chunk, F32Chunk, KvFormat, Q8Chunk};
use super::simd::{LANES, Lanes, dispatch};

/// Positions whose scores are written at once.
const STEP: usize = 4;

/// The attention of queries to a block of positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    /// Queries that share the head: `(group, width)`.
    pub(crate) queries: &'a [f32],
    /// Keys, oldest position first: `(positions, width)` in `format`.
    pub(crate) keys: &'a [u8],
    /// Values: `(positions, width)` in `format`.
    pub(crate) values: &'a [u8],
    /// The number format of keys and values.
    pub(crate) format: KvFormat,
    /// Width of a head, padded with zeros to a multiple of sixteen.
    pub(crate) width: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// `cap` of `cap * tanh(score / cap)`, applied to the scaled scores.
    pub(crate) softcap: Option<f32>,
}

/// The floats of a part for `group` queries of `width` floats each: the weighted sums of values,
/// `(group, width)`, then the largest scores and the sums of weights, `(group)` each.
pub(crate) fn part_len(group: usize, width: usize) -> usize {
    group * (width + 2)
}

/// Splits a part into weighted sums, largest scores, and sums of weights.
fn split(part: &[f32], group: usize) -> (&[f32], &[f32], &[f32]) {
    let (out, rest) = part.split_at(part.len() - 2 * group);
    let (largest, sums) = rest.split_at(group);
    (out, largest, sums)
}

fn split_mut(part: &mut [f32], group: usize) -> (&mut [f32], &mut [f32], &mut [f32]) {
    let (out, rest) = part.split_at_mut(part.len() - 2 * group);
    let (largest, sums) = rest.split_at_mut(group);
    (out, largest, sums)
}

/// Adds the part of the next block to that of the blocks before it.
pub(crate) fn merge(part: &mut [f32], next: &[f32], group: usize) {
    let (out, largest, sums) = split_mut(part, group);
    let (next_out, next_largest, next_sums) = split(next, group);
    let width = out.len() / group;
    for member in 0..group {
        let most = largest[member].max(next_largest[member]);
        let [factor, next_factor] = [largest[member], next_largest[member]].map(|largest| exp(largest - most));
        largest[member] = most;
        sums[member] = sums[member] * factor + next_sums[member] * next_factor;
        let next_out = &next_out[member * width..][..width];
        for (out, next) in out[member * width..][..width].iter_mut().zip(next_out) {
            *out = *out * factor + next * next_factor;
        }
    }
}

/// Divides the weighted sums of a whole part by the weights, into `out`, `(group, head_dim)`. A sink
/// is one more score of the softmax, whose share is dropped; `sinks` is empty without them.
pub(crate) fn finish(part: &[f32], sinks: &[f32], group: usize, out: &mut [f32]) {
    let (weighted, largest, sums) = split(part, group);
    let (width, head_dim) = (weighted.len() / group, out.len() / group);
    for (member, out) in out.chunks_exact_mut(head_dim).enumerate() {
        let sink = sinks.get(member).copied().unwrap_or(f32::NEG_INFINITY);
        let most = largest[member].max(sink);
        let factor = exp(largest[member] - most);
        let dropped = if sinks.is_empty() { 0.0 } else { exp(sink - most) };
        let scale = factor / (sums[member] * factor + dropped);
        for (out, sum) in out.iter_mut().zip(&weighted[member * width..]) {
            *out = sum * scale;
        }
    }
}

dispatch! {
    /// Computes the part of a block of positions. `scores` is scratch memory of any size. Sums run
    /// from the oldest position to the newest and depend on nothing else.
    pub(crate) fn attend(attention: Attention<'_>, scores: &mut Vec<f32>, part: &mut [f32]) = body
}

#[inline(always)]
fn body<S: Lanes>(simd: S, attention: Attention<'_>, scores: &mut Vec<f32>, part: &mut [f32]) {
    match attention.format {
        KvFormat::F32 => block::<S, F32Chunk>(simd, &attention, scores, part),
        KvFormat::F16 => block::<S, F16Chunk>(simd, &attention, scores, part),
        KvFormat::BF16 => block::<S, BF16Chunk>(simd, &attention, scores, part),
        KvFormat::Q8_0 => block::<S, Q8Chunk>(simd, &attention, scores, part),
    }
}

/// A block with its rows as chunks.
struct Block<'a, C> {
    queries: &'a [[f32; LANES]],
    keys: &'a [C],
    values: &'a [C],
    /// Chunks per row.
    chunks: usize,
    positions: usize,
    scale: f32,
}

#[inline(always)]
fn block<S: Lanes, C: Chunk>(simd: S, attention: &Attention<'_>, scores: &mut Vec<f32>, part: &mut [f32]) {
    let chunks = attention.width / LANES;
    let keys: &[C] = bytemuck::cast_slice(attention.keys);
    let block = Block {
        queries: attention.queries.as_chunks().0,
        keys,
        values: bytemuck::cast_slice(attention.values),
        chunks,
        positions: keys.len() / chunks,
        scale: attention.scale,
    };
    let group = block.queries.len() / chunks;
    scores.clear();
    scores.resize(group * block.positions, 0.0);
    let mut member = 0;
    while member < group {
        member += match group - member {
            4.. if S::WIDE => score::<S, C, 4, 4>(simd, &block, member, scores),
            3 if S::WIDE => score::<S, C, 3, 4>(simd, &block, member, scores),
            2 if S::WIDE => score::<S, C, 2, 4>(simd, &block, member, scores),
            3.. => score::<S, C, 3, 2>(simd, &block, member, scores),
            2 => score::<S, C, 2, 2>(simd, &block, member, scores),
            _ => score::<S, C, 1, 4>(simd, &block, member, scores),
        }
    }
    let (out, largest, sums) = split_mut(part, group);
    for (member, scores) in scores.chunks_exact_mut(block.positions).enumerate() {
        if let Some(cap) = attention.softcap {
            softcap_body(simd, scores, cap);
        }
        (largest[member], sums[member]) = weights(simd, scores);
    }
    let mut member = 0;
    while member < group {
        member += match group - member {
            4.. if S::WIDE => weigh::<S, C, 4, 4>(simd, &block, member, scores, out),
            3 if S::WIDE => weigh::<S, C, 3, 4>(simd, &block, member, scores, out),
            2 if S::WIDE => weigh::<S, C, 2, 4>(simd, &block, member, scores, out),
            4.. => weigh::<S, C, 4, 1>(simd, &block, member, scores, out),
            3 => weigh::<S, C, 3, 1>(simd, &block, member, scores, out),
            2 => weigh::<S, C, 2, 2>(simd, &block, member, scores, out),
            _ => weigh::<S, C, 1, 4>(simd, &block, member, scores, out),
        }
    }
}

/// Computes the scores of `M` queries from `member` on, `P` positions at a time; returns `M`.
#[inline(always)]
fn score<S: Lanes, C: Chunk, const M: usize, const P: usize>(
    simd: S,
    block: &Block<'_, C>,
    member: usize,
    scores: &mut [f32],
) -> usize {
    let &Block { keys, chunks, positions, scale, .. } = block;
    let queries = rows::<_, M>(&block.queries[member * chunks..], chunks);
    let scores = &mut scores[member * positions..][..M * positions];
    let mut position = 0;
    while position < positions {
        let keys = &keys[position * chunks..];
        let mut products = [[0.0; STEP]; M];
        let whole = position + STEP <= positions;
        if whole {
            for first in (0..STEP).step_by(P) {
                let some = dots(simd, queries, rows::<_, P>(&keys[first * chunks..], chunks));
                for (products, some) in products.iter_mut().zip(some) {
                    products[first..first + P].copy_from_slice(&some);
                }
            }
        } else {
            for (index, key) in keys.chunks_exact(chunks).enumerate().take(STEP) {
                let alone = dots(simd, queries, [key]);
                for (products, [alone]) in products.iter_mut().zip(alone) {
                    products[index] = alone;
                }
            }
        }
        for (scores, products) in scores.chunks_exact_mut(positions).zip(products) {
            let products = products.map(|product| product * scale);
            match scores[position..].first_chunk_mut() {
                Some(scores) => *scores = products,
                None => scores[position..].iter_mut().zip(products).for_each(|(score, product)| *score = product),
            }
        }
        position += STEP;
    }
    M
}

/// Returns the first `N` rows of `chunks` chunks each.
#[inline(always)]
fn rows<T, const N: usize>(from: &[T], chunks: usize) -> [&[T]; N] {
    let mut rows = [&from[..0]; N];
    for (row, chunks) in rows.iter_mut().zip(from.chunks_exact(chunks)) {
        *row = chunks;
    }
    // Bounds that the compiler knows to be equal need no checks in loops.
    rows.map(|row| &row[..chunks])
}

/// Returns the dot products of `M` queries and `P` keys, each in sixteen lanes of its own.
#[inline(always)]
fn dots<S: Lanes, C: Chunk, const M: usize, const P: usize>(
    simd: S,
    queries: [&[[f32; LANES]]; M],
    keys: [&[C]; P],
) -> [[f32; P]; M] {
    let mut sums = [[simd.splat(0.0); P]; M];
    let chunks = keys[0].len();
    let (queries, keys) = (queries.map(|row| &row[..chunks]), keys.map(|row| &row[..chunks]));
    for chunk in 0..chunks {
        let mut of_keys = [simd.splat(0.0); P];
        for (of_key, key) in of_keys.iter_mut().zip(keys) {
            *of_key = key[chunk].load(simd);
        }
        for (sums, query) in sums.iter_mut().zip(queries) {
            let query = simd.load(&query[chunk]);
            for (sum, key) in sums.iter_mut().zip(of_keys) {
                *sum = simd.mul_add(query, key, *sum);
            }
        }
    }
    let mut out = [[0.0; P]; M];
    simd.sums(sums.as_flattened(), out.as_flattened_mut());
    out
}

/// Turns scores into weights, `exp(score - largest)`; returns the largest score and the sum of the
/// weights.
#[inline(always)]
fn weights<S: Lanes>(simd: S, scores: &mut [f32]) -> (f32, f32) {
    let most = largest(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - most);
    }
    let (blocks, tail) = scores.as_chunks::<LANES>();
    let mut sum = simd.splat(0.0);
    for block in blocks {
        sum = simd.mul_add(simd.load(block), simd.splat(1.0), sum);
    }
    (most, simd.sum(sum) + tail.iter().sum::<f32>())
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

/// Computes the weighted sums of `M` queries from `member` on, `B` chunks at a time; returns `M`.
#[inline(always)]
fn weigh<S: Lanes, C: Chunk, const M: usize, const B: usize>(
    simd: S,
    block: &Block<'_, C>,
    member: usize,
    weights: &[f32],
    out: &mut [f32],
) -> usize {
    let (out, _) = out[member * block.chunks * LANES..].as_chunks_mut::<LANES>();
    let weights = rows::<_, M>(&weights[member * block.positions..], block.positions);
    let mut first = 0;
    while first < block.chunks {
        if first + B <= block.chunks {
            weighted_values::<S, C, M, B>(simd, block, first, weights, out);
            first += B;
        } else {
            weighted_values::<S, C, M, 1>(simd, block, first, weights, out);
            first += 1;
        }
    }
    M
}

/// Computes `B` chunks, from `first` on, of the weighted sums of `M` queries.
#[inline(always)]
fn weighted_values<S: Lanes, C: Chunk, const M: usize, const B: usize>(
    simd: S,
    block: &Block<'_, C>,
    first: usize,
    weights: [&[f32]; M],
    out: &mut [[f32; LANES]],
) {
    let mut sums = [[simd.splat(0.0); B]; M];
    for (position, value) in block.values.chunks_exact(block.chunks).enumerate().take(weights[0].len()) {
        let mut loaded = [simd.splat(0.0); B];
        for (loaded, chunk) in loaded.iter_mut().zip(&value[first..first + B]) {
            *loaded = chunk.load(simd);
        }
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = simd.splat(weights[position]);
            for (sum, value) in sums.iter_mut().zip(loaded) {
                *sum = simd.mul_add(weight, value, *sum);
            }
        }
    }
    for (out, sums) in out.chunks_exact_mut(block.chunks).zip(sums) {
        for (out, sum) in out[first..first + B].iter_mut().zip(sums) {
            *out = simd.to_array(sum);
        }
    }
}

#[cfg(test)]
mod tests;
