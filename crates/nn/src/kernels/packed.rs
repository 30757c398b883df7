//! Weight matrices packed into tiles, and products with them.
//!
//! A tile is sixteen rows: a vector register holds numbers of sixteen sums at once, and a tile is
//! read from its first byte to its last. Activations are rounded to what the weights are multiplied
//! with: signed bytes with a scale per [`GROUP`] inputs, as in ggml, or bfloat16; with weights in
//! half precision they stay floats.
//! Integer sums are exact and those of groups are added in order, so a token's result has the same
//! bits alone or in a batch.

mod format;
pub(super) mod multiply;
mod tile;

use std::fmt::{self, Debug, Formatter};

use memmap2::MmapMut;
use rayon::prelude::*;

use self::format::Layout;
use super::Simd;
use super::panels::{Bf16Group, F32Group, Int8Group, Panels, Quantization};
use super::simd::LANES;
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

#[cfg(test)]
mod tests;
