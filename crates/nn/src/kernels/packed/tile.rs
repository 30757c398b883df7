//! Sums of a tile's sixteen rows for a few tokens.

use super::GROUP;
use super::layout::{BLOCK, BLOCK_HEAD, BLOCK_HEAD_6, GROUP_4, GROUP_5, GROUP_6, GROUP_8, PAIR_HEAD};
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

/// A token's activations of a group, four at a time.
type Quads<'a> = &'a [[u8; 4]; GROUP / 4];

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
    fn quads(&self, group: usize) -> Quads<'a> {
        bytemuck::cast_ref(&self.values[group])
    }

    #[inline(always)]
    fn sum(&self, group: usize) -> i32 {
        self.sums[group][0] + self.sums[group][1]
    }
}

// Weights are loaded from the lowest address to the highest, each just before it is multiplied: where a compiler is free to load
// those of a group in another order, processors fetch ahead at half the pace.

/// `sum over groups of (weight scale * x scale * sum of products)`.
#[inline(always)]
pub(super) fn q8_0<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    let mut sums = [V::zero(); C];
    for (block, bytes) in tile.as_chunks::<{ PAIR_HEAD + 2 * GROUP_8 }>().0.iter().enumerate() {
        let (scales, numbers) = bytes.split_at(PAIR_HEAD);
        let groups = scales.as_chunks::<{ 2 * LANES }>().0.iter().zip(numbers.as_chunks::<GROUP_8>().0);
        for ((scale, numbers), group) in groups.zip(2 * block..x[0].scales.len()) {
            let quads = quads(&x, group);
            let mut products = starts::<V, C>(&x, |x| -V::OFFSET * x.sum(group));
            for (index, numbers) in numbers.as_chunks::<QUADS>().0.iter().enumerate() {
                let weights = V::quads(numbers);
                for (products, quads) in products.iter_mut().zip(&quads) {
                    *products = V::dot_offset(*products, weights, quads[index]);
                }
            }
            scaled(&mut sums, products, V::load_f16(scale), &x, group);
        }
    }
    sums
}

/// As [`q8_0`], of numbers whose zero is 8.
#[inline(always)]
pub(super) fn q4_0<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    let mut sums = [V::zero(); C];
    for (block, bytes) in tile.as_chunks::<{ PAIR_HEAD + 2 * GROUP_4 }>().0.iter().enumerate() {
        let (scales, numbers) = bytes.split_at(PAIR_HEAD);
        let groups = scales.as_chunks::<{ 2 * LANES }>().0.iter().zip(numbers.as_chunks::<GROUP_4>().0);
        for ((scale, numbers), group) in groups.zip(2 * block..x[0].scales.len()) {
            let start = starts::<V, C>(&x, |x| -8 * x.sum(group));
            let products = small::<V, C, 0>([], numbers.as_chunks().0, 0, start, quads(&x, group));
            scaled(&mut sums, products, V::load_f16(scale), &x, group);
        }
    }
    sums
}

/// `sum over groups of (x scale * (weight scale * sum of products - weight minimum * sum of x))`.
#[inline(always)]
pub(super) fn q4_k<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    with_minima::<V, C, 0, GROUP_4>(tile, x)
}

/// As [`q4_k`], of numbers of five bits.
#[inline(always)]
pub(super) fn q5_k<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    with_minima::<V, C, 1, GROUP_5>(tile, x)
}

/// Numbers of `4 + HIGH` bits; those of a group take `BYTES`.
#[inline(always)]
fn with_minima<V: Ints, const C: usize, const HIGH: usize, const BYTES: usize>(
    tile: &[u8],
    x: [Int8Row<'_>; C],
) -> [V; C] {
    let mut sums = [V::zero(); C];
    for (block, bytes) in tile.chunks_exact(BLOCK_HEAD + BLOCK / GROUP * BYTES).enumerate() {
        let (head, numbers) = bytes.split_at(BLOCK_HEAD);
        let (halves, heads) = head.as_chunks::<{ 2 * LANES }>().0.split_at(2);
        let (block_scale, block_minimum) = (V::load_f16(&halves[0]), V::load_f16(&halves[1]));
        for (index, (head, numbers)) in heads.iter().zip(numbers.as_chunks::<BYTES>().0).enumerate() {
            let group = block * (BLOCK / GROUP) + index;
            let (high, low) = numbers.as_chunks::<QUADS>().0.split_at(HIGH);
            let products = small::<V, C, HIGH>(all::<V, HIGH>(high), low, 0, [V::start(0); C], quads(&x, group));
            let head = head.as_chunks::<LANES>().0;
            let scale = V::load_u8(&head[0]).mul(block_scale);
            let minimum = V::load_u8(&head[1]).mul(block_minimum);
            for ((sum, products), x) in sums.iter_mut().zip(&products).zip(&x) {
                let x_scale = x.scales[group];
                *sum = sum.mul_add(V::floats(*products), scale.mul(V::splat(x_scale)));
                *sum = sum.mul_add(minimum, V::splat(-x_scale * x.sum(group) as f32));
            }
        }
    }
    sums
}

/// `sum over halves of groups of (weight scale * x scale * sum of products)`, of numbers of six bits whose zero is 32.
#[inline(always)]
pub(super) fn q6_k<V: Ints, const C: usize>(tile: &[u8], x: [Int8Row<'_>; C]) -> [V; C] {
    let mut sums = [V::zero(); C];
    for (block, bytes) in tile.as_chunks::<{ BLOCK_HEAD_6 + BLOCK / GROUP * GROUP_6 }>().0.iter().enumerate() {
        let (head, numbers) = bytes.split_at(BLOCK_HEAD_6);
        let head = head.as_chunks::<{ 2 * LANES }>().0;
        let block_scale = V::load_f16(&head[0]);
        for (index, (head, numbers)) in
            head[QUADS / LANES / 2..].iter().zip(numbers.as_chunks::<GROUP_6>().0).enumerate()
        {
            let group = block * (BLOCK / GROUP) + index;
            let (high, low) = numbers.as_chunks::<QUADS>().0.split_at(2);
            let high = all::<V, 2>(high);
            for (half, (scale, low)) in head.as_chunks::<LANES>().0.iter().zip(low.chunks_exact(2)).enumerate() {
                let start = starts::<V, C>(&x, |x| -32 * x.sums[group][half]);
                let products = small::<V, C, 2>(high, low, 4 * half, start, quads(&x, group));
                scaled(&mut sums, products, V::load_i8(scale).mul(block_scale), &x, group);
            }
        }
    }
    sums
}

/// Adds the products of a group, which has this scale.
#[inline(always)]
fn scaled<V: Ints, const C: usize>(
    sums: &mut [V; C],
    products: [V::Sums; C],
    scale: V,
    x: &[Int8Row<'_>; C],
    group: usize,
) {
    for ((sum, products), x) in sums.iter_mut().zip(products).zip(x) {
        *sum = sum.mul_add(V::floats(products), scale.mul(V::splat(x.scales[group])));
    }
}

/// The activations of a group, token by token.
#[inline(always)]
fn quads<'a, const C: usize>(x: &[Int8Row<'a>; C], group: usize) -> [Quads<'a>; C] {
    let mut quads = [x[0].quads(group); C];
    for (quads, x) in quads.iter_mut().zip(x) {
        *quads = x.quads(group);
    }
    quads
}

/// What sums begin with, token by token.
#[inline(always)]
fn starts<V: Ints, const C: usize>(x: &[Int8Row<'_>; C], value: impl Fn(&Int8Row<'_>) -> i32) -> [V::Sums; C] {
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
    x: [Quads<'_>; C],
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
            for (products, x) in products.iter_mut().zip(&x) {
                *products = V::dot_small(*products, weights, x[quad]);
            }
        }
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
