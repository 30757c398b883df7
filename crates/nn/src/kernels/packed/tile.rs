//! Sums of a tile's sixteen rows for a few tokens.

use super::layout::{BLOCK, BLOCK_HEAD, BLOCK_HEAD_6, GROUP_4, GROUP_5, GROUP_6, GROUP_8, PAIR_HEAD};
use crate::kernels::ints::{Ints, QUADS};
use crate::kernels::lanes::LANES;
use crate::kernels::rounded::{Bf16, GROUP, Int8};

// Weights are loaded from the lowest address to the highest, each just before it is multiplied: where a compiler is free to load
// those of a group in another order, processors fetch ahead at half the pace.

/// `sum over groups of (weight scale * x scale * sum of products)`.
#[inline(always)]
pub(super) fn q8_0<V: Ints, const C: usize>(tile: &[u8], x: &[[Int8; C]]) -> [V; C] {
    let mut sums = [V::zero(); C];
    for (block, x) in tile.as_chunks::<{ PAIR_HEAD + 2 * GROUP_8 }>().0.iter().zip(x.chunks(2)) {
        let (scales, numbers) = block.split_at(PAIR_HEAD);
        let groups = scales.as_chunks::<{ 2 * LANES }>().0.iter().zip(numbers.as_chunks::<GROUP_8>().0);
        for ((scale, numbers), x) in groups.zip(x) {
            let mut products = starts::<V, C>(x, |x| -V::OFFSET * x.sum());
            for (index, numbers) in numbers.as_chunks::<QUADS>().0.iter().enumerate() {
                let weights = V::quads(numbers);
                for (products, x) in products.iter_mut().zip(x) {
                    *products = V::dot_offset(*products, weights, x.values[index]);
                }
            }
            scaled(&mut sums, products, V::load_f16(scale), x);
        }
    }
    sums
}

/// As [`q8_0`], of numbers whose zero is 8.
#[inline(always)]
pub(super) fn q4_0<V: Ints, const C: usize>(tile: &[u8], x: &[[Int8; C]]) -> [V; C] {
    let mut sums = [V::zero(); C];
    for (block, x) in tile.as_chunks::<{ PAIR_HEAD + 2 * GROUP_4 }>().0.iter().zip(x.chunks(2)) {
        let (scales, numbers) = block.split_at(PAIR_HEAD);
        let groups = scales.as_chunks::<{ 2 * LANES }>().0.iter().zip(numbers.as_chunks::<GROUP_4>().0);
        for ((scale, numbers), x) in groups.zip(x) {
            let start = starts::<V, C>(x, |x| -8 * x.sum());
            let products = small::<V, C, 0>([], numbers.as_chunks().0, 0, start, x);
            scaled(&mut sums, products, V::load_f16(scale), x);
        }
    }
    sums
}

/// `sum over groups of (x scale * (weight scale * sum of products - weight minimum * sum of x))`.
#[inline(always)]
pub(super) fn q4_k<V: Ints, const C: usize>(tile: &[u8], x: &[[Int8; C]]) -> [V; C] {
    with_minima::<V, C, 0, GROUP_4>(tile, x)
}

/// As [`q4_k`], of numbers of five bits.
#[inline(always)]
pub(super) fn q5_k<V: Ints, const C: usize>(tile: &[u8], x: &[[Int8; C]]) -> [V; C] {
    with_minima::<V, C, 1, GROUP_5>(tile, x)
}

/// Numbers of `4 + HIGH` bits; those of a group take `BYTES`.
#[inline(always)]
fn with_minima<V: Ints, const C: usize, const HIGH: usize, const BYTES: usize>(tile: &[u8], x: &[[Int8; C]]) -> [V; C] {
    let mut sums = [V::zero(); C];
    let blocks = tile.chunks_exact(BLOCK_HEAD + BLOCK / GROUP * BYTES);
    for (block, x) in blocks.zip(x.as_chunks::<{ BLOCK / GROUP }>().0) {
        let (head, numbers) = block.split_at(BLOCK_HEAD);
        let (halves, heads) = head.as_chunks::<{ 2 * LANES }>().0.split_at(2);
        let (block_scale, block_minimum) = (V::load_f16(&halves[0]), V::load_f16(&halves[1]));
        for ((head, numbers), x) in heads.iter().zip(numbers.as_chunks::<BYTES>().0).zip(x) {
            let (high, low) = numbers.as_chunks::<QUADS>().0.split_at(HIGH);
            let products = small::<V, C, HIGH>(all::<V, HIGH>(high), low, 0, [V::start(0); C], x);
            let head = head.as_chunks::<LANES>().0;
            let scale = V::load_u8(&head[0]).mul(block_scale);
            let minimum = V::load_u8(&head[1]).mul(block_minimum);
            scaled(&mut sums, products, scale, x);
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = sum.mul_add(minimum, V::splat(-x.scale * x.sum() as f32));
            }
        }
    }
    sums
}

/// `sum over halves of groups of (weight scale * x scale * sum of products)`, of numbers of six bits whose zero is 32.
#[inline(always)]
pub(super) fn q6_k<V: Ints, const C: usize>(tile: &[u8], x: &[[Int8; C]]) -> [V; C] {
    let mut sums = [V::zero(); C];
    let blocks = tile.as_chunks::<{ BLOCK_HEAD_6 + BLOCK / GROUP * GROUP_6 }>().0.iter();
    for (block, x) in blocks.zip(x.as_chunks::<{ BLOCK / GROUP }>().0) {
        let (head, numbers) = block.split_at(BLOCK_HEAD_6);
        let head = head.as_chunks::<{ 2 * LANES }>().0;
        let block_scale = V::load_f16(&head[0]);
        for ((head, numbers), x) in head[QUADS / LANES / 2..].iter().zip(numbers.as_chunks::<GROUP_6>().0).zip(x) {
            let (high, low) = numbers.as_chunks::<QUADS>().0.split_at(2);
            let high = all::<V, 2>(high);
            for (half, (scale, low)) in head.as_chunks::<LANES>().0.iter().zip(low.chunks_exact(2)).enumerate() {
                let start = starts::<V, C>(x, |x| -32 * x.sums[half]);
                let products = small::<V, C, 2>(high, low, 4 * half, start, x);
                scaled(&mut sums, products, V::load_i8(scale).mul(block_scale), x);
            }
        }
    }
    sums
}

/// Adds the products of a group, which has this scale.
#[inline(always)]
fn scaled<V: Ints, const C: usize>(sums: &mut [V; C], products: [V::Sums; C], scale: V, x: &[Int8; C]) {
    for ((sum, products), x) in sums.iter_mut().zip(products).zip(x) {
        *sum = sum.mul_add(V::floats(products), scale.mul(V::splat(x.scale)));
    }
}

/// What sums begin with, token by token.
#[inline(always)]
fn starts<V: Ints, const C: usize>(x: &[Int8; C], value: impl Fn(&Int8) -> i32) -> [V::Sums; C] {
    let mut starts = [V::start(0); C];
    for (start, x) in starts.iter_mut().zip(x) {
        *start = V::start(value(x));
    }
    starts
}

#[inline(always)]
fn all<V: Ints, const N: usize>(numbers: &[[u8; QUADS]]) -> [V::Quads; N] {
    let mut all = [V::none(); N];
    for (quads, numbers) in all.iter_mut().zip(numbers) {
        *quads = V::quads(numbers);
    }
    all
}

/// Adds to each token's `products` what `low` holds, from quad `first` of a group on; the bits above the fourth are in `high`.
#[inline(always)]
fn small<V: Ints, const C: usize, const HIGH: usize>(
    high: [V::Quads; HIGH],
    low: &[[u8; QUADS]],
    first: usize,
    mut products: [V::Sums; C],
    x: &[Int8; C],
) -> [V::Sums; C] {
    for (index, numbers) in low.iter().enumerate() {
        let (quad, both) = (first + 2 * index, V::quads(numbers));
        let weights = [V::low(both), V::high(both)];
        for (quad, weights) in (quad..quad + 2).zip(weights) {
            let weights = match HIGH {
                0 => weights,
                1 => V::or(weights, V::moved(high[0], 4 - quad as i32, 0x10)),
                _ => V::or(weights, V::moved(high[quad / 4], 4 - 2 * (quad as i32 % 4), 0x30)),
            };
            for (products, x) in products.iter_mut().zip(x) {
                *products = V::dot_small(*products, weights, x.values[quad]);
            }
        }
    }
    products
}

/// Products of pairs are added to two sums in turn, so that none waits for the one before it.
#[inline(always)]
pub(super) fn bf16<V: Ints, const C: usize>(tile: &[u8], x: &[[Bf16; C]]) -> [V; C] {
    let mut sums = [[V::zero(); 2]; C];
    for (weights, x) in tile.chunks(GROUP / 2 * QUADS).zip(x) {
        for (index, weights) in weights.as_chunks::<{ 2 * QUADS }>().0.iter().enumerate() {
            let weights = weights.as_chunks::<QUADS>().0;
            let weights = [V::quads(&weights[0]), V::quads(&weights[1])];
            for (sums, Bf16(x)) in sums.iter_mut().zip(x) {
                *sums = [sums[0].dot_bf16(weights[0], x[2 * index]), sums[1].dot_bf16(weights[1], x[2 * index + 1])];
            }
        }
    }
    let mut out = [V::zero(); C];
    for (out, [even, odd]) in out.iter_mut().zip(sums) {
        *out = even.mul_add(odd, V::splat(1.0));
    }
    out
}
