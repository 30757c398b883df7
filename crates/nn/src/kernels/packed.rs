//! Weight matrices rearranged for the processor, and products with them.
//!
//! Sixteen rows make a tile: what a vector register holds belongs to sixteen sums at once, and a tile is read from its
//! first byte to its last. Activations are rounded to what the weights are multiplied with: whole numbers of eight bits,
//! a scale to every [`GROUP`] of a row as ggml has it, or bfloat16. Sums of whole numbers are exact, those of groups are
//! added in order, so a token's result has the same bits alone or in a batch.

mod layout;
mod tile;

use std::fmt::{self, Debug, Formatter};

use memmap2::MmapMut;
use rayon::prelude::*;

use self::layout::Layout;
use self::tile::{Bf16Row, Int8Row};
use super::Simd;
use super::ints::Ints;
use super::lanes::{LANES, on_each_simd};
use super::rounded::{Int8, Rounding};
use crate::checkpoint::Tensor;

/// Inputs that share a scale.
pub(super) const GROUP: usize = 32;
/// Multiplications that are worth a task of their own.
const WORK_PER_TASK: usize = 1 << 17;
/// Bytes from which large pages pay.
const LARGE: usize = 4 << 20;

/// A matrix `(outputs, inputs)` in tiles.
pub struct Packed {
    layout: Layout,
    outputs: usize,
    inputs: usize,
    tile_bytes: usize,
    bytes: MmapMut,
}

/// Activations `(tokens, inputs)` as packed matrices take them.
#[derive(Clone, Copy)]
pub enum Rounded<'a> {
    /// In whole numbers.
    Int8(&'a Int8),
    /// In bfloat16.
    Bf16(&'a [u8]),
}

/// A matrix to multiply with, and where the result goes.
pub struct Product<'a> {
    /// `(outputs, inputs)`.
    pub weight: &'a Packed,
    /// `(outputs)`.
    pub bias: Option<&'a [f32]>,
    /// `(tokens, outputs)`.
    pub out: &'a mut [f32],
}

impl Packed {
    /// The matrix in tiles, in memory of its own; `None` where its format or shape has none on this processor.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(weight: &Tensor, simd: Simd) -> std::io::Result<Option<Self>> {
        let (outputs, inputs) = (weight.rows(), weight.columns());
        let Some(layout) = Layout::of(weight.format, simd).filter(|layout| layout.fits(inputs)) else {
            return Ok(None);
        };
        let tile_bytes = layout.tile_bytes(inputs);
        let mut bytes = memory(outputs.div_ceil(LANES) * tile_bytes)?;
        bytes.par_chunks_exact_mut(tile_bytes).enumerate().for_each(|(tile, bytes)| {
            for (lane, row) in (tile * LANES..outputs).take(LANES).enumerate() {
                layout.pack(weight.row_bytes(row), lane, bytes);
            }
        });
        Ok(Some(Self { layout, outputs, inputs, tile_bytes, bytes }))
    }

    /// Rows of the matrix.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// What it wants activations rounded to.
    #[must_use]
    pub fn rounding(&self) -> Rounding {
        self.layout.rounding()
    }

    fn tiles(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    fn tile(&self, index: usize) -> &[u8] {
        &self.bytes[index * self.tile_bytes..][..self.tile_bytes]
    }
}

/// Zeros, in large pages where they pay.
pub(crate) fn memory(bytes: usize) -> std::io::Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes.max(1))?;
    #[cfg(target_os = "linux")]
    if bytes >= LARGE {
        // Advice: where the system has no large pages, small ones do.
        let _ = memory.advise(memmap2::Advice::HugePage);
    }
    Ok(memory)
}

impl Debug for Packed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}, {}) in tiles", self.layout, self.outputs, self.inputs)
    }
}

/// `out = x * weight^T + bias` for matrices that share their input, in one go over all threads.
///
/// # Panics
/// If lengths do not fit together, or a matrix wants another rounding.
pub fn multiply(simd: Simd, x: Rounded<'_>, products: &mut [Product<'_>]) {
    let mut tasks = Vec::new();
    for product in products {
        let Packed { outputs, inputs, .. } = *product.weight;
        let tokens = x.tokens(inputs);
        assert!(product.out.len() == tokens * outputs, "shape of a product");
        assert!(product.bias.is_none_or(|bias| bias.len() == outputs), "shape of a bias");
        let tiles = WORK_PER_TASK.div_ceil((tokens * inputs * LANES).max(1));
        let whole = Task {
            x,
            weight: product.weight,
            bias: product.bias,
            tokens,
            out: product.out.as_mut_ptr(),
            first: 0,
            end: 0,
        };
        let firsts = (0..product.weight.tiles()).step_by(tiles);
        tasks.extend(firsts.map(|first| Task { first, end: (first + tiles).min(product.weight.tiles()), ..whole }));
    }
    if let [task] = tasks.as_slice() {
        return run(simd, task);
    }
    tasks.par_iter().for_each(|task| run(simd, task));
}

/// Some tiles of a product.
#[derive(Clone, Copy)]
struct Task<'a> {
    x: Rounded<'a>,
    weight: &'a Packed,
    bias: Option<&'a [f32]>,
    tokens: usize,
    out: *mut f32,
    first: usize,
    end: usize,
}

// SAFETY: a task writes through `out` only at the rows of its tiles, and no tile is in two tasks.
#[allow(unsafe_code)]
unsafe impl Sync for Task<'_> {}

impl Task<'_> {
    /// The sums of a tile's rows for one token.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn write<V: Ints>(&self, tile: usize, token: usize, sums: V) {
        let mut values = [0.0; LANES];
        sums.store(&mut values);
        let first = tile * LANES;
        let count = LANES.min(self.weight.outputs - first);
        if let Some(bias) = self.bias {
            for (value, bias) in values.iter_mut().zip(&bias[first..first + count]) {
                *value += bias;
            }
        }
        assert!(token < self.tokens);
        // SAFETY: `out` holds (tokens, outputs) floats, the indices lie within, and these rows are this thread's.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), self.out.add(token * self.weight.outputs + first), count)
        }
    }
}

on_each_simd! {
    fn run(task: &Task<'_>) = run_body
}

#[inline(always)]
fn run_body<V: Ints>(task: &Task<'_>) {
    for tile in task.first..task.end {
        let mut token = 0;
        while token < task.tokens {
            token += match task.tokens - token {
                8.. if V::WIDE => some_tokens::<V, 8>(task, tile, token),
                4.. => some_tokens::<V, 4>(task, tile, token),
                2.. => some_tokens::<V, 2>(task, tile, token),
                _ => some_tokens::<V, 1>(task, tile, token),
            };
        }
    }
}

/// The next `C` tokens by one tile; returns `C`.
#[inline(always)]
fn some_tokens<V: Ints, const C: usize>(task: &Task<'_>, tile: usize, token: usize) -> usize {
    let (bytes, inputs) = (task.weight.tile(tile), task.weight.inputs);
    let sums: [V; C] = match task.x {
        Rounded::Int8(x) => {
            let mut rows = [Int8Row::default(); C];
            for (c, row) in rows.iter_mut().enumerate() {
                *row = Int8Row::of(x, token + c, inputs);
            }
            match task.weight.layout {
                Layout::Q8_0 => tile::q8_0(bytes, rows),
                Layout::Q4_0 => tile::q4_0(bytes, rows),
                Layout::Q4_K => tile::q4_k(bytes, rows),
                Layout::Q5_K => tile::q5_k(bytes, rows),
                Layout::Q6_K => tile::q6_k(bytes, rows),
                Layout::BF16 => unreachable!("invariant: `Rounded::tokens` was asked for this layout"),
            }
        }
        Rounded::Bf16(x) => {
            let mut rows: [Bf16Row<'_>; C] = [&[]; C];
            for (c, row) in rows.iter_mut().enumerate() {
                *row = x[2 * (token + c) * inputs..][..2 * inputs].as_chunks().0;
            }
            tile::bf16(bytes, rows)
        }
    };
    for (c, sums) in sums.into_iter().enumerate() {
        task.write(tile, token + c, sums);
    }
    C
}

impl Rounded<'_> {
    fn tokens(&self, inputs: usize) -> usize {
        match self {
            Self::Int8(x) => x.values.len() / inputs,
            Self::Bf16(x) => x.len() / 2 / inputs,
        }
    }
}

#[cfg(test)]
mod tests;
