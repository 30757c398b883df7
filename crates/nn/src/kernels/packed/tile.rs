//! Sums of a tile's sixteen rows for a few tokens.

use super::GROUP;
use super::layout::{BLOCK, BLOCK_HEAD, BLOCK_HEAD_6, GROUP_5, GROUP_6, scales_bytes};
use crate::kernels::ints::{Ints, QUADS};
use crate::kernels::lanes::LANES;
use crate::kernels::rounded::Int8;

/// A token's activations in whole numbers, by groups.
#[derive(Clone, Copy, Default)]
pub(super) struct Int8Row<'a> {
    values: &'a [[u8; GROUP]],
    scales: &'a [f32],
    sums: &'a [[i32; 2]],
}

/// A token's activations in bfloat16, four at a time.
pub(super) type Bf16Row<'a> = &'a [[u8; 8]];

impl<'a> Int8Row<'a> {
    #[inline(always)]
    pub(super) fn of(x: &'a Int8, token: usize, inputs: usize) -> Self {
        let groups = inputs / GROUP;
        Self {
            values: x.values[token * inputs..][..inputs].as_chunks().0,
            scales: &x.scales[token * groups..][..groups],
            sums: &x.sums[token * groups..][..groups],
        }
    }

    #[inline(always)]
    fn quads(&self, group: usize) -> &[[u8; 4]] {
        self.values[group].as_chunks().0
    }

    #[inline(always)]
    fn sum(&self, group: usize) -> i32 {
        self.sums[group][0] + self.sums[group][1]
    }
}

/// `sum over groups of (weight scale * x scale * sum of products)`.
#[inline(always)]
pub(super) fn q8_0<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    let (scales, numbers) = tile.split_at(scales_bytes(x[0].scales.len()));
    let (scales, numbers) = (scales.as_chunks::<{ 2 * LANES }>().0, numbers.as_chunks::<{ GROUP * LANES }>().0);
    let mut sums = [V::zero(); C];
    for (group, (scale, numbers)) in scales.iter().zip(numbers).enumerate() {
        let scale = V::load_f16(scale);
        let numbers = numbers.as_chunks::<QUADS>().0;
        let mut weights = [V::quads(&numbers[0]); GROUP / 4];
        for (weights, numbers) in weights.iter_mut().zip(numbers) {
            *weights = V::quads(numbers);
        }
        for (sum, x) in sums.iter_mut().zip(&x) {
            let mut products = V::start(-V::OFFSET * x.sum(group));
            for (weights, x) in weights.iter().zip(x.quads(group)) {
                products = V::dot_offset(products, *weights, *x);
            }
            *sum = sum.mul_add(V::floats(products), scale.mul(V::splat(x.scales[group])));
        }
    }
    sums
}

/// As [`q8_0`], of numbers whose zero is 8.
#[inline(always)]
pub(super) fn q4_0<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    let (scales, numbers) = tile.split_at(scales_bytes(x[0].scales.len()));
    let (scales, numbers) = (scales.as_chunks::<{ 2 * LANES }>().0, numbers.as_chunks::<{ GROUP / 2 * LANES }>().0);
    let mut sums = [V::zero(); C];
    for (group, (scale, numbers)) in scales.iter().zip(numbers).enumerate() {
        let scale = V::load_f16(scale);
        let weights = weights::<V>(numbers);
        for (sum, x) in sums.iter_mut().zip(&x) {
            let products = small::<V>(-8 * x.sum(group), &weights, x.quads(group));
            *sum = sum.mul_add(V::floats(products), scale.mul(V::splat(x.scales[group])));
        }
    }
    sums
}

/// `sum over groups of (x scale * (weight scale * sum of products - weight minimum * sum of x))`.
#[inline(always)]
pub(super) fn q4_k<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    with_minima::<V, C, { GROUP / 2 * LANES }>(tile, x)
}

/// As [`q4_k`], of numbers of five bits.
#[inline(always)]
pub(super) fn q5_k<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    with_minima::<V, C, GROUP_5>(tile, x)
}

/// The numbers of a group take `BYTES`.
#[inline(always)]
fn with_minima<V: Ints, const C: usize, const BYTES: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    let blocks = x[0].scales.len() * GROUP / BLOCK;
    let (heads, numbers) = tile.split_at(blocks * BLOCK_HEAD);
    let numbers = numbers.as_chunks::<BYTES>().0;
    let mut sums = [V::zero(); C];
    for (block, head) in heads.as_chunks::<BLOCK_HEAD>().0.iter().enumerate() {
        let (halves, heads) = head.as_chunks::<{ 2 * LANES }>().0.split_at(2);
        let (block_scale, block_minimum) = (V::load_f16(&halves[0]), V::load_f16(&halves[1]));
        for (index, head) in heads.iter().enumerate() {
            let group = block * (BLOCK / GROUP) + index;
            let head = head.as_chunks::<LANES>().0;
            let scale = V::load_u8(&head[0]).mul(block_scale);
            let minimum = V::load_u8(&head[1]).mul(block_minimum);
            let weights = weights::<V>(&numbers[group]);
            for (sum, x) in sums.iter_mut().zip(&x) {
                let products = small::<V>(0, &weights, x.quads(group));
                let x_scale = x.scales[group];
                *sum = sum.mul_add(V::floats(products), scale.mul(V::splat(x_scale)));
                *sum = sum.mul_add(minimum, V::splat(-x_scale * x.sum(group) as f32));
            }
        }
    }
    sums
}

/// `sum over halves of groups of (weight scale * x scale * sum of products)`, of numbers of six bits whose zero is 32.
#[inline(always)]
pub(super) fn q6_k<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    let blocks = x[0].scales.len() * GROUP / BLOCK;
    let (heads, numbers) = tile.split_at(blocks * BLOCK_HEAD_6);
    let numbers = numbers.as_chunks::<GROUP_6>().0;
    let mut sums = [V::zero(); C];
    for (block, head) in heads.as_chunks::<BLOCK_HEAD_6>().0.iter().enumerate() {
        let head = head.as_chunks::<{ 2 * LANES }>().0;
        let block_scale = V::load_f16(&head[0]);
        for (index, head) in head[QUADS / LANES / 2..].iter().enumerate() {
            let group = block * (BLOCK / GROUP) + index;
            let head = head.as_chunks::<LANES>().0;
            let scales = [V::load_i8(&head[0]).mul(block_scale), V::load_i8(&head[1]).mul(block_scale)];
            let weights = weights::<V>(&numbers[group]);
            for (sum, x) in sums.iter_mut().zip(&x) {
                let (x_scale, quads) = (V::splat(x.scales[group]), x.quads(group));
                for half in 0..2 {
                    let products = small::<V>(-32 * x.sums[group][half], &weights[4 * half..][..4], &quads[4 * half..]);
                    *sum = sum.mul_add(V::floats(products), scales[half].mul(x_scale));
                }
            }
        }
    }
    sums
}

/// The numbers of a group: four bits, and above them one or two where there are bytes for them.
#[inline(always)]
fn weights<V: Ints>(numbers: &[u8]) -> [V::Quads; GROUP / 4] {
    let numbers = numbers.as_chunks::<QUADS>().0;
    let mut weights = nibbles::<V>(&numbers[..GROUP / 8]);
    let high = &numbers[GROUP / 8..];
    for (index, weights) in weights.iter_mut().enumerate() {
        if let [high] = high {
            *weights = V::or(*weights, V::moved(V::quads(high), 4 - index as i32, 0x10));
        } else if let [_, _] = high {
            *weights = V::or(*weights, V::moved(V::quads(&high[index / 4]), 4 - 2 * (index as i32 % 4), 0x30));
        }
    }
    weights
}

#[inline(always)]
fn nibbles<V: Ints>(numbers: &[[u8; QUADS]]) -> [V::Quads; GROUP / 4] {
    let mut weights = [V::quads(&numbers[0]); GROUP / 4];
    for (pair, numbers) in weights.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
        let both = V::quads(numbers);
        *pair = [V::low(both), V::high(both)];
    }
    weights
}

#[inline(always)]
fn small<V: Ints>(start: i32, weights: &[V::Quads], x: &[[u8; 4]]) -> V::Sums {
    let mut products = V::start(start);
    for (weights, x) in weights.iter().zip(x) {
        products = V::dot_small(products, *weights, *x);
    }
    products
}

/// Products of pairs are added to two sums in turn, so that none waits for the one before it.
#[inline(always)]
pub(super) fn bf16<V: Ints, const C: usize>(tile: &[u8], x: [Bf16Row<'_>; C]) -> [V; C] {
    let mut sums = [[V::zero(); 2]; C];
    for (index, weights) in tile.as_chunks::<{ 2 * QUADS }>().0.iter().enumerate() {
        let weights = weights.as_chunks::<QUADS>().0;
        let weights = [V::quads(&weights[0]), V::quads(&weights[1])];
        for (sums, x) in sums.iter_mut().zip(&x) {
            let x = x[index].as_chunks::<4>().0;
            *sums = [sums[0].dot_bf16(weights[0], x[0]), sums[1].dot_bf16(weights[1], x[1])];
        }
    }
    let mut out = [V::zero(); C];
    for (out, [even, odd]) in out.iter_mut().zip(sums) {
        *out = even.mul_add(odd, V::splat(1.0));
    }
    out
}
