//! Products of a tile's sixteen rows and a panel of `C` tokens.
//!
//! Weights are loaded from the lowest address to the highest, each just before it is multiplied. If
//! the compiler were free to load the vectors of a group in another order, prefetching would reach
//! half the bandwidth.

use std::sync::atomic::{Ordering, compiler_fence};

use super::format::{Layout, PAIRS, low_and_high_bits};
use crate::format::blocks::{BlockFormat, Code, GROUP, Scale, Shape};
use crate::kernels::panels::{Bf16Group, F32Group, Int8Group};
use crate::kernels::simd::{LANES, Lanes, VECTOR_BYTES};

/// Quads of inputs in a group.
const QUADS: usize = GROUP / 4;

/// Returns the sums over runs of `x scale * (weight scale * sum of products + minimum * sum of x)`
/// per token, for weights of format `F`.
#[inline(always)]
pub(super) fn blocks<S: Lanes, F: BlockFormat, const C: usize>(
    simd: S,
    tile: &[u8],
    x: &[[Int8Group; C]],
) -> [S::Floats; C] {
    let layout = const { Layout::of(&F::SHAPE) };
    let mut sums = [simd.splat(0.0); C];
    for (block, x) in tile.chunks_exact(layout.bytes).zip(x.chunks(layout.groups)) {
        let (head, numbers) = block.split_at(layout.head);
        let head = Head::<S>::load(simd, &F::SHAPE, head);
        for (index, (numbers, x)) in numbers.chunks_exact(layout.group).zip(x).enumerate() {
            group::<S, F, C>(simd, &mut sums, (&head, index), numbers, x);
        }
    }
    sums
}

/// Adds the products of a group, which is group `index` of the block with a head.
#[inline(always)]
fn group<S: Lanes, F: BlockFormat, const C: usize>(
    simd: S,
    sums: &mut [S::Floats; C],
    (head, index): (&Head<'_, S>, usize),
    numbers: &[u8],
    x: &[Int8Group; C],
) {
    let shape = &F::SHAPE;
    let (_, high_bits) = const { low_and_high_bits(&F::SHAPE) };
    let (high, low) = numbers.as_chunks::<VECTOR_BYTES>().0.split_at(high_bits * QUADS / 8);
    let mut numbers = Numbers { high: load_two(simd, high), low, loaded: simd.zero_bytes() };
    let mut products = starts(simd, shape, x, 0);
    numbers.four_quads::<F, C>(simd, 0, &mut products, x);
    if shape.run < GROUP {
        add_run(simd, sums, head.run(simd, shape, 2 * index), products, (shape, x, 0));
        products = starts(simd, shape, x, 1);
    }
    numbers.four_quads::<F, C>(simd, QUADS / 2, &mut products, x);
    let run = GROUP / shape.run - 1;
    add_run(simd, sums, head.run(simd, shape, (run + 1) * index + run), products, (shape, x, run));
}

/// Returns the starting values of the sums of products of a run.
#[inline(always)]
fn starts<S: Lanes, const C: usize>(simd: S, shape: &Shape, x: &[Int8Group; C], run: usize) -> [S::Ints; C] {
    let mut starts = [simd.splat_i32(0); C];
    for (start, x) in starts.iter_mut().zip(x) {
        *start = simd.splat_i32(-offset::<S>(shape) * sum_of(shape, x, run));
    }
    starts
}

/// Adds to each token's sums the products of a run with its scale, and its minimum.
#[inline(always)]
fn add_run<S: Lanes, const C: usize>(
    simd: S,
    sums: &mut [S::Floats; C],
    (scale, minimum): (S::Floats, S::Floats),
    products: [S::Ints; C],
    (shape, x, run): (&Shape, &[Int8Group; C], usize),
) {
    for ((sum, products), x) in sums.iter_mut().zip(products).zip(x) {
        *sum = simd.mul_add(simd.to_floats(products), simd.mul(scale, simd.splat(x.scale)), *sum);
    }
    if shape.has_minima() {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = simd.mul_add(minimum, simd.splat(x.scale * sum_of(shape, x, run) as f32), *sum);
        }
    }
}

/// Returns the factor of the sum of inputs that products of numbers are too large by.
#[inline(always)]
fn offset<S: Lanes>(shape: &Shape) -> i32 {
    match shape.code {
        Code::Offset(offset) if !is_biased(shape) => offset,
        _ => S::BIAS,
    }
}

/// Returns true if numbers or codes take all eight bits, as [`Lanes::dot_biased`] takes them.
#[inline(always)]
fn is_biased(shape: &Shape) -> bool {
    shape.bits == 8 || matches!(shape.code, Code::Table(_))
}

/// Returns the sum of the inputs of a run of a group.
#[inline(always)]
fn sum_of(shape: &Shape, x: &Int8Group, run: usize) -> i32 {
    if shape.run == GROUP { x.sum() } else { x.sums[run] }
}

/// The scales and minima of a block of a tile.
struct Head<'a, S: Lanes> {
    /// Scale and minimum of a large block.
    block: [S::Floats; 2],
    bytes: &'a [u8],
}

impl<'a, S: Lanes> Head<'a, S> {
    #[inline(always)]
    fn load(simd: S, shape: &Shape, head: &'a [u8]) -> Self {
        if !shape.is_large() {
            return Self { block: [simd.splat(0.0); 2], bytes: head };
        }
        let (pairs, bytes) = head.split_at(VECTOR_BYTES);
        let pairs = pairs.as_chunks::<PAIRS>().0;
        Self { block: [simd.load_f16(&pairs[0]), simd.load_f16(&pairs[1])], bytes }
    }

    /// Returns the scales and the minima of a run of every row; zeros if there are no minima.
    #[inline(always)]
    fn run(&self, simd: S, shape: &Shape, run: usize) -> (S::Floats, S::Floats) {
        let mut minimum = simd.splat(0.0);
        if !shape.is_large() {
            let pairs = self.bytes.as_chunks::<PAIRS>().0;
            if shape.has_minima() {
                minimum = simd.load_f16(&pairs[pairs.len() / 2 + run]);
            }
            let scale = match shape.scale {
                Scale::F16 => simd.load_f16(&pairs[run]),
                Scale::HalfE8M0 => simd.load_bf16(&pairs[run]),
            };
            return (scale, minimum);
        }
        let bytes = self.bytes.as_chunks::<LANES>().0;
        if !shape.has_minima() {
            let scale = if shape.scales.offset == 0 { simd.load_u8(&bytes[run]) } else { simd.load_i8(&bytes[run]) };
            return (simd.mul(scale, self.block[0]), minimum);
        }
        let (scale, minimum) = (simd.load_u8(&bytes[2 * run]), simd.load_u8(&bytes[2 * run + 1]));
        (simd.mul(scale, self.block[0]), simd.mul(minimum, self.block[1]))
    }
}

/// Loads up to two vectors.
#[inline(always)]
fn load_two<S: Lanes>(simd: S, vectors: &[[u8; VECTOR_BYTES]]) -> [S::Bytes; 2] {
    let mut both = [simd.zero_bytes(); 2];
    for (loaded, vector) in both.iter_mut().zip(vectors) {
        *loaded = simd.load_bytes(vector);
    }
    both
}

/// The numbers of a group.
struct Numbers<'a, S: Lanes> {
    /// The high bits of all quads, which stay in registers.
    high: [S::Bytes; 2],
    /// The low bits.
    low: &'a [[u8; VECTOR_BYTES]],
    /// The vector of `low` that was loaded last.
    loaded: S::Bytes,
}

impl<S: Lanes> Numbers<'_, S> {
    /// Adds to each token's sums the products of four quads. They are spelled one by one, so that
    /// their shifts are constants.
    #[inline(always)]
    fn four_quads<F: BlockFormat, const C: usize>(
        &mut self,
        simd: S,
        first: usize,
        sums: &mut [S::Ints; C],
        x: &[Int8Group; C],
    ) {
        self.quad::<F, C>(simd, first, sums, x);
        self.quad::<F, C>(simd, first + 1, sums, x);
        self.quad::<F, C>(simd, first + 2, sums, x);
        self.quad::<F, C>(simd, first + 3, sums, x);
    }

    /// Adds to each token's sums the products of a quad. Quads are asked for in order.
    #[inline(always)]
    fn quad<F: BlockFormat, const C: usize>(
        &mut self,
        simd: S,
        quad: usize,
        sums: &mut [S::Ints; C],
        x: &[Int8Group; C],
    ) {
        let (low_bits, _) = const { low_and_high_bits(&F::SHAPE) };
        let quads = 8 / low_bits;
        if quad.is_multiple_of(quads) {
            self.loaded = simd.load_bytes(&self.low[quad / quads]);
        }
        let number = self.number::<F>(simd, self.loaded, quad);
        // Keeps the loads of inputs beside their products: moved to the front of the group, they
        // would not fit into the registers, and each would take a store and a load more.
        compiler_fence(Ordering::SeqCst);
        for (sums, x) in sums.iter_mut().zip(x) {
            *sums = if is_biased(&F::SHAPE) {
                simd.dot_biased(*sums, number, x.values[quad])
            } else {
                simd.dot_small(*sums, number, x.values[quad])
            };
        }
    }

    /// Returns the numbers of a quad, or their codes if the format has a table.
    #[inline(always)]
    fn number<F: BlockFormat>(&self, simd: S, low: S::Bytes, quad: usize) -> S::Bytes {
        let (low_bits, high_bits) = const { low_and_high_bits(&F::SHAPE) };
        let mut number = low;
        if low_bits < 8 {
            let shift = quad % (8 / low_bits) * low_bits;
            number = simd.shift_and_mask(low, -(shift as i32), (1 << low_bits) - 1);
        }
        if let Some(quads) = 8usize.checked_div(high_bits) {
            let mask = ((1 << high_bits) - 1) << low_bits;
            let shift = low_bits as i32 - (quad % quads * high_bits) as i32;
            number = simd.or(number, simd.shift_and_mask(self.high[quad / quads], shift, mask));
        }
        match F::SHAPE.code {
            Code::Offset(_) => number,
            Code::Table(table) => simd.look_up(table, number),
        }
    }
}

/// Returns the sums of bfloat16 products per token. Pairs are added to two sums alternately, so
/// that no addition waits for the one before it.
#[inline(always)]
pub(super) fn bf16<S: Lanes, const C: usize>(simd: S, tile: &[u8], x: &[[Bf16Group; C]]) -> [S::Floats; C] {
    let mut sums = [[simd.splat(0.0); 2]; C];
    for (weights, x) in tile.chunks(GROUP / 2 * VECTOR_BYTES).zip(x) {
        for (index, weights) in weights.as_chunks::<{ 2 * VECTOR_BYTES }>().0.iter().enumerate() {
            let weights = weights.as_chunks::<VECTOR_BYTES>().0;
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

/// Sums per token of [`halves`]: enough that no addition waits for the one before it.
const SUMS: usize = 4;

/// Returns the sums of products of 16-bit floats, which `load` widens, and floats per token.
#[inline(always)]
pub(super) fn halves<S: Lanes, const C: usize>(
    simd: S,
    tile: &[u8],
    x: &[[F32Group; C]],
    load: impl Fn(S, &[u8; PAIRS]) -> S::Floats,
) -> [S::Floats; C] {
    let mut sums = [[simd.splat(0.0); SUMS]; C];
    for (weights, x) in tile.chunks(GROUP * PAIRS).zip(x) {
        for (index, weights) in weights.as_chunks::<PAIRS>().0.iter().enumerate() {
            let weights = load(simd, weights);
            for (sums, F32Group(x)) in sums.iter_mut().zip(x) {
                sums[index % SUMS] = simd.mul_add(weights, simd.splat(x[index]), sums[index % SUMS]);
            }
        }
    }
    let mut out = [simd.splat(0.0); C];
    for (out, [a, b, c, d]) in out.iter_mut().zip(sums) {
        let one = simd.splat(1.0);
        *out = simd.mul_add(simd.mul_add(b, one, a), one, simd.mul_add(d, one, c));
    }
    out
}
