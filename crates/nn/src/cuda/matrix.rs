//! Matrices in the layouts that kernels read: plain numbers, or a block format's numbers and scales
//! in fragments of 16 rows and 128 columns. `weights.cuh` describes the layouts.

use half::{bf16, f16};
use rayon::prelude::*;

use super::args::MatrixArgs;
use super::driver::{Buffer, Gpu};
use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::format::BlockVisitor;
use crate::format::Format;
use crate::format::blocks::{Block, BlockFormat, Code, Scale, Shape};

/// Rows of a fragment.
pub(super) const TILE: usize = 16;
/// Rows of two things alternate by this many where one thread is to have both: gate and up, and
/// the dimensions that rotate together.
pub(super) const ALTERNATE: usize = TILE / 2;
/// Columns of a fragment.
pub(super) const CHUNK: usize = 128;

/// Pads a number of columns to whole fragments.
pub(super) fn padded(columns: usize) -> usize {
    columns.next_multiple_of(CHUNK)
}

/// A matrix on a GPU.
pub(super) struct Matrix {
    pub(super) format: Format,
    low: Buffer,
    high: Option<Buffer>,
    scale: Option<Buffer>,
    minimum: Option<Buffer>,
    /// Rows.
    pub(super) outputs: usize,
    /// Columns, padded.
    pub(super) inputs: usize,
}

/// A row of a matrix to be made: the tensor and its row; `None` for zeros.
pub(super) type Row = Option<(usize, usize)>;

impl Matrix {
    /// Makes a matrix of rows of tensors, which have one format and one number of columns.
    pub(super) fn new(gpu: &Gpu, tensors: &[Tensor], rows: &[Row]) -> Result<Self> {
        let format = tensors[0].format;
        let packing = Packing { tensors, rows, inputs: padded(tensors[0].columns()) };
        let host = match format.visit_block(&packing) {
            Some(host) => host,
            None => packing.plain(format),
        };
        let upload = |bytes: &[u16]| (!bytes.is_empty()).then(|| gpu.upload(bytes)).transpose();
        Ok(Self {
            format,
            low: gpu.upload(&host.low)?,
            high: (!host.high.is_empty()).then(|| gpu.upload(&host.high)).transpose()?,
            scale: upload(&host.scale)?,
            minimum: upload(&host.minimum)?,
            outputs: rows.len(),
            inputs: packing.inputs,
        })
    }

    /// The matrix as kernels take it.
    pub(super) fn args(&self) -> MatrixArgs {
        let at = |buffer: &Option<Buffer>| buffer.as_ref().map_or(0, |buffer| buffer.at(0));
        MatrixArgs {
            low: self.low.at(0),
            high: at(&self.high),
            scale: at(&self.scale),
            minimum: at(&self.minimum),
            outputs: self.outputs as i32,
            inputs: self.inputs as i32,
        }
    }
}

/// A matrix in host memory.
#[derive(Debug, Default, PartialEq)]
struct Host {
    low: Vec<u8>,
    high: Vec<u8>,
    scale: Vec<u16>,
    minimum: Vec<u16>,
}

/// The tensors and rows that a matrix is made of.
struct Packing<'a> {
    tensors: &'a [Tensor],
    rows: &'a [Row],
    inputs: usize,
}

impl Packing<'_> {
    /// The number of rows, padded to whole fragments.
    fn stored_rows(&self) -> usize {
        self.rows.len().next_multiple_of(TILE)
    }

    fn row_bytes(&self, index: usize) -> Option<&[u8]> {
        let (tensor, row) = (*self.rows.get(index)?)?;
        Some(self.tensors[tensor].row_bytes(row))
    }

    fn plain(&self, format: Format) -> Host {
        let stride = self.inputs * format.block_bytes();
        let mut low = vec![0; self.stored_rows() * stride];
        low.par_chunks_mut(stride).enumerate().for_each(|(index, to)| {
            if let Some(from) = self.row_bytes(index) {
                to[..from.len()].copy_from_slice(from);
            }
        });
        Host { low, ..Host::default() }
    }
}

/// Bits that the layout of a format stores of each number.
pub(super) const fn stored_bits(shape: &Shape) -> usize {
    if shape.bits <= 4 { 4 } else { shape.bits as usize }
}

impl BlockVisitor for &Packing<'_> {
    type Out = Host;

    fn visit<F: BlockFormat>(self) -> Host {
        let (shape, bits) = (&F::SHAPE, stored_bits(&F::SHAPE));
        let (chunks, tiles) = (self.inputs / CHUNK, self.stored_rows() / TILE);
        let fragment = TILE * CHUNK;
        let low_bytes = if bits == 8 { fragment } else { fragment / 2 };
        let high_bytes = if bits == 8 { 0 } else { fragment * (bits - 4) / 8 };
        let runs = fragment / shape.run;
        let minimum_runs = if shape.has_minima() { runs } else { 0 };
        let mut host = Host {
            low: vec![0; tiles * chunks * low_bytes],
            high: vec![0; tiles * chunks * high_bytes],
            scale: vec![0; tiles * chunks * runs],
            minimum: vec![0; tiles * chunks * minimum_runs],
        };
        // `chunks_mut` refuses a size of zero; an absent part has no chunks at all then.
        let high = parts(&mut host.high, chunks * high_bytes, tiles);
        let minimum = parts(&mut host.minimum, chunks * minimum_runs, tiles);
        let low = host.low.par_chunks_mut(chunks * low_bytes).zip(host.scale.par_chunks_mut(chunks * runs));
        low.zip(high).zip(minimum).enumerate().for_each(|(tile, (((low, scale), high), minimum))| {
            let mut tile_of = TileOf { shape, low, high, scale, minimum };
            for row in 0..TILE {
                if let Some(bytes) = self.row_bytes(tile * TILE + row) {
                    tile_of.set_row::<F>(row, bytes);
                }
            }
        });
        host
    }
}

/// Divides values into `count` parts of `size`, which may be zero.
fn parts<T: Send>(values: &mut [T], size: usize, count: usize) -> Vec<&mut [T]> {
    if size == 0 { (0..count).map(|_| &mut [][..]).collect() } else { values.chunks_mut(size).collect() }
}

/// A row of fragments.
struct TileOf<'a> {
    shape: &'static Shape,
    low: &'a mut [u8],
    high: &'a mut [u8],
    scale: &'a mut [u16],
    minimum: &'a mut [u16],
}

impl TileOf<'_> {
    fn set_row<F: BlockFormat>(&mut self, row: usize, bytes: &[u8]) {
        let shape = self.shape;
        let runs_per_block = shape.values / shape.run;
        let mut block = Block::ZERO;
        for (index, bytes) in bytes.chunks_exact(shape.bytes).enumerate() {
            F::read(bytes, &mut block);
            for (value, number) in block.numbers[..shape.values].iter().enumerate() {
                self.set_number(row, index * shape.values + value, *number);
            }
            for run in 0..runs_per_block {
                let (scale, minimum) = shape.run_scale(&block, run);
                let column = index * shape.values + run * shape.run;
                let runs = CHUNK / shape.run;
                let at = (column / CHUNK * TILE + row) * runs + column % CHUNK / shape.run;
                self.scale[at] = self.short(scale);
                if shape.has_minima() {
                    self.minimum[at] = self.short(minimum);
                }
            }
        }
    }

    /// A scale in 16 bits: bfloat16 for scales that are powers of two of a wide range.
    fn short(&self, scale: f32) -> u16 {
        match self.shape.scale {
            Scale::F16 => f16::from_f32(scale).to_bits(),
            Scale::HalfE8M0 => bf16::from_f32(scale).to_bits(),
        }
    }

    fn set_number(&mut self, row: usize, column: usize, number: u8) {
        let bits = stored_bits(self.shape);
        let (chunk, half, j, c) = (column / CHUNK, row / 8, column % CHUNK / 32, column % 32);
        let (t, i) = if self.shape.run == 16 { (c % 16 / 4, c % 4 + 4 * (c / 16)) } else { (c / 8, c % 8) };
        let lane = row % 8 * 4 + t;
        if bits == 8 {
            let signed = i32::from(number) - self.offset();
            self.low[(chunk * 4 + half * 2 + j / 2) * 512 + lane * 16 + j % 2 * 8 + i] = signed as u8;
            return;
        }
        let nibble = i / 2 + i % 2 * 4;
        let word = (chunk * 2 + half) * 512 + lane * 16 + j * 4;
        self.low[word + nibble / 2] |= (number & 15) << (4 * (nibble % 2));
        let (word, bit) = match bits {
            6 => (chunk * 512 + half * 256 + lane * 8 + j / 2 * 4, i % 2 * 16 + j % 2 * 8 + i / 2 * 2),
            5 => (chunk * 256 + half * 128 + lane * 4, i % 2 * 16 + 4 * j + i / 2),
            _ => return,
        };
        self.high[word + bit / 8] |= (number >> 4) << (bit % 8);
    }

    fn offset(&self) -> i32 {
        match self.shape.code {
            Code::Offset(offset) => offset,
            Code::Table(_) => 0,
        }
    }
}

/// Bytes that a matrix takes.
pub(super) fn bytes(format: Format, rows: usize, columns: usize) -> usize {
    let values = rows.next_multiple_of(TILE) * padded(columns);
    format.visit_block(Size { values }).unwrap_or(values * format.block_bytes())
}

/// The bytes of values in the layout of a block format.
struct Size {
    values: usize,
}

impl BlockVisitor for Size {
    type Out = usize;

    fn visit<F: BlockFormat>(self) -> usize {
        let scales = if F::SHAPE.has_minima() { 2 } else { 1 };
        self.values * stored_bits(&F::SHAPE) / 8 + self.values / F::SHAPE.run * scales * size_of::<u16>()
    }
}

/// Describes a format to the kernels: a struct of constants, `NAME` in their sources.
pub(super) struct Description;

impl BlockVisitor for Description {
    type Out = String;

    fn visit<F: BlockFormat>(self) -> String {
        let shape = &F::SHAPE;
        let (offset, table) = match shape.code {
            Code::Offset(offset) => (if stored_bits(shape) == 8 { 0 } else { offset }, None),
            Code::Table(table) => (0, Some(table)),
        };
        let words = table.map_or([0; 4], |table| {
            // Codes are stored larger by 128.
            let signed: Vec<u8> = table.iter().map(|code| code ^ 0x80).collect();
            std::array::from_fn(|word| u32::from_le_bytes(std::array::from_fn(|byte| signed[word * 4 + byte])))
        });
        let constants = [
            format!("BITS = {}, RUN = {}, OFFSET = {offset}", stored_bits(shape), shape.run),
            format!("TABLE = {}, MINIMUM = {}", i32::from(table.is_some()), i32::from(shape.has_minima())),
            format!("WIDE_SCALE = {}", i32::from(shape.scale == Scale::HalfE8M0)),
        ];
        let words: Vec<_> = words.iter().enumerate().map(|(index, word)| format!("T{index} = {word}u")).collect();
        format!("static constexpr int {};\n  static constexpr u32 {};", constants.join(", "), words.join(", "))
    }
}

/// The constants of a format.
pub(super) fn describe(format: Format) -> String {
    format.visit_block(Description).unwrap_or_else(|| {
        let bits = 8 * format.block_bytes();
        format!("static constexpr int BITS = {bits}, RUN = 32, OFFSET = 0, TABLE = 0, MINIMUM = 0, WIDE_SCALE = 0;")
    })
}
