//! Sums of a tile's sixteen rows for a few tokens.

use super::GROUP;
use super::layout::{BLOCK, BLOCK_HEAD, scales_bytes};
use crate::kernels::ints::{Ints, QUADS};
use crate::kernels::lanes::LANES;
use crate::kernels::rounded::Int8;

/// A token's activations in whole numbers, by groups.
#[derive(Clone, Copy, Default)]
pub(super) struct Int8Row<'a> {
    values: &'a [[u8; GROUP]],
    scales: &'a [f32],
    sums: &'a [i32],
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
            let mut products = V::start(-V::OFFSET * x.sums[group]);
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
        let weights = nibbles::<V>(numbers);
        for (sum, x) in sums.iter_mut().zip(&x) {
            let products = small::<V>(-8 * x.sums[group], &weights, x.quads(group));
            *sum = sum.mul_add(V::floats(products), scale.mul(V::splat(x.scales[group])));
        }
    }
    sums
}

/// `sum over groups of (x scale * (weight scale * sum of products - weight minimum * sum of x))`.
#[inline(always)]
pub(super) fn q4_k<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    let blocks = x[0].scales.len() * GROUP / BLOCK;
    let (heads, numbers) = tile.split_at(blocks * BLOCK_HEAD);
    let numbers = numbers.as_chunks::<{ GROUP / 2 * LANES }>().0;
    let mut sums = [V::zero(); C];
    for (block, head) in heads.as_chunks::<BLOCK_HEAD>().0.iter().enumerate() {
        let (halves, heads) = head.as_chunks::<{ 2 * LANES }>().0.split_at(2);
        let (block_scale, block_minimum) = (V::load_f16(&halves[0]), V::load_f16(&halves[1]));
        for (index, head) in heads.iter().enumerate() {
            let group = block * (BLOCK / GROUP) + index;
            let head = head.as_chunks::<LANES>().0;
            let scale = V::load_u8(&head[0]).mul(block_scale);
            let minimum = V::load_u8(&head[1]).mul(block_minimum);
            let weights = nibbles::<V>(&numbers[group]);
            for (sum, x) in sums.iter_mut().zip(&x) {
                let products = small::<V>(0, &weights, x.quads(group));
                let x_scale = x.scales[group];
                *sum = sum.mul_add(V::floats(products), scale.mul(V::splat(x_scale)));
                *sum = sum.mul_add(minimum, V::splat(-x_scale * x.sums[group] as f32));
            }
        }
    }
    sums
}

#[inline(always)]
fn nibbles<V: Ints>(numbers: &[u8; GROUP / 2 * LANES]) -> [V::Quads; GROUP / 4] {
    let numbers = numbers.as_chunks::<QUADS>().0;
    let mut weights = [V::quads(&numbers[0]); GROUP / 4];
    for (pair, numbers) in weights.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
        let both = V::quads(numbers);
        *pair = [V::low(both), V::high(both)];
    }
    weights
}

#[inline(always)]
fn small<V: Ints>(start: i32, weights: &[V::Quads; GROUP / 4], x: &[[u8; 4]]) -> V::Sums {
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
