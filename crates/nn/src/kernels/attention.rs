//! Softmax attention of one token over a cache, queries in groups that share a key and value head.

use super::activation::{exp, softcap_body};
use super::lanes::{LANES, Lanes, dot, on_each_simd};

/// One token's attention in one key and value head.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The queries that share the head: `(group, head_dim)`.
    pub queries: &'a [f32],
    /// Keys of the positions the token sees, oldest first: position `j` of this head at `keys[j * stride..][..head_dim]`.
    pub keys: &'a [f32],
    /// Values, laid out as the keys.
    pub values: &'a [f32],
    /// Floats from a position to the next.
    pub stride: usize,
    /// Positions seen, the token's own included.
    pub seen: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// `cap * tanh(score / cap)` on the scaled scores.
    pub softcap: Option<f32>,
}

on_each_simd! {
    /// `softmax(cap(queries * keys^T * scale)) * values` into `out`, `(group, head_dim)`. `scores` is scratch of any
    /// size. Sums run from the oldest position seen to the newest, so they depend on nothing but those.
    pub fn attend(attention: Attention<'_>, scores: &mut Vec<f32>, out: &mut [f32]) = body
}

#[inline(always)]
fn body<V: Lanes>(attention: Attention<'_>, scores: &mut Vec<f32>, out: &mut [f32]) {
    let Attention { queries, keys, values, stride, seen, head_dim, scale, softcap } = attention;
    let group = queries.len() / head_dim;
    scores.clear();
    scores.resize(group * seen, 0.0);
    for position in 0..seen {
        let key = &keys[position * stride..][..head_dim];
        for (member, query) in queries.chunks_exact(head_dim).enumerate() {
            scores[member * seen + position] = dot::<V>(query, key) * scale;
        }
    }
    for scores in scores.chunks_exact_mut(seen) {
        if let Some(cap) = softcap {
            softcap_body::<V>(scores, cap);
        }
        softmax::<V>(scores);
    }
    out.fill(0.0);
    for position in 0..seen {
        let value = &values[position * stride..][..head_dim];
        for (member, out) in out.chunks_exact_mut(head_dim).enumerate() {
            accumulate::<V>(out, scores[member * seen + position], value);
        }
    }
}

#[inline(always)]
fn softmax<V: Lanes>(scores: &mut [f32]) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = exp(*score - most);
    }
    let (blocks, tail) = scores.as_chunks::<LANES>();
    let mut sum = V::zero();
    for block in blocks {
        sum = sum.mul_add(V::load(block), V::splat(1.0));
    }
    let scale = 1.0 / (sum.sum() + tail.iter().sum::<f32>());
    for score in scores {
        *score *= scale;
    }
}

/// `out += weight * value`.
#[inline(always)]
fn accumulate<V: Lanes>(out: &mut [f32], weight: f32, value: &[f32]) {
    let (out_blocks, out_tail) = out.as_chunks_mut::<LANES>();
    let (value_blocks, value_tail) = value.as_chunks::<LANES>();
    for (out, value) in out_blocks.iter_mut().zip(value_blocks) {
        V::load(out).mul_add(V::splat(weight), V::load(value)).store(out);
    }
    for (out, value) in out_tail.iter_mut().zip(value_tail) {
        *out += weight * value;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Simd;
    use super::*;

    fn naive(attention: &Attention<'_>, query: &[f32]) -> Vec<f64> {
        let scores: Vec<f64> = (0..attention.seen)
            .map(|j| {
                let key = &attention.keys[j * attention.stride..];
                let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let score = dot * f64::from(attention.scale);
                attention.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            })
            .collect();
        let total: f64 = scores.iter().map(|score| score.exp()).sum();
        let mut out = vec![0.0; attention.head_dim];
        for (j, score) in scores.iter().enumerate() {
            for (d, out) in out.iter_mut().enumerate() {
                *out += score.exp() / total * f64::from(attention.values[j * attention.stride + d]);
            }
        }
        out
    }

    #[test]
    fn meets_the_formula_on_every_instruction_set() {
        let wave = |len: usize, speed: f32| (0..len).map(|i| (i as f32 * speed).sin() * 2.0).collect::<Vec<_>>();
        for (head_dim, seen, softcap) in [(8, 1, None), (16, 33, Some(3.0)), (20, 70, None), (64, 5, None)] {
            let stride = 2 * head_dim + 3;
            let (queries, keys, values) = (wave(3 * head_dim, 0.9), wave(seen * stride, 0.37), wave(seen * stride, 1.3));
            let attention = Attention {
                queries: &queries,
                keys: &keys,
                values: &values,
                stride,
                seen,
                head_dim,
                scale: 0.3,
                softcap,
            };
            for simd in Simd::all() {
                let mut out = vec![f32::NAN; 3 * head_dim];
                attend(simd, attention, &mut vec![5.0; 3], &mut out);
                for (query, out) in queries.chunks(head_dim).zip(out.chunks(head_dim)) {
                    for (value, expected) in out.iter().zip(naive(&attention, query)) {
                        assert!((f64::from(*value) - expected).abs() < 2e-5, "{simd:?}: {value} {expected}");
                    }
                }
            }
        }
    }
}
