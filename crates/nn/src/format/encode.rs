//! The encoder of any block format, derived from its description.
//!
//! Each run of values gets the scale that spans it and its values are rounded to the nearest; no
//! other scales are tried.

use half::f16;

use super::BlockVisitor;
use super::blocks::{Block, BlockFormat, Code, Minima, Scale, Shape};

/// Values to encode, whole blocks of them.
pub(super) struct Values<'a>(pub(super) &'a [f32]);

impl BlockVisitor for Values<'_> {
    type Out = Vec<u8>;

    fn visit<F: BlockFormat>(self) -> Vec<u8> {
        let writer = Writer::of::<F>();
        self.0.chunks_exact(F::SHAPE.values).flat_map(|values| writer.write(&encode(&F::SHAPE, values))).collect()
    }
}

/// The inverse of [`BlockFormat::read`]. Reading moves bits and may flip them, so the place of each
/// bit is found by reading a block in which it alone is set.
struct Writer {
    bytes: usize,
    /// The sorted parts of a block of zeros.
    zero: [u8; Block::BYTES],
    /// Bits of a block, and where each of them is read to.
    moves: Vec<(Bit, Bit)>,
}

/// A bit of a list of bytes.
#[derive(Clone, Copy)]
struct Bit {
    byte: usize,
    mask: u8,
}

impl Writer {
    fn of<F: BlockFormat>() -> Self {
        let read = |bytes: &[u8]| {
            let mut block = Block::ZERO;
            F::read(bytes, &mut block);
            block.to_bytes()
        };
        let mut bytes = vec![0; F::SHAPE.bytes];
        let zero = read(&bytes);
        let mut moves = Vec::new();
        for from in (0..8 * F::SHAPE.bytes).map(|bit| Bit { byte: bit / 8, mask: 1 << (bit % 8) }) {
            bytes[from.byte] = from.mask;
            let changed = read(&bytes).iter().zip(&zero).position(|(read, zero)| read != zero);
            if let Some(byte) = changed {
                moves.push((from, Bit { byte, mask: read(&bytes)[byte] ^ zero[byte] }));
            }
            bytes[from.byte] = 0;
        }
        Self { bytes: F::SHAPE.bytes, zero, moves }
    }

    fn write(&self, block: &Block) -> Vec<u8> {
        let sorted = block.to_bytes();
        let mut bytes = vec![0; self.bytes];
        for (from, to) in &self.moves {
            if (sorted[to.byte] ^ self.zero[to.byte]) & to.mask != 0 {
                bytes[from.byte] |= from.mask;
            }
        }
        bytes
    }
}

/// Scale and minimum of a run: `value = scale * code + minimum`.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    minimum: f32,
}

/// Rounds the values of a block.
fn encode(shape: &Shape, values: &[f32]) -> Block {
    let mut block = Block::ZERO;
    let fits: Vec<Fit> = values.chunks_exact(shape.run).map(|run| fit(shape, run)).collect();
    let most = |part: fn(&Fit) -> f32| {
        fits.iter().map(part).fold(0.0f32, |most, part| if part.abs() > most.abs() { part } else { most })
    };
    let (mut scale, mut minimum) = (most(|fit| fit.scale), most(|fit| fit.minimum));
    if shape.is_large() {
        // The largest scale becomes the integer farthest from zero.
        let largest = (1 << shape.scales.bits) - 1;
        scale /= if shape.scales.offset == 0 { largest } else { -shape.scales.offset } as f32;
        minimum /= largest as f32;
    }
    write_scale(shape, scale, &mut block);
    let sign = if shape.minima == Minima::Subtracted { -1.0 } else { 1.0 };
    block.minimum = f16::from_f32(sign * minimum).to_le_bytes();
    if shape.is_large() {
        let (unit, unit_minimum) = (shape.block_scale(&block), sign * f16::from_le_bytes(block.minimum).to_f32());
        for (run, fit) in fits.iter().enumerate() {
            block.scales[run] = nearest(fit.scale / unit, shape.scales.offset, shape.scales.bits);
            block.minima[run] = nearest(fit.minimum / unit_minimum, 0, shape.scales.bits);
        }
    }
    for (run, values) in values.chunks_exact(shape.run).enumerate() {
        let (scale, minimum) = shape.run_scale(&block, run);
        for (value, number) in values.iter().zip(&mut block.numbers[run * shape.run..]) {
            *number = nearest_number(shape, (value - minimum) / scale);
        }
    }
    block
}

fn fit(shape: &Shape, run: &[f32]) -> Fit {
    let farthest = run.iter().fold(0.0f32, |far, value| if value.abs() > far.abs() { *value } else { far });
    let least = run.iter().copied().fold(f32::INFINITY, f32::min);
    let most = run.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let steps = ((1 << shape.bits) - 1) as f32;
    match shape.minima {
        Minima::Absent => {
            let codes = (0..1 << shape.bits).map(|number: u16| shape.code(number as u8));
            let extreme = codes.max_by_key(|code| code.abs()).unwrap_or(1);
            Fit { scale: farthest / extreme as f32, minimum: 0.0 }
        }
        Minima::Added => Fit { scale: (most - least) / steps, minimum: least },
        // Minima of runs are unsigned.
        Minima::Subtracted => Fit { scale: (most - least.min(0.0)) / steps, minimum: least.min(0.0) },
    }
}

fn write_scale(shape: &Shape, scale: f32, block: &mut Block) {
    match shape.scale {
        Scale::F16 => block.scale = f16::from_f32(scale).to_le_bytes(),
        // The least power of two that is not smaller: codes have both signs.
        Scale::HalfE8M0 => block.scale[0] = (scale.abs().log2().ceil() + 128.0).clamp(0.0, 254.0) as u8,
    }
}

/// Returns the integer of `bits` bits that stands for the nearest to a value, less `offset`. That
/// of a value that is not a number is `offset`.
fn nearest(value: f32, offset: i32, bits: u32) -> u8 {
    let value = if value.is_nan() { 0.0 } else { value.round() };
    (value + offset as f32).clamp(0.0, ((1 << bits) - 1) as f32) as u8
}

fn nearest_number(shape: &Shape, value: f32) -> u8 {
    match shape.code {
        Code::Offset(offset) => nearest(value, offset, shape.bits),
        Code::Table(_) => {
            let value = if value.is_nan() { 0.0 } else { value };
            let distance = |number: &u8| (shape.code(*number) as f32 - value).abs();
            (0..16).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
        }
    }
}
