//! Products of a tile's sixteen rows and a panel of `C` tokens.
//!
//! Weights are loaded from the lowest address to the highest, each just before it is multiplied. If
//! the compiler were free to load the vectors of a group in another order, prefetching would reach
//! half the bandwidth.

use super::format::{Layout, PAIRS, low_and_high_bits};
use crate::format::blocks::{BlockFormat, Code, GROUP, Scale, Shape};
use crate::kernels::panels::{Bf16Group, F32Group, Int8Group, WHOLE};
use crate::kernels::simd::{LANES, Lanes, Prepared, TILE_TOKENS, VECTOR_BYTES, small_dots};

/// Quads of inputs in a group.
const QUADS: usize = GROUP / 4;

/// Returns the sums over runs of `x scale * (weight scale * sum of products + minimum * sum of x)`
/// per token, for weights of format `F`.
///
/// Slices are iterated rather than indexed. A bounds check between the products of a group would
/// part them from the loads of their inputs, which then take a store and a load more.
#[inline(always)]
pub(super) fn blocks<S: Lanes, F: BlockFormat, const C: usize, M: Multiply<S, C>>(
    simd: S,
    tile: &[u8],
    x: &[[Int8Group; C]],
    by: M,
) -> [S::Floats; C] {
    let layout = const { Layout::of(&F::SHAPE) };
    let mut sums = [simd.splat(0.0); C];
    for (block, x) in tile.chunks_exact(layout.bytes).zip(x.chunks(layout.groups)) {
        let (head, numbers) = block.split_at(layout.head());
        let (block, heads) = head.split_at(layout.block_head);
        let scales = Scales::<S>::load(simd, block);
        let groups = heads.chunks_exact(layout.group_head).zip(numbers.chunks_exact(layout.group));
        for ((head, numbers), x) in groups.zip(x) {
            group::<S, F, C, M>(simd, &mut sums, scales.runs(simd, &F::SHAPE, head), numbers, (x, by));
        }
    }
    sums
}

/// Adds the products of a group, given the scale and the minimum of its first run and its last.
#[inline(always)]
fn group<S: Lanes, F: BlockFormat, const C: usize, M: Multiply<S, C>>(
    simd: S,
    sums: &mut [S::Floats; C],
    [first, last]: [(S::Floats, S::Floats); 2],
    numbers: &[u8],
    (x, by): (&[Int8Group; C], M),
) {
    let shape = &F::SHAPE;
    let (_, high_bits) = const { low_and_high_bits(&F::SHAPE) };
    let (high, low) = numbers.as_chunks::<VECTOR_BYTES>().0.split_at(high_bits * QUADS / 8);
    let mut numbers = Numbers { high: load_two(simd, high), low, loaded: simd.zero_bytes() };
    let mut run = Run { shape, x, index: 0 };
    let mut products = by.start(simd, run);
    numbers.four_quads::<F, C, M>(simd, 0, (&mut products, by), x);
    if shape.run < GROUP {
        add_run(simd, sums, first, by.finish(simd, products, run), run);
        run.index = 1;
        products = by.start(simd, run);
    }
    numbers.four_quads::<F, C, M>(simd, QUADS / 2, (&mut products, by), x);
    add_run(simd, sums, last, by.finish(simd, products, run), run);
}

/// The inputs of `C` tokens in a run of a group.
#[derive(Clone, Copy)]
pub(super) struct Run<'a, const C: usize> {
    shape: &'a Shape,
    x: &'a [Int8Group; C],
    /// The place of the run in the group.
    index: usize,
}

impl<const C: usize> Run<'_, C> {
    /// Returns the place of the run among the sums of an [`Int8Group`].
    #[inline(always)]
    fn place(&self) -> usize {
        if self.shape.run == GROUP { WHOLE } else { self.index }
    }
}

/// The numbers of four inputs of sixteen rows.
pub(super) struct Quad<S: Lanes> {
    /// The place of the quad in its group.
    index: usize,
    numbers: S::Bytes,
}

/// A way to multiply the numbers of a run by `C` tokens.
pub(super) trait Multiply<S: Lanes, const C: usize>: Copy {
    /// The products so far.
    type Products;

    /// Returns the products of no numbers.
    fn start(self, simd: S, run: Run<'_, C>) -> Self::Products;

    /// Adds the products of a quad. Quads are given in order.
    fn add<F: BlockFormat>(self, simd: S, products: &mut Self::Products, quad: Quad<S>, x: &[Int8Group; C]);

    /// Returns each token's sums.
    fn finish(self, simd: S, products: Self::Products, run: Run<'_, C>) -> [S::Ints; C];
}

/// Quad by quad, sixteen lanes at a time.
#[derive(Clone, Copy)]
pub(super) struct ByLanes;

/// The sums of products of a run per token.
pub(super) struct LaneSums<S: Lanes, const C: usize> {
    ints: [S::Ints; C],
    /// Those of quads that are not in `ints` yet.
    small: [S::Small; C],
}

impl<S: Lanes, const C: usize> Multiply<S, C> for ByLanes {
    type Products = LaneSums<S, C>;

    /// Returns the sums of no products, less what those of the run will be too large by.
    #[inline(always)]
    fn start(self, simd: S, run: Run<'_, C>) -> LaneSums<S, C> {
        let mut ints = [simd.splat_i32(0); C];
        for (ints, x) in ints.iter_mut().zip(run.x) {
            *ints = simd.splat_i32(-offset(run.shape, S::BIAS) * x.sums[run.place()]);
        }
        LaneSums { ints, small: ints.map(|ints| simd.begin_small(ints)) }
    }

    #[inline(always)]
    fn add<F: BlockFormat>(self, simd: S, products: &mut LaneSums<S, C>, quad: Quad<S>, x: &[Int8Group; C]) {
        let (Quad { index, numbers }, part) = (quad, const { quads_at_once(&F::SHAPE) });
        for ((ints, small), x) in products.ints.iter_mut().zip(&mut products.small).zip(x) {
            if is_biased(&F::SHAPE) {
                *ints = simd.dot_biased(*ints, numbers, x.values[index]);
                continue;
            }
            if index.is_multiple_of(part) {
                *small = simd.begin_small(*ints);
            }
            *small = simd.dot_small(*small, numbers, x.values[index]);
            if (index + 1).is_multiple_of(part) {
                *ints = simd.end_small(*ints, *small);
            }
        }
    }

    #[inline(always)]
    fn finish(self, _: S, products: LaneSums<S, C>, _: Run<'_, C>) -> [S::Ints; C] {
        products.ints
    }
}

/// Returns the quads of a run whose products are summed in 16 bits where the processor has no
/// larger sums of products.
const fn quads_at_once(shape: &Shape) -> usize {
    let run = shape.run / 4;
    match small_dots(shape.bits).checked_ilog2() {
        Some(log) if 1 << log < run => 1 << log,
        _ => run,
    }
}

/// The quads of a run, to be multiplied at once in tiles.
pub(super) struct RunNumbers {
    numbers: [[u8; VECTOR_BYTES]; QUADS],
    count: usize,
}

/// All quads of a run at once. The sums are those of [`ByLanes`]: integers, and exact.
impl<S: Lanes> Multiply<S, TILE_TOKENS> for &Prepared {
    type Products = RunNumbers;

    #[inline(always)]
    fn start(self, _: S, _: Run<'_, TILE_TOKENS>) -> RunNumbers {
        RunNumbers { numbers: [[0; VECTOR_BYTES]; QUADS], count: 0 }
    }

    #[inline(always)]
    fn add<F: BlockFormat>(self, simd: S, run: &mut RunNumbers, quad: Quad<S>, _: &[Int8Group; TILE_TOKENS]) {
        run.numbers[run.count] = simd.to_bytes(quad.numbers);
        run.count += 1;
    }

    #[inline(always)]
    fn finish(self, simd: S, products: RunNumbers, run: Run<'_, TILE_TOKENS>) -> [S::Ints; TILE_TOKENS] {
        let mut sums = run.x.each_ref().map(|x| [-offset(run.shape, 128) * x.sums[run.place()]; LANES]);
        let tokens = &bytemuck::must_cast_slice(run.x)[run.index * run.shape.run..];
        self.dot_bytes(&products.numbers[..products.count], tokens, size_of::<Int8Group>(), &mut sums);
        let mut ints = [simd.splat_i32(0); TILE_TOKENS];
        for (ints, sums) in ints.iter_mut().zip(&sums) {
            *ints = simd.load_i32(sums);
        }
        ints
    }
}

/// Adds to each token's sums the products of a run with its scale, and its minimum.
#[inline(always)]
fn add_run<S: Lanes, const C: usize>(
    simd: S,
    sums: &mut [S::Floats; C],
    (scale, minimum): (S::Floats, S::Floats),
    products: [S::Ints; C],
    run: Run<'_, C>,
) {
    for ((sum, products), x) in sums.iter_mut().zip(products).zip(run.x) {
        *sum = simd.mul_add(simd.to_floats(products), simd.mul(scale, simd.splat(x.scale)), *sum);
    }
    if run.shape.has_minima() {
        for (sum, x) in sums.iter_mut().zip(run.x) {
            *sum = simd.mul_add(minimum, simd.splat(x.scaled_sums[run.place()]), *sum);
        }
    }
}

/// Returns the factor of the sum of inputs that products of numbers are too large by, which is
/// `bias` if the numbers are biased.
#[inline(always)]
fn offset(shape: &Shape, bias: i32) -> i32 {
    match shape.code {
        Code::Offset(offset) if !is_biased(shape) => offset,
        _ => bias,
    }
}

/// Returns true if numbers or codes take all eight bits, as [`Lanes::dot_biased`] takes them.
#[inline(always)]
fn is_biased(shape: &Shape) -> bool {
    shape.bits == 8 || matches!(shape.code, Code::Table(_))
}

/// The scale and the minimum of a large block of a tile.
struct Scales<S: Lanes>([S::Floats; 2]);

impl<S: Lanes> Scales<S> {
    #[inline(always)]
    fn load(simd: S, head: &[u8]) -> Self {
        let mut both = [simd.splat(0.0); 2];
        for (scales, pairs) in both.iter_mut().zip(head.as_chunks::<PAIRS>().0) {
            *scales = simd.load_f16(pairs);
        }
        Self(both)
    }

    /// Returns the scales and the minima of the first and the last run of a group, zeros if there
    /// are no minima.
    #[inline(always)]
    fn runs(&self, simd: S, shape: &Shape, head: &[u8]) -> [(S::Floats, S::Floats); 2] {
        if !shape.is_large() {
            return [Self::small(simd, shape, head); 2];
        }
        let runs = head.as_chunks::<LANES>().0;
        [self.large(simd, shape, runs), self.large(simd, shape, &runs[runs.len() - shape.kinds()..])]
    }

    /// Returns the scale and the minimum of a small block.
    #[inline(always)]
    fn small(simd: S, shape: &Shape, head: &[u8]) -> (S::Floats, S::Floats) {
        let pairs = head.as_chunks::<PAIRS>().0;
        let scale = match shape.scale {
            Scale::F16 => simd.load_f16(&pairs[0]),
            Scale::HalfE8M0 => simd.load_bf16(&pairs[0]),
        };
        (scale, if shape.has_minima() { simd.load_f16(&pairs[1]) } else { simd.splat(0.0) })
    }

    /// Returns the scale and the minimum of a run of a large block.
    #[inline(always)]
    fn large(&self, simd: S, shape: &Shape, head: &[[u8; LANES]]) -> (S::Floats, S::Floats) {
        let [scale, minimum] = self.0;
        let integers = if shape.scales.offset == 0 { simd.load_u8(&head[0]) } else { simd.load_i8(&head[0]) };
        let minima = if shape.has_minima() { simd.load_u8(&head[1]) } else { simd.splat(0.0) };
        (simd.mul(integers, scale), simd.mul(minima, minimum))
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
    /// Adds the products of four quads. They are spelled one by one, so that their shifts are
    /// constants.
    #[inline(always)]
    fn four_quads<F: BlockFormat, const C: usize, M: Multiply<S, C>>(
        &mut self,
        simd: S,
        first: usize,
        (products, by): (&mut M::Products, M),
        x: &[Int8Group; C],
    ) {
        by.add::<F>(simd, products, self.quad::<F>(simd, first), x);
        by.add::<F>(simd, products, self.quad::<F>(simd, first + 1), x);
        by.add::<F>(simd, products, self.quad::<F>(simd, first + 2), x);
        by.add::<F>(simd, products, self.quad::<F>(simd, first + 3), x);
    }

    /// Returns a quad: its numbers, or their codes if the format has a table. Quads are asked for
    /// in order.
    #[inline(always)]
    fn quad<F: BlockFormat>(&mut self, simd: S, index: usize) -> Quad<S> {
        let (low_bits, _) = const { low_and_high_bits(&F::SHAPE) };
        let quads = 8 / low_bits;
        if index.is_multiple_of(quads) {
            self.loaded = simd.load_bytes(&self.low[index / quads]);
        }
        Quad { index, numbers: self.number::<F>(simd, self.loaded, index) }
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
