//! Products with weight matrices in the format of their file.
//!
//! A tile of four weight rows by up to four tokens is summed in registers. For few tokens, weights
//! are widened to `f32` on the way into registers, in one pass over the bytes of the file. For many
//! tokens, and for formats of larger blocks, a block of rows is first widened into scratch memory
//! that stays in the cache.

mod source;

use std::cell::RefCell;
use std::ops::Range;

use self::source::{Bf16, F16, F32, Q8, Source, Widened};
use super::disjoint::Disjoint;
use super::simd::{LANES, Lanes, dispatch, padded};
use super::{WORK_PER_PIECE, Workers};
use crate::format::Format;
use crate::matrix::MatrixView;

/// Rows of a tile.
const ROWS: usize = 4;
/// Number of tokens above which it is faster to widen a block of rows into scratch memory.
const FEW_TOKENS: usize = 8;
/// Floats of scratch memory for widened rows: half a second-level cache.
const SCRATCH: usize = 1 << 16;

thread_local! {
    static WIDENED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Computes `out = x * weight^T + bias`: `x` is `(tokens, inputs)`, `weight` `(outputs, inputs)`,
/// `out` `(tokens, outputs)`. The order of every sum depends on `inputs` alone.
///
/// # Panics
/// If lengths do not fit together.
pub(crate) fn linear(workers: &Workers<'_>, x: &[f32], weight: MatrixView<'_>, bias: Option<&[f32]>, out: &mut [f32]) {
    let (outputs, inputs) = (weight.rows, weight.columns);
    let tokens = x.len() / inputs;
    assert_eq!((x.len(), out.len()), (tokens * inputs, tokens * outputs), "shapes of a linear layer");
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "shape of a bias");
    let product = Product { x, tokens, inputs, weight, bias, out: Disjoint::new(out), outputs };
    let block = product.rows_per_block();
    let simd = workers.simd();
    let blocks_per_piece = WORK_PER_PIECE.div_ceil((tokens * inputs * block).max(1));
    workers.share(outputs.div_ceil(block), blocks_per_piece, |blocks| {
        run(simd, &product, blocks.start * block..outputs.min(blocks.end * block), block);
    });
}

/// One call of [`linear`], shared by its threads.
struct Product<'a> {
    /// `(tokens, inputs)`.
    x: &'a [f32],
    tokens: usize,
    inputs: usize,
    /// `(outputs, inputs)`.
    weight: MatrixView<'a>,
    bias: Option<&'a [f32]>,
    /// `(tokens, outputs)`.
    out: Disjoint<'a, f32>,
    outputs: usize,
}

impl Product<'_> {
    /// Returns true if weights are widened on the way into registers.
    fn is_direct(&self) -> bool {
        let format = matches!(self.weight.format, Format::F32 | Format::BF16 | Format::F16 | Format::Q8_0);
        format && self.inputs.is_multiple_of(LANES) && self.tokens <= FEW_TOKENS
    }

    fn rows_per_block(&self) -> usize {
        if self.is_direct() { ROWS } else { (SCRATCH / self.inputs / ROWS).clamp(1, 16) * ROWS }
    }

    #[inline(always)]
    fn token(&self, index: usize) -> &[f32] {
        &self.x[index * self.inputs..][..self.inputs]
    }

    /// Writes the sums of rows from `row` on by tokens from `token` on.
    #[inline(always)]
    fn write<const R: usize, const C: usize>(&self, row: usize, token: usize, sums: [[f32; C]; R]) {
        for (row, sums) in (row..).zip(sums) {
            assert!(row < self.outputs);
            for (token, sum) in (token..).zip(sums) {
                let index = token * self.outputs + row;
                // SAFETY: the output of this row for one token. A row is given to one thread, once,
                // and no other call of this function by that thread is under way.
                #[allow(unsafe_code)]
                let out = unsafe { self.out.range(index..index + 1) };
                out[0] = self.bias.map_or(sum, |bias| sum + bias[row]);
            }
        }
    }
}

dispatch! {
    /// Computes some rows, `block` at a time.
    fn run(product: &Product<'_>, rows: Range<usize>, block: usize) = run_body
}

#[inline(always)]
fn run_body<S: Lanes>(simd: S, product: &Product<'_>, rows: Range<usize>, block: usize) {
    if !product.is_direct() {
        // Taken and put back rather than used in `WIDENED.with`: see `kernels::simd` on closures.
        let mut scratch = WIDENED.take();
        widened(simd, product, rows, block, &mut scratch);
        WIDENED.set(scratch);
        return;
    }
    match product.weight.format {
        Format::F32 => direct::<S, F32<'_>>(simd, product, rows),
        Format::BF16 => direct::<S, Bf16<'_>>(simd, product, rows),
        Format::F16 => direct::<S, F16<'_>>(simd, product, rows),
        // `is_direct` holds for four formats only.
        _ => direct::<S, Q8<'_>>(simd, product, rows),
    }
}

#[inline(always)]
fn direct<'a, S: Lanes, W: Source<'a>>(simd: S, product: &'a Product<'_>, rows: Range<usize>) {
    let mut row = rows.start;
    while row + ROWS <= rows.end {
        let weights = [row, row + 1, row + 2, row + 3].map(|row| W::new(product.weight.row(row)));
        all_tokens(simd, product, row, weights);
        row += ROWS;
    }
    for row in row..rows.end {
        all_tokens(simd, product, row, [W::new(product.weight.row(row))]);
    }
}

#[inline(always)]
fn all_tokens<'a, S: Lanes, W: Source<'a>, const R: usize>(simd: S, product: &Product<'_>, row: usize, rows: [W; R]) {
    let mut token = 0;
    while token < product.tokens {
        token += some_tokens(simd, product, row, rows, token);
    }
}

/// Multiplies `R` weight rows, from `row` on, by the next one, two or four tokens; returns how
/// many.
#[inline(always)]
fn some_tokens<'a, S: Lanes, W: Source<'a>, const R: usize>(
    simd: S,
    product: &Product<'_>,
    row: usize,
    rows: [W; R],
    token: usize,
) -> usize {
    let at = |offset| product.token(token + offset);
    let left = product.tokens - token;
    if S::WIDE && left >= 4 {
        product.write(row, token, tile(simd, rows, [at(0), at(1), at(2), at(3)]));
        4
    } else if S::WIDE && left >= 2 {
        product.write(row, token, tile(simd, rows, [at(0), at(1)]));
        2
    } else {
        product.write(row, token, tile(simd, rows, [at(0)]));
        1
    }
}

#[inline(always)]
fn widened<S: Lanes>(simd: S, product: &Product<'_>, rows: Range<usize>, block: usize, scratch: &mut Vec<f32>) {
    let width = product.inputs.next_multiple_of(LANES);
    scratch.resize(scratch.len().max(block * width), 0.0);
    for start in rows.clone().step_by(block) {
        let count = block.min(rows.end - start);
        let scratch = &mut scratch[..count * width];
        for (row, to) in (start..start + count).zip(scratch.chunks_exact_mut(width)) {
            to[product.inputs..].fill(0.0);
            product.weight.dequantize_row(row, &mut to[..product.inputs]);
        }
        let mut token = 0;
        while token < product.tokens {
            token += block_tile(simd, product, start, scratch, token);
        }
    }
}

/// Multiplies a block of widened rows, the first of which is `start`, by the next few tokens, which
/// stay in the first-level cache meanwhile; returns how many.
#[inline(always)]
fn block_tile<S: Lanes>(simd: S, product: &Product<'_>, start: usize, block: &[f32], token: usize) -> usize {
    let width = product.inputs.next_multiple_of(LANES);
    let count = block.len() / width;
    let at = |row: usize| Widened::of(&block[row * width..][..width]);
    let (mut row, mut done) = (0, 0);
    while row + ROWS <= count {
        let rows = [at(row), at(row + 1), at(row + 2), at(row + 3)];
        done = some_tokens(simd, product, start + row, rows, token);
        row += ROWS;
    }
    for row in row..count {
        done = some_tokens(simd, product, start + row, [at(row)], token);
    }
    done
}

/// Returns the sums of `R` weight rows by `C` tokens. Each has lanes of its own, so its value does
/// not depend on `R` or `C`.
#[inline(always)]
fn tile<'a, S: Lanes, W: Source<'a>, const R: usize, const C: usize>(
    simd: S,
    rows: [W; R],
    tokens: [&[f32]; C],
) -> [[f32; C]; R] {
    let mut sums = [[simd.splat(0.0); C]; R];
    let inputs = tokens[0].len();
    let blocks = inputs / LANES;
    // Slices of equal length let the compiler remove the bounds checks below.
    let whole_rows = rows.map(|row| row.first(blocks));
    let whole_tokens = tokens.map(|x| &x.as_chunks::<LANES>().0[..blocks]);
    for block in 0..blocks {
        let mut x = [simd.splat(0.0); C];
        for (x, token) in x.iter_mut().zip(whole_tokens) {
            *x = simd.load(&token[block]);
        }
        for r in 0..R {
            let weights = whole_rows[r].lanes(simd, block);
            for c in 0..C {
                sums[r][c] = simd.mul_add(weights, x[c], sums[r][c]);
            }
        }
    }
    if !inputs.is_multiple_of(LANES) {
        for c in 0..C {
            let x = simd.load(&padded(&tokens[c][blocks * LANES..]));
            for r in 0..R {
                sums[r][c] = simd.mul_add(rows[r].lanes(simd, blocks), x, sums[r][c]);
            }
        }
    }
    let mut out = [[0.0; C]; R];
    simd.sums(sums.as_flattened(), out.as_flattened_mut());
    out
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
