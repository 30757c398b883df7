//! Products with weight matrices, which stay in the format of their file.
//!
//! A tile of four weight rows by up to four tokens is summed in registers. For few tokens the rows are widened on
//! the way into registers, so that the work is one pass over the file's bytes; for many, or for formats that unpack
//! by larger blocks, a block of rows is first widened into scratch that stays in the cache.

mod source;

use std::cell::RefCell;

use self::source::{Bf16, F16, F32, Q8, Source, Widened};
use super::lanes::{LANES, Lanes, on_each_simd, padded};
use super::{Crew, WORK_PER_PIECE};
use crate::format::Format;
use crate::matrix::MatrixView;

/// Rows of a tile.
const ROWS: usize = 4;
/// Tokens above which widening a block of rows once pays.
const FEW_TOKENS: usize = 8;
/// Floats of scratch for widened rows: half a second-level cache.
const SCRATCH: usize = 1 << 16;

thread_local! {
    static WIDENED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `out = x * weight^T + bias`: `x` is `(tokens, inputs)`, `weight` `(outputs, inputs)`, `out` `(tokens, outputs)`.
/// The order of every sum depends on `inputs` alone.
///
/// # Panics
/// If lengths do not fit together.
pub fn linear(crew: &Crew<'_>, x: &[f32], weight: MatrixView<'_>, bias: Option<&[f32]>, out: &mut [f32]) {
    let (outputs, inputs) = (weight.rows, weight.columns);
    let tokens = x.len() / inputs;
    assert_eq!((x.len(), out.len()), (tokens * inputs, tokens * outputs), "shapes of a linear layer");
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "shape of a bias");
    let product = Product { x, inputs, weight, bias, out: out.as_mut_ptr(), outputs };
    let block = product.rows_per_block(tokens);
    let simd = crew.simd();
    let blocks_per_piece = WORK_PER_PIECE.div_ceil((tokens * inputs * block).max(1));
    crew.share(outputs.div_ceil(block), blocks_per_piece, |blocks| {
        run(simd, &product, blocks.start * block, outputs.min(blocks.end * block), block);
    });
}

/// One call of [`linear`], shared by its threads.
struct Product<'a> {
    x: &'a [f32],
    inputs: usize,
    weight: MatrixView<'a>,
    bias: Option<&'a [f32]>,
    out: *mut f32,
    outputs: usize,
}

// SAFETY: threads write through `out` only at the weight rows they were given, and no row is given twice.
#[allow(unsafe_code)]
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// Whether rows are widened on the way into registers.
    fn is_direct(&self, tokens: usize) -> bool {
        let format = matches!(self.weight.format, Format::F32 | Format::BF16 | Format::F16 | Format::Q8_0);
        format && self.inputs.is_multiple_of(LANES) && tokens <= FEW_TOKENS
    }

    fn rows_per_block(&self, tokens: usize) -> usize {
        if self.is_direct(tokens) { ROWS } else { (SCRATCH / self.inputs / ROWS).clamp(1, 16) * ROWS }
    }

    #[inline(always)]
    fn token(&self, index: usize) -> &[f32] {
        &self.x[index * self.inputs..][..self.inputs]
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn write(&self, token: usize, row: usize, sum: f32) {
        let value = self.bias.map_or(sum, |bias| sum + bias[row]);
        assert!(row < self.outputs && token * self.inputs < self.x.len());
        // SAFETY: `out` holds (tokens, outputs) floats, the indices were just checked, and this row is this thread's.
        unsafe { *self.out.add(token * self.outputs + row) = value }
    }
}

on_each_simd! {
    /// The rows from `first` to `end`, `block` at a time.
    fn run(product: &Product<'_>, first: usize, end: usize, block: usize) = run_body
}

#[inline(always)]
fn run_body<V: Lanes>(product: &Product<'_>, first: usize, end: usize, block: usize) {
    if !product.is_direct(product.x.len() / product.inputs) {
        // No closure: it would be compiled without the instruction set of this function.
        let mut scratch = WIDENED.take();
        widened::<V>(product, first, end, block, &mut scratch);
        WIDENED.set(scratch);
        return;
    }
    match product.weight.format {
        Format::F32 => direct::<V, F32<'_>>(product, first, end),
        Format::BF16 => direct::<V, Bf16<'_>>(product, first, end),
        Format::F16 => direct::<V, F16<'_>>(product, first, end),
        _ => direct::<V, Q8<'_>>(product, first, end),
    }
}

#[inline(always)]
fn direct<'a, V: Lanes, S: Source<'a>>(product: &'a Product<'_>, first: usize, end: usize) {
    let mut row = first;
    while row + ROWS <= end {
        let rows = [row, row + 1, row + 2, row + 3].map(|row| S::new(product.weight.row(row)));
        all_tokens::<V, S, ROWS>(product, row, rows);
        row += ROWS;
    }
    for row in row..end {
        all_tokens::<V, S, 1>(product, row, [S::new(product.weight.row(row))]);
    }
}

#[inline(always)]
fn all_tokens<'a, V: Lanes, S: Source<'a>, const R: usize>(product: &Product<'_>, row: usize, rows: [S; R]) {
    let tokens = product.x.len() / product.inputs;
    let mut token = 0;
    while token < tokens {
        token += some_tokens::<V, S, R>(product, row, rows, token, tokens - token);
    }
}

/// The next one, two or four tokens of `left`; returns how many.
#[inline(always)]
fn some_tokens<'a, V: Lanes, S: Source<'a>, const R: usize>(
    product: &Product<'_>,
    row: usize,
    rows: [S; R],
    token: usize,
    left: usize,
) -> usize {
    let at = |offset| product.token(token + offset);
    if V::WIDE && left >= 4 {
        write::<R, 4>(product, row, token, tile::<V, S, R, 4>(rows, [at(0), at(1), at(2), at(3)]));
        4
    } else if V::WIDE && left >= 2 {
        write::<R, 2>(product, row, token, tile::<V, S, R, 2>(rows, [at(0), at(1)]));
        2
    } else {
        write::<R, 1>(product, row, token, tile::<V, S, R, 1>(rows, [at(0)]));
        1
    }
}

#[inline(always)]
fn write<const R: usize, const C: usize>(product: &Product<'_>, row: usize, token: usize, sums: [[f32; C]; R]) {
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            product.write(token + c, row + r, *sum);
        }
    }
}

#[inline(always)]
fn widened<V: Lanes>(product: &Product<'_>, first: usize, end: usize, block: usize, scratch: &mut Vec<f32>) {
    let width = product.inputs.next_multiple_of(LANES);
    scratch.resize(scratch.len().max(block * width), 0.0);
    let tokens = product.x.len() / product.inputs;
    for start in (first..end).step_by(block) {
        let count = block.min(end - start);
        for (row, to) in (start..start + count).zip(scratch.chunks_exact_mut(width)) {
            to[product.inputs..].fill(0.0);
            product.weight.dequantize_row(row, &mut to[..product.inputs]);
        }
        let mut token = 0;
        while token < tokens {
            token += block_tile::<V>(product, start, count, scratch, token);
        }
    }
}

/// All rows of a block by the next few tokens, which stay in the first-level cache meanwhile; returns how many.
#[inline(always)]
fn block_tile<V: Lanes>(product: &Product<'_>, start: usize, count: usize, scratch: &[f32], token: usize) -> usize {
    let width = product.inputs.next_multiple_of(LANES);
    let left = product.x.len() / product.inputs - token;
    let at = |row: usize| Widened::of(&scratch[row * width..][..width]);
    let (mut row, mut done) = (0, 0);
    while row + ROWS <= count {
        let rows = [at(row), at(row + 1), at(row + 2), at(row + 3)];
        done = some_tokens::<V, Widened<'_>, ROWS>(product, start + row, rows, token, left);
        row += ROWS;
    }
    for row in row..count {
        done = some_tokens::<V, Widened<'_>, 1>(product, start + row, [at(row)], token, left);
    }
    done
}

/// The sums of `R` weight rows by `C` tokens. Each has lanes of its own, so its value does not depend on `R` or `C`.
#[inline(always)]
#[allow(unsafe_code)]
fn tile<'a, V: Lanes, S: Source<'a>, const R: usize, const C: usize>(
    rows: [S; R],
    tokens: [&[f32]; C],
) -> [[f32; C]; R] {
    let mut sums = [[V::zero(); C]; R];
    let inputs = tokens[0].len();
    let blocks = inputs / LANES;
    assert!(rows.iter().all(|row| row.holds(inputs.div_ceil(LANES))) && tokens.iter().all(|x| x.len() == inputs));
    let tokens = tokens.map(<[f32]>::as_chunks::<LANES>);
    for block in 0..blocks {
        let mut x = [V::zero(); C];
        for c in 0..C {
            // SAFETY: every token has this many whole blocks, as was just checked.
            x[c] = V::load(unsafe { tokens[c].0.get_unchecked(block) });
        }
        for r in 0..R {
            // SAFETY: every row holds as many, as was just checked.
            let weights = unsafe { rows[r].lanes::<V>(block) };
            for c in 0..C {
                sums[r][c] = sums[r][c].mul_add(weights, x[c]);
            }
        }
    }
    if !inputs.is_multiple_of(LANES) {
        for c in 0..C {
            let x = V::load(&padded(tokens[c].1));
            for r in 0..R {
                // SAFETY: as above, with the block that is not whole.
                let weights = unsafe { rows[r].lanes::<V>(blocks) };
                sums[r][c] = sums[r][c].mul_add(weights, x);
            }
        }
    }
    let mut out = [[0.0; C]; R];
    for r in 0..R {
        out[r] = V::sums(sums[r]);
    }
    out
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
