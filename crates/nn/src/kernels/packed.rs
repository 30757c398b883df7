//! Weight matrices packed into tiles, and products with them.
//!
//! A tile is sixteen rows: a vector register holds numbers of sixteen sums at once, and a tile is
//! read from its first byte to its last. Activations are quantized to the format that the weights
//! are multiplied with: signed bytes with a scale per [`GROUP`] inputs, as in ggml, or bfloat16.
//! Integer sums are exact and those of groups are added in order, so a token's result has the same
//! bits alone or in a batch.

mod format;
mod tile;

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;

use memmap2::MmapMut;
use rayon::prelude::*;

use self::format::TileFormat;
use super::disjoint::Disjoint;
use super::panels::{Bf16Group, GROUP, Int8Group, Panels, Quantization, panel_tokens};
use super::simd::{LANES, Lanes, dispatch};
use super::{Simd, WORK_PER_PIECE, Workers};
use crate::matrix::MatrixView;

/// Allocations of at least this many bytes request huge pages.
const LARGE_PAGES_FROM: usize = 4 << 20;

/// A matrix `(outputs, inputs)` in tiles.
pub(crate) struct Packed {
    format: TileFormat,
    outputs: usize,
    inputs: usize,
    tile_bytes: usize,
    bytes: MmapMut,
}

/// Quantized activations `(tokens, inputs)`.
#[derive(Clone, Copy)]
pub(crate) enum Quantized<'a> {
    /// Signed bytes.
    Int8(&'a Panels<Int8Group>),
    /// Bfloat16.
    Bf16(&'a Panels<Bf16Group>),
}

/// A matrix to multiply with, and the place of the result.
pub(crate) struct Product<'a> {
    /// `(outputs, inputs)`.
    pub(crate) weight: &'a Packed,
    /// `(outputs)`.
    pub(crate) bias: Option<&'a [f32]>,
    /// `(tokens, outputs)`.
    pub(crate) out: &'a mut [f32],
}

impl Packed {
    /// Copies a matrix into tiles. Returns `None` if its format or shape cannot be packed on this
    /// processor.
    ///
    /// # Errors
    /// If memory runs out.
    pub(crate) fn try_new(weight: MatrixView<'_>, simd: Simd) -> std::io::Result<Option<Self>> {
        let (outputs, inputs) = (weight.rows, weight.columns);
        let Some(format) = TileFormat::of(weight.format, simd).filter(|format| format.fits(inputs)) else {
            return Ok(None);
        };
        let tile_bytes = format.tile_bytes(inputs);
        let mut bytes = zeroed_memory(outputs.div_ceil(LANES) * tile_bytes)?;
        bytes.par_chunks_exact_mut(tile_bytes).enumerate().for_each(|(tile, bytes)| {
            for (lane, row) in (tile * LANES..outputs).take(LANES).enumerate() {
                format.pack(weight.row(row), lane, bytes);
            }
        });
        Ok(Some(Self { format, outputs, inputs, tile_bytes, bytes }))
    }

    /// Returns the rows of the matrix.
    #[must_use]
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Returns the columns of the matrix.
    #[must_use]
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns the format that activations must have.
    #[must_use]
    pub(crate) fn quantization(&self) -> Quantization {
        self.format.quantization()
    }

    fn tiles(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    fn tile(&self, index: usize) -> &[u8] {
        &self.bytes[index * self.tile_bytes..][..self.tile_bytes]
    }
}

/// Allocates zeroed memory, in transparent huge pages if it is large.
pub(crate) fn zeroed_memory(bytes: usize) -> std::io::Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes.max(1))?;
    #[cfg(target_os = "linux")]
    if bytes >= LARGE_PAGES_FROM {
        // This is advice; the system may use small pages.
        let _ = memory.advise(memmap2::Advice::HugePage);
    }
    Ok(memory)
}

impl Debug for Packed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}, {}) in tiles", self.format, self.outputs, self.inputs)
    }
}

/// Computes `out = x * weight^T + bias` for matrices that share their input, in one loop over all
/// threads.
///
/// # Panics
/// If lengths do not fit together, or a matrix needs another quantization.
pub(crate) fn multiply(workers: &Workers<'_>, x: Quantized<'_>, products: &mut [Product<'_>]) {
    let simd = workers.simd();
    let mut tiled = Vec::with_capacity(products.len());
    let (mut tiles, mut tile_work) = (0, 1);
    for Product { weight, bias, out } in products {
        let Packed { outputs, inputs, .. } = **weight;
        let tokens = x.tokens(weight);
        assert!(out.len() == tokens * outputs, "shape of a product");
        assert!(bias.is_none_or(|bias| bias.len() == outputs), "shape of a bias");
        tiled.push(TiledProduct { x, weight, bias: *bias, tokens, out: Disjoint::new(out), first: tiles });
        tiles += weight.tiles();
        tile_work = tile_work.max(tokens * inputs * LANES);
    }
    workers.share(tiles, WORK_PER_PIECE.div_ceil(tile_work), |range| {
        for product in &tiled {
            let (start, end) = (range.start.max(product.first), range.end.min(product.first + product.weight.tiles()));
            if start < end {
                run(simd, product, start - product.first..end - product.first);
            }
        }
    });
}

/// One of the products that [`multiply`] computes together.
struct TiledProduct<'a> {
    x: Quantized<'a>,
    weight: &'a Packed,
    bias: Option<&'a [f32]>,
    tokens: usize,
    out: Disjoint<'a, f32>,
    /// Number of tiles in the products before this one.
    first: usize,
}

impl TiledProduct<'_> {
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
        // SAFETY: these are outputs of this tile's rows. A tile is given to one thread, once, and
        // no other call of this function by that thread is under way.
        #[allow(unsafe_code)]
        let out = unsafe { self.out.range(start..start + count) };
        out.copy_from_slice(&sums[..count]);
    }
}

dispatch! {
    /// Computes a range of a product's tiles.
    fn run(product: &TiledProduct<'_>, tiles: Range<usize>) = run_body
}

#[inline(always)]
fn run_body<S: Lanes>(simd: S, product: &TiledProduct<'_>, tiles: Range<usize>) {
    for tile in tiles {
        let mut token = 0;
        while token < product.tokens {
            match panel_tokens::<S>(product.tokens - token) {
                1 => some_tokens::<S, 1>(simd, product, tile, &mut token),
                2 => some_tokens::<S, 2>(simd, product, tile, &mut token),
                3 => some_tokens::<S, 3>(simd, product, tile, &mut token),
                5 if S::WIDE => some_tokens::<S, 5>(simd, product, tile, &mut token),
                6 if S::WIDE => some_tokens::<S, 6>(simd, product, tile, &mut token),
                7 if S::WIDE => some_tokens::<S, 7>(simd, product, tile, &mut token),
                8 if S::WIDE => some_tokens::<S, 8>(simd, product, tile, &mut token),
                _ => some_tokens::<S, 4>(simd, product, tile, &mut token),
            }
        }
    }
}

/// Multiplies one tile by a panel of `C` tokens.
#[inline(always)]
fn some_tokens<S: Lanes, const C: usize>(simd: S, product: &TiledProduct<'_>, tile: usize, token: &mut usize) {
    let bytes = product.weight.tile(tile);
    let sums: [S::Floats; C] = match product.x {
        Quantized::Int8(x) => {
            let x = x.panel(*token);
            match product.weight.format {
                TileFormat::Q8_0 => tile::q8_0(simd, bytes, x),
                TileFormat::Q4_0 => tile::q4_0(simd, bytes, x),
                TileFormat::Q4_K => tile::q4_k(simd, bytes, x),
                TileFormat::Q5_K => tile::q5_k(simd, bytes, x),
                TileFormat::Q6_K => tile::q6_k(simd, bytes, x),
                TileFormat::BF16 => unreachable!("invariant: `Quantized::tokens` has checked the format"),
            }
        }
        Quantized::Bf16(x) => tile::bf16(simd, bytes, x.panel(*token)),
    };
    for sums in sums {
        product.write(tile, *token, simd.to_array(sums));
        *token += 1;
    }
}

impl Quantized<'_> {
    /// Returns the number of tokens.
    ///
    /// # Panics
    /// If `weight` needs another quantization, or rows of another length.
    fn tokens(&self, weight: &Packed) -> usize {
        let (quantization, tokens, groups) = match self {
            Self::Int8(x) => (Quantization::Int8, x.tokens(), x.per_row()),
            Self::Bf16(x) => (Quantization::Bf16, x.tokens(), x.per_row()),
        };
        assert_eq!(
            (quantization, groups),
            (weight.quantization(), weight.inputs.div_ceil(GROUP)),
            "activations of a product"
        );
        tokens
    }
}

#[cfg(test)]
mod tests;
