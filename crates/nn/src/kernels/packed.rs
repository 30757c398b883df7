//! Weight matrices packed into tiles, and products with them.
//!
//! A tile is sixteen rows: a vector register holds numbers of sixteen sums at once, and a tile is
//! read from its first byte to its last. Activations are rounded to what the weights are multiplied
//! with: signed bytes with a scale per [`GROUP`] inputs, as in ggml, or bfloat16; with weights in
//! half precision they stay floats.
//! Integer sums are exact and those of groups are added in order, so a token's result has the same
//! bits alone or in a batch.

mod format;
mod run;
mod tile;

use std::fmt::{self, Debug, Formatter};

use memmap2::MmapMut;
use rayon::prelude::*;

use self::format::Layout;
use self::run::run;
use super::disjoint::Disjoint;
use super::panels::{Bf16Group, F32Group, Int8Group, Panels, Quantization};
use super::simd::{LANES, Tiles};
use super::{Simd, WORK_PER_PIECE, Workers};
use crate::format::blocks::{BlockFormat, GROUP};
use crate::format::{BlockVisitor, Format};
use crate::matrix::MatrixView;

/// Allocations of at least this many bytes request huge pages.
const LARGE_PAGES_FROM: usize = 4 << 20;

/// A matrix `(outputs, inputs)` in tiles.
pub(crate) struct Packed {
    format: Format,
    quantization: Quantization,
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
    /// Floats, as they were.
    F32(&'a Panels<F32Group>),
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
        let Some(quantization) = quantization_for(weight.format, simd).filter(|quantization| quantization.fits(inputs))
        else {
            return Ok(None);
        };
        let format = weight.format;
        let halves = if simd.tiles.is_some() { inputs.next_multiple_of(GROUP) } else { inputs };
        let tile_bytes = format.visit_block(TileBytes { inputs }).unwrap_or(2 * LANES * halves);
        let mut bytes = zeroed_memory(outputs.div_ceil(LANES) * tile_bytes)?;
        bytes.par_chunks_exact_mut(tile_bytes).enumerate().for_each(|(tile, bytes)| {
            for (lane, row) in (tile * LANES..outputs).take(LANES).enumerate() {
                let row = Row { bytes: weight.row(row), lane, tile: bytes, quantization };
                row.pack(format);
            }
        });
        Ok(Some(Self { format, quantization, outputs, inputs, tile_bytes, bytes }))
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
        self.quantization
    }

    fn tiles(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    fn tile(&self, index: usize) -> &[u8] {
        &self.bytes[index * self.tile_bytes..][..self.tile_bytes]
    }
}

/// Returns what activations are rounded to for weights in tiles, or `None` if the format has no
/// tiles.
fn quantization_for(format: Format, simd: Simd) -> Option<Quantization> {
    match format {
        Format::F32 => None,
        // Rows are decoded at each product: tiles would take several times the memory.
        _ if !format.is_writable() => None,
        Format::BF16 if simd.has_bf16() || simd.tiles.is_some() => Some(Quantization::Bf16),
        Format::BF16 | Format::F16 => Some(Quantization::F32),
        _ => Some(Quantization::Int8),
    }
}

/// The size of a tile of block-quantized rows.
struct TileBytes {
    inputs: usize,
}

impl BlockVisitor for TileBytes {
    type Out = usize;

    fn visit<F: BlockFormat>(self) -> usize {
        Layout::of(&F::SHAPE).tile_bytes(self.inputs)
    }
}

/// A row in its weight format, and its lane of a tile that holds zeros there.
struct Row<'a> {
    bytes: &'a [u8],
    lane: usize,
    tile: &'a mut [u8],
    quantization: Quantization,
}

impl Row<'_> {
    /// Writes the row into its lane.
    fn pack(self, format: Format) {
        match self.quantization {
            Quantization::Int8 => {
                format.visit_block(self);
            }
            // Two inputs of a row side by side, or one.
            Quantization::Bf16 => format::interleave::<4>(self.bytes, self.lane, self.tile),
            Quantization::F32 => format::interleave::<2>(self.bytes, self.lane, self.tile),
        }
    }
}

impl BlockVisitor for Row<'_> {
    type Out = ();

    fn visit<F: BlockFormat>(self) {
        format::pack::<F>(self.bytes, self.lane, self.tile);
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
        let out = Disjoint::new(out);
        tiled.push(TiledProduct { x, weight, bias: *bias, tokens, out, first: tiles, unit: simd.tiles });
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
    /// The unit that multiplies whole panels.
    unit: Option<Tiles>,
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

impl Quantized<'_> {
    /// Returns the number of tokens.
    ///
    /// # Panics
    /// If `weight` needs another quantization, or rows of another length.
    fn tokens(&self, weight: &Packed) -> usize {
        let (quantization, tokens, groups) = match self {
            Self::Int8(x) => (Quantization::Int8, x.tokens(), x.per_row()),
            Self::Bf16(x) => (Quantization::Bf16, x.tokens(), x.per_row()),
            Self::F32(x) => (Quantization::F32, x.tokens(), x.per_row()),
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
