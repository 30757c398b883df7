//! Products of a tile's sixteen rows and a panel of `C` tokens.
//!
//! Weights are loaded from the lowest address to the highest, each just before it is multiplied. If
//! the compiler were free to load the vectors of a group in another order, prefetching would reach
//! half the bandwidth.

use super::format::{Layout, PAIRS, low_and_high_bits};
use crate::format::blocks::{BlockFormat, Code, GROUP, Scale, Shape};
use crate::kernels::panels::{Bf16Group, F32Group, Int8Group, WHOLE};
use crate::kernels::simd::{LANES, Lanes, VECTOR_BYTES, small_dots};

/// Quads of inputs in a group.
const QUADS: usize = GROUP / 4;

/// Returns the sums over runs of `x scale * (weight scale * sum of products + minimum * sum of x)`
/// per token, for weights of format `F`.
///
/// Slices are iterated rather than indexed. A bounds check between the products of a group would
/// part them from the loads of their inputs, which then take a store and a load more.
#[inline(always)]
pub(super) fn blocks<S: Lanes, F: BlockFormat, const C: usize>(
    simd: S,
    tile: &[u8],
    x: &[[Int8Group; C]],
) -> [S::Floats; C] {
    let layout = const { Layout::of(&F::SHAPE) };
    let mut sums = [simd.splat(0.0); C];
    for (block, x) in tile.chunks_exact(layout.bytes).zip(x.chunks(layout.groups)) {
        let (head, numbers) = block.split_at(layout.head());
        let (block, heads) = head.split_at(layout.block_head);
        let scales = Scales::<S>::load(simd, block);
        let groups = heads.chunks_exact(layout.group_head).zip(numbers.chunks_exact(layout.group));
        for ((head, numbers), x) in groups.zip(x) {
            group::<S, F, C>(simd, &mut sums, scales.runs(simd, &F::SHAPE, head), numbers, x);
        }
    }
    sums
}

/// Adds the products of a group, given the scale and the minimum of its first run and its last.
#[inline(always)]
fn group<S: Lanes, F: BlockFormat, const C: usize>(
    simd: S,
    sums: &mut [S::Floats; C],
    [first, last]: [(S::Floats, S::Floats); 2],
    numbers: &[u8],
    x: &[Int8Group; C],
) {
    let shape = &F::SHAPE;
    let (_, high_bits) = const { low_and_high_bits(&F::SHAPE) };
    let (high, low) = numbers.as_chunks::<VECTOR_BYTES>().0.split_at(high_bits * QUADS / 8);
    let mut numbers = Numbers { high: load_two(simd, high), low, loaded: simd.zero_bytes() };
    let mut products = Products::start(simd, shape, x, 0);
    numbers.four_quads::<F, C>(simd, 0, &mut products, x);
    if shape.run < GROUP {
        add_run(simd, sums, first, products.ints, (shape, x, 0));
        products = Products::start(simd, shape, x, 1);
    }
    numbers.four_quads::<F, C>(simd, QUADS / 2, &mut products, x);
    add_run(simd, sums, last, products.ints, (shape, x, shape.runs_per_group() - 1));
}

/// The sums of products of a run per token.
struct Products<S: Lanes, const C: usize> {
    ints: [S::Ints; C],
    /// Those of quads that are not in `ints` yet.
    small: [S::Small; C],
}

impl<S: Lanes, const C: usize> Products<S, C> {
    /// Returns the sums of no products, less what those of the run will be too large by.
    #[inline(always)]
    fn start(simd: S, shape: &Shape, x: &[Int8Group; C], run: usize) -> Self {
        let mut ints = [simd.splat_i32(0); C];
        for (ints, x) in ints.iter_mut().zip(x) {
            *ints = simd.splat_i32(-offset::<S>(shape) * x.sums[place_of(shape, run)]);
        }
        Self { ints, small: ints.map(|ints| simd.begin_small(ints)) }
    }

    /// Adds a quad of small numbers. `part` quads at a time, a power of two, are summed apart.
    #[inline(always)]
    fn add_small(&mut self, simd: S, quad: usize, part: usize, number: S::Bytes, x: &[Int8Group; C]) {
        for ((ints, small), x) in self.ints.iter_mut().zip(&mut self.small).zip(x) {
            if quad.is_multiple_of(part) {
                *small = simd.begin_small(*ints);
            }
            *small = simd.dot_small(*small, number, x.values[quad]);
            if (quad + 1).is_multiple_of(part) {
                *ints = simd.end_small(*ints, *small);
            }
        }
    }

    /// Adds a quad of numbers of eight bits.
    #[inline(always)]
    fn add_biased(&mut self, simd: S, quad: usize, number: S::Bytes, x: &[Int8Group; C]) {
        for (ints, x) in self.ints.iter_mut().zip(x) {
            *ints = simd.dot_biased(*ints, number, x.values[quad]);
        }
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
            *sum = simd.mul_add(minimum, simd.splat(x.scaled_sums[place_of(shape, run)]), *sum);
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

/// Returns the place of a run of a group among the sums of an [`Int8Group`].
#[inline(always)]
fn place_of(shape: &Shape, run: usize) -> usize {
    if shape.run == GROUP { WHOLE } else { run }
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
    /// Adds the products of four quads. They are spelled one by one, so that
    /// their shifts are constants.
    #[inline(always)]
    fn four_quads<F: BlockFormat, const C: usize>(
        &mut self,
        simd: S,
        first: usize,
        products: &mut Products<S, C>,
        x: &[Int8Group; C],
    ) {
        self.quad::<F, C>(simd, first, products, x);
        self.quad::<F, C>(simd, first + 1, products, x);
        self.quad::<F, C>(simd, first + 2, products, x);
        self.quad::<F, C>(simd, first + 3, products, x);
    }

    /// Adds the products of a quad. Quads are asked for in order.
    #[inline(always)]
    fn quad<F: BlockFormat, const C: usize>(
        &mut self,
        simd: S,
        quad: usize,
        products: &mut Products<S, C>,
        x: &[Int8Group; C],
    ) {
        let (low_bits, _) = const { low_and_high_bits(&F::SHAPE) };
        let quads = 8 / low_bits;
        if quad.is_multiple_of(quads) {
            self.loaded = simd.load_bytes(&self.low[quad / quads]);
        }
        let number = self.number::<F>(simd, self.loaded, quad);
        if is_biased(&F::SHAPE) {
            products.add_biased(simd, quad, number, x);
        } else {
            products.add_small(simd, quad, const { quads_at_once(&F::SHAPE) }, number, x);
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
