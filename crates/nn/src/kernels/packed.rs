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
use super::crew::Disjoint;
use super::rounded::{Bf16, GROUP, Int8, Panels, Rounding, panel};
use super::simd::{LANES, Lanes, dispatch};
use super::{Crew, Simd, WORK_PER_PIECE};
use crate::matrix::MatrixView;

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
    Int8(&'a Panels<Int8>),
    /// In bfloat16.
    Bf16(&'a Panels<Bf16>),
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
    pub fn new(weight: MatrixView<'_>, simd: Simd) -> std::io::Result<Option<Self>> {
        let (outputs, inputs) = (weight.rows, weight.columns);
        let Some(layout) = Layout::of(weight.format, simd).filter(|layout| layout.fits(inputs)) else {
            return Ok(None);
        };
        let tile_bytes = layout.tile_bytes(inputs);
        let mut bytes = memory(outputs.div_ceil(LANES) * tile_bytes)?;
        bytes.par_chunks_exact_mut(tile_bytes).enumerate().for_each(|(tile, bytes)| {
            for (lane, row) in (tile * LANES..outputs).take(LANES).enumerate() {
                layout.pack(weight.row(row), lane, bytes);
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
pub fn multiply(crew: &Crew<'_>, x: Rounded<'_>, products: &mut [Product<'_>]) {
    let simd = crew.simd();
    let mut tasks = Vec::with_capacity(products.len());
    let (mut tiles, mut tile_work) = (0, 1);
    for Product { weight, bias, out } in products {
        let Packed { outputs, inputs, .. } = **weight;
        let tokens = x.tokens(weight);
        assert!(out.len() == tokens * outputs, "shape of a product");
        assert!(bias.is_none_or(|bias| bias.len() == outputs), "shape of a bias");
        tasks.push(Task { x, weight, bias: *bias, tokens, out: Disjoint::new(out), first: tiles });
        tiles += weight.tiles();
        tile_work = tile_work.max(tokens * inputs * LANES);
    }
    crew.share(tiles, WORK_PER_PIECE.div_ceil(tile_work), |range| {
        for task in &tasks {
            let (start, end) = (range.start.max(task.first), range.end.min(task.first + task.weight.tiles()));
            if start < end {
                run(simd, task, start - task.first, end - task.first);
            }
        }
    });
}

/// A product under way.
struct Task<'a> {
    x: Rounded<'a>,
    weight: &'a Packed,
    bias: Option<&'a [f32]>,
    tokens: usize,
    out: Disjoint<'a, f32>,
    /// Tiles of the products before it.
    first: usize,
}

impl Task<'_> {
    /// Writes the sums of a tile's rows for one token.
    #[inline(always)]
    fn write(&self, tile: usize, token: usize, mut sums: [f32; LANES]) {
        let first = tile * LANES;
        let count = LANES.min(self.weight.outputs - first);
        if let Some(bias) = self.bias {
            for (sum, bias) in sums.iter_mut().zip(&bias[first..first + count]) {
                *sum += bias;
            }
        }
        let start = token * self.weight.outputs + first;
        // SAFETY: these are outputs of this tile's rows. A tile is given to one thread, once, and no other call of this
        // function by that thread is under way.
        #[allow(unsafe_code)]
        let out = unsafe { self.out.range(start..start + count) };
        out.copy_from_slice(&sums[..count]);
    }
}

dispatch! {
    /// The tiles from `first` to `end`.
    fn run(task: &Task<'_>, first: usize, end: usize) = run_body
}

#[inline(always)]
fn run_body<S: Lanes>(simd: S, task: &Task<'_>, first: usize, end: usize) {
    for tile in first..end {
        let mut token = 0;
        while token < task.tokens {
            match panel::<S>(task.tokens - token) {
                1 => some_tokens::<S, 1>(simd, task, tile, &mut token),
                2 => some_tokens::<S, 2>(simd, task, tile, &mut token),
                3 => some_tokens::<S, 3>(simd, task, tile, &mut token),
                5 if S::WIDE => some_tokens::<S, 5>(simd, task, tile, &mut token),
                6 if S::WIDE => some_tokens::<S, 6>(simd, task, tile, &mut token),
                7 if S::WIDE => some_tokens::<S, 7>(simd, task, tile, &mut token),
                8 if S::WIDE => some_tokens::<S, 8>(simd, task, tile, &mut token),
                _ => some_tokens::<S, 4>(simd, task, tile, &mut token),
            }
        }
    }
}

/// A panel of `C` tokens by one tile.
#[inline(always)]
fn some_tokens<S: Lanes, const C: usize>(simd: S, task: &Task<'_>, tile: usize, token: &mut usize) {
    let bytes = task.weight.tile(tile);
    let sums: [S::Floats; C] = match task.x {
        Rounded::Int8(x) => {
            let x = x.of(*token);
            match task.weight.layout {
                Layout::Q8_0 => tile::q8_0(simd, bytes, x),
                Layout::Q4_0 => tile::q4_0(simd, bytes, x),
                Layout::Q4_K => tile::q4_k(simd, bytes, x),
                Layout::Q5_K => tile::q5_k(simd, bytes, x),
                Layout::Q6_K => tile::q6_k(simd, bytes, x),
                Layout::BF16 => unreachable!("invariant: `Rounded::tokens` was asked for this layout"),
            }
        }
        Rounded::Bf16(x) => tile::bf16(simd, bytes, x.of(*token)),
    };
    for sums in sums {
        task.write(tile, *token, simd.to_array(sums));
        *token += 1;
    }
}

impl Rounded<'_> {
    /// Rows held.
    ///
    /// # Panics
    /// If a matrix wants another rounding, or rows of another length.
    fn tokens(&self, weight: &Packed) -> usize {
        let (rounding, tokens, groups) = match self {
            Self::Int8(x) => (Rounding::Int8, x.tokens(), x.per_row()),
            Self::Bf16(x) => (Rounding::Bf16, x.tokens(), x.per_row()),
        };
        assert_eq!((rounding, groups), (weight.rounding(), weight.inputs.div_ceil(GROUP)), "activations of a product");
        tokens
    }
}

#[cfg(test)]
mod tests;
