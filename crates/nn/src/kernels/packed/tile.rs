//! Products of a tile's sixteen rows and a panel of `C` tokens.
//!
//! Weights are loaded from the lowest address to the highest, each just before it is multiplied. If
//! the compiler were free to load the vectors of a group in another order, prefetching would reach
//! half the bandwidth.

use super::format::{BLOCK, BLOCK_HEAD, BLOCK_HEAD_6, GROUP_4, GROUP_5, GROUP_6, GROUP_8, PAIR_HEAD};
use crate::kernels::panels::{Bf16Group, GROUP, Int8Group};
use crate::kernels::simd::{LANES, Lanes, QUADS};

/// Returns `sum over groups of (weight scale * x scale * sum of products)` per token.
#[inline(always)]
pub(super) fn q8_0<S: Lanes, const C: usize>(simd: S, tile: &[u8], x: &[[Int8Group; C]]) -> [S::Floats; C] {
    let mut sums = [simd.splat(0.0); C];
    for (block, x) in tile.as_chunks::<{ PAIR_HEAD + 2 * GROUP_8 }>().0.iter().zip(x.chunks(2)) {
        let (scales, numbers) = block.split_at(PAIR_HEAD);
        let groups = scales.as_chunks::<{ 2 * LANES }>().0.iter().zip(numbers.as_chunks::<GROUP_8>().0);
        for ((scale, numbers), x) in groups.zip(x) {
            let mut products = starts::<S, C>(simd, x, |x| -S::BIAS * x.sum());
            for (index, numbers) in numbers.as_chunks::<QUADS>().0.iter().enumerate() {
                let weights = simd.load_bytes(numbers);
                for (products, x) in products.iter_mut().zip(x) {
                    *products = simd.dot_biased(*products, weights, x.values[index]);
                }
            }
            scaled(simd, &mut sums, products, simd.load_f16(scale), x);
        }
    }
    sums
}

/// Like [`q8_0`], for 4-bit numbers that are stored 8 larger.
#[inline(always)]
pub(super) fn q4_0<S: Lanes, const C: usize>(simd: S, tile: &[u8], x: &[[Int8Group; C]]) -> [S::Floats; C] {
    let mut sums = [simd.splat(0.0); C];
    for (block, x) in tile.as_chunks::<{ PAIR_HEAD + 2 * GROUP_4 }>().0.iter().zip(x.chunks(2)) {
        let (scales, numbers) = block.split_at(PAIR_HEAD);
        let groups = scales.as_chunks::<{ 2 * LANES }>().0.iter().zip(numbers.as_chunks::<GROUP_4>().0);
        for ((scale, numbers), x) in groups.zip(x) {
            let start = starts::<S, C>(simd, x, |x| -8 * x.sum());
            let products = Numbers::<S, 0> { high: [], low: numbers.as_chunks().0, first: 0 }.dot(simd, start, x);
            scaled(simd, &mut sums, products, simd.load_f16(scale), x);
        }
    }
    sums
}

/// Returns `sum over groups of (x scale * (weight scale * sum of products - weight minimum * sum of
/// x))` per token.
#[inline(always)]
pub(super) fn q4_k<S: Lanes, const C: usize>(simd: S, tile: &[u8], x: &[[Int8Group; C]]) -> [S::Floats; C] {
    with_minima::<S, C, 0, GROUP_4>(simd, tile, x)
}

/// Like [`q4_k`], for 5-bit numbers.
#[inline(always)]
pub(super) fn q5_k<S: Lanes, const C: usize>(simd: S, tile: &[u8], x: &[[Int8Group; C]]) -> [S::Floats; C] {
    with_minima::<S, C, 1, GROUP_5>(simd, tile, x)
}

/// Like [`q4_k`], for numbers of `4 + HIGH` bits, `BYTES` per group.
#[inline(always)]
fn with_minima<S: Lanes, const C: usize, const HIGH: usize, const BYTES: usize>(
    simd: S,
    tile: &[u8],
    x: &[[Int8Group; C]],
) -> [S::Floats; C] {
    let mut sums = [simd.splat(0.0); C];
    let blocks = tile.chunks_exact(BLOCK_HEAD + BLOCK / GROUP * BYTES);
    for (block, x) in blocks.zip(x.as_chunks::<{ BLOCK / GROUP }>().0) {
        let (head, numbers) = block.split_at(BLOCK_HEAD);
        let (halves, heads) = head.as_chunks::<{ 2 * LANES }>().0.split_at(2);
        let (block_scale, block_minimum) = (simd.load_f16(&halves[0]), simd.load_f16(&halves[1]));
        for ((head, numbers), x) in heads.iter().zip(numbers.as_chunks::<BYTES>().0).zip(x) {
            let (high, low) = numbers.as_chunks::<QUADS>().0.split_at(HIGH);
            let numbers = Numbers::<S, HIGH> { high: load_all(simd, high), low, first: 0 };
            let products = numbers.dot(simd, [simd.splat_i32(0); C], x);
            let head = head.as_chunks::<LANES>().0;
            let scale = simd.mul(simd.load_u8(&head[0]), block_scale);
            let minimum = simd.mul(simd.load_u8(&head[1]), block_minimum);
            scaled(simd, &mut sums, products, scale, x);
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = simd.mul_add(minimum, simd.splat(-x.scale * x.sum() as f32), *sum);
            }
        }
    }
    sums
}

/// Returns `sum over half groups of (weight scale * x scale * sum of products)` per token, for
/// 6-bit numbers that are stored 32 larger.
#[inline(always)]
pub(super) fn q6_k<S: Lanes, const C: usize>(simd: S, tile: &[u8], x: &[[Int8Group; C]]) -> [S::Floats; C] {
    let mut sums = [simd.splat(0.0); C];
    let blocks = tile.as_chunks::<{ BLOCK_HEAD_6 + BLOCK / GROUP * GROUP_6 }>().0.iter();
    for (block, x) in blocks.zip(x.as_chunks::<{ BLOCK / GROUP }>().0) {
        let (head, numbers) = block.split_at(BLOCK_HEAD_6);
        let head = head.as_chunks::<{ 2 * LANES }>().0;
        let block_scale = simd.load_f16(&head[0]);
        for ((head, numbers), x) in head[QUADS / LANES / 2..].iter().zip(numbers.as_chunks::<GROUP_6>().0).zip(x) {
            let (high, low) = numbers.as_chunks::<QUADS>().0.split_at(2);
            let high = load_all::<S, 2>(simd, high);
            for (half, (scale, low)) in head.as_chunks::<LANES>().0.iter().zip(low.chunks_exact(2)).enumerate() {
                let start = starts::<S, C>(simd, x, |x| -32 * x.sums[half]);
                let products = Numbers::<S, 2> { high, low, first: 4 * half }.dot(simd, start, x);
                scaled(simd, &mut sums, products, simd.mul(simd.load_i8(scale), block_scale), x);
            }
        }
    }
    sums
}

/// Adds `products * scale * x scale` of a group to each token's sums.
#[inline(always)]
fn scaled<S: Lanes, const C: usize>(
    simd: S,
    sums: &mut [S::Floats; C],
    products: [S::Ints; C],
    scale: S::Floats,
    x: &[Int8Group; C],
) {
    for ((sum, products), x) in sums.iter_mut().zip(products).zip(x) {
        *sum = simd.mul_add(simd.to_floats(products), simd.mul(scale, simd.splat(x.scale)), *sum);
    }
}

/// Returns the starting value of each token's integer sums.
#[inline(always)]
fn starts<S: Lanes, const C: usize>(simd: S, x: &[Int8Group; C], value: impl Fn(&Int8Group) -> i32) -> [S::Ints; C] {
    let mut starts = [simd.splat_i32(0); C];
    for (start, x) in starts.iter_mut().zip(x) {
        *start = simd.splat_i32(value(x));
    }
    starts
}

/// Loads `N` vectors.
#[inline(always)]
fn load_all<S: Lanes, const N: usize>(simd: S, numbers: &[[u8; QUADS]]) -> [S::Bytes; N] {
    let mut all = [simd.zero_bytes(); N];
    for (quads, numbers) in all.iter_mut().zip(numbers) {
        *quads = simd.load_bytes(numbers);
    }
    all
}

/// Numbers of a group, of `4 + HIGH` bits.
struct Numbers<'a, S: Lanes, const HIGH: usize> {
    /// The bits above the fourth, of all quads of the group.
    high: [S::Bytes; HIGH],
    /// The low four bits, of two quads per vector.
    low: &'a [[u8; QUADS]],
    /// Index in the group of the first quad of `low`.
    first: usize,
}

impl<S: Lanes, const HIGH: usize> Numbers<'_, S, HIGH> {
    /// Adds to each token's sums the products of its inputs `x` and the numbers.
    #[inline(always)]
    fn dot<const C: usize>(&self, simd: S, mut sums: [S::Ints; C], x: &[Int8Group; C]) -> [S::Ints; C] {
        for (index, numbers) in self.low.iter().enumerate() {
            let (quad, both) = (self.first + 2 * index, simd.load_bytes(numbers));
            let weights = [simd.low_nibbles(both), simd.high_nibbles(both)];
            for (quad, weights) in (quad..quad + 2).zip(weights) {
                let weights = match HIGH {
                    0 => weights,
                    1 => simd.or(weights, simd.shift_and_mask(self.high[0], 4 - quad as i32, 0x10)),
                    _ => simd.or(weights, simd.shift_and_mask(self.high[quad / 4], 4 - 2 * (quad as i32 % 4), 0x30)),
                };
                for (sums, x) in sums.iter_mut().zip(x) {
                    *sums = simd.dot_small(*sums, weights, x.values[quad]);
                }
            }
        }
        sums
    }
}

/// Returns the sums of bfloat16 products per token. Pairs are added to two sums alternately, so
/// that no addition waits for the one before it.
#[inline(always)]
pub(super) fn bf16<S: Lanes, const C: usize>(simd: S, tile: &[u8], x: &[[Bf16Group; C]]) -> [S::Floats; C] {
    let mut sums = [[simd.splat(0.0); 2]; C];
    for (weights, x) in tile.chunks(GROUP / 2 * QUADS).zip(x) {
        for (index, weights) in weights.as_chunks::<{ 2 * QUADS }>().0.iter().enumerate() {
            let weights = weights.as_chunks::<QUADS>().0;
            let weights = [simd.load_bytes(&weights[0]), simd.load_bytes(&weights[1])];
            for (sums, Bf16Group(x)) in sums.iter_mut().zip(x) {
                *sums = [
                    simd.dot_bf16(sums[0], weights[0], x[2 * index]),
                    simd.dot_bf16(sums[1], weights[1], x[2 * index + 1]),
                ];
            }
        }
    }
    let mut out = [simd.splat(0.0); C];
    for (out, [even, odd]) in out.iter_mut().zip(sums) {
        *out = simd.mul_add(odd, simd.splat(1.0), even);
    }
    out
}
