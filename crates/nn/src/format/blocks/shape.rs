//! The description of a block format, and decoding by it.

use half::f16;

/// Values that share a byte of the layouts of tiles and activations: the values of a small block.
pub(crate) const GROUP: usize = 32;
/// Values of a large block.
pub(crate) const LARGE: usize = 256;
/// The difference between a code and its byte in a tile: codes are signed, these bytes are not.
pub(crate) const CODE_OFFSET: i32 = 128;

/// A block format, as constants from which its code derives.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Values of a block: [`GROUP`] or [`LARGE`].
    pub(crate) values: usize,
    /// Bytes of a block.
    pub(crate) bytes: usize,
    /// Values that share a scale: 16 or 32.
    pub(crate) run: usize,
    /// Bits of a number: 2, 3, 4, 5, 6 or 8.
    pub(crate) bits: u32,
    /// Meaning of a number.
    pub(crate) code: Code,
    /// Encoding of the scale of a block.
    pub(crate) scale: Scale,
    /// Integers that scale the runs of a large block, in units of the block's scale.
    pub(crate) scales: Integer,
    /// Presence and sign of minima. Those of a large block are unsigned integers of as many bits as
    /// its scales, in units of the block's minimum.
    pub(crate) minima: Minima,
}

/// Meaning of a number before it is scaled.
#[derive(Clone, Copy)]
pub(crate) enum Code {
    /// The number less an offset.
    Offset(i32),
    /// An entry of a table of sixteen, stored larger by [`CODE_OFFSET`].
    Table(&'static [u8; 16]),
}

/// Encoding of the scale of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Half precision.
    F16,
    /// An exponent of two, biased by 128, in one byte: E8M0 of the microscaling formats, halved,
    /// since ggml's codes are doubled to be integers.
    HalfE8M0,
}

/// Integers of `bits` bits that stand for themselves less `offset`. An `offset` of 128 at eight
/// bits is a signed byte whose highest bit is flipped.
#[derive(Clone, Copy)]
pub(crate) struct Integer {
    pub(crate) bits: u32,
    pub(crate) offset: i32,
}

/// Presence and sign of minima.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Minima {
    Absent,
    Added,
    Subtracted,
}

/// The integers of a block, sorted. Each bit is a bit of the block, perhaps flipped.
#[derive(Clone)]
pub(crate) struct Block {
    /// The scale, as [`Shape::scale`] says.
    pub(crate) scale: [u8; 2],
    /// The minimum, in half precision.
    pub(crate) minimum: [u8; 2],
    /// Scales of the runs of a large block, [`Shape::scales`].
    pub(crate) scales: [u8; LARGE / 16],
    /// Minima of the runs of a large block.
    pub(crate) minima: [u8; LARGE / 16],
    /// The numbers of the values. A small block has [`GROUP`].
    pub(crate) numbers: [u8; LARGE],
}

/// A block format.
pub(crate) trait BlockFormat {
    /// The description of the format.
    const SHAPE: Shape;
    /// Sorts the bits of a block of [`Shape::bytes`] bytes. Parts that the format lacks are left.
    fn read(bytes: &[u8], block: &mut Block);
}

impl Block {
    /// Bytes of all parts.
    pub(crate) const BYTES: usize = 2 + 2 + LARGE / 16 + LARGE / 16 + LARGE;
    pub(crate) const ZERO: Self =
        Self { scale: [0; 2], minimum: [0; 2], scales: [0; 16], minima: [0; 16], numbers: [0; LARGE] };

    /// Returns all parts, one after the other.
    pub(crate) fn to_bytes(&self) -> [u8; Self::BYTES] {
        let parts: [&[u8]; 5] = [&self.scale, &self.minimum, &self.scales, &self.minima, &self.numbers];
        let mut bytes = [0; Self::BYTES];
        for (to, from) in bytes.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        bytes
    }
}

impl Shape {
    /// Describes a block of [`GROUP`] values in `bytes` bytes, less a constant offset.
    pub(super) const fn small(bytes: usize, bits: u32, offset: i32) -> Self {
        Self {
            values: GROUP,
            bytes,
            run: GROUP,
            bits,
            code: Code::Offset(offset),
            scale: Scale::F16,
            scales: Integer { bits: 0, offset: 0 },
            minima: Minima::Absent,
        }
    }

    /// Describes a block of [`LARGE`] values in `bytes` bytes, whose runs have integer scales.
    pub(super) const fn large(bytes: usize, bits: u32, offset: i32, run: usize, scales: Integer) -> Self {
        Self { values: LARGE, run, scales, ..Self::small(bytes, bits, offset) }
    }

    /// Returns the value that a number stands for before it is scaled.
    #[inline(always)]
    pub(crate) fn code(&self, number: u8) -> i32 {
        match self.code {
            Code::Offset(offset) => i32::from(number) - offset,
            Code::Table(table) => i32::from(table[usize::from(number & 15)]) - CODE_OFFSET,
        }
    }

    /// Returns true if the runs of a block have scales of their own.
    pub(crate) const fn is_large(&self) -> bool {
        self.values == LARGE
    }

    pub(crate) const fn has_minima(&self) -> bool {
        !matches!(self.minima, Minima::Absent)
    }

    /// Returns the kinds of numbers beside those of the values: scales, and minima if there are any.
    pub(crate) const fn kinds(&self) -> usize {
        if self.has_minima() { 2 } else { 1 }
    }

    /// Returns the runs of [`GROUP`] values.
    pub(crate) const fn runs_per_group(&self) -> usize {
        GROUP / self.run
    }

    /// Returns the scale of a block.
    #[inline(always)]
    pub(crate) fn block_scale(&self, block: &Block) -> f32 {
        match self.scale {
            Scale::F16 => f16::from_le_bytes(block.scale).to_f32(),
            Scale::HalfE8M0 => half_e8m0(block.scale[0]),
        }
    }

    /// Returns the scale and the minimum of run `index`, such that `value = scale * code + minimum`.
    #[inline(always)]
    pub(crate) fn run_scale(&self, block: &Block, index: usize) -> (f32, f32) {
        let (scale, minimum) = (self.block_scale(block), f16::from_le_bytes(block.minimum).to_f32());
        let (scale, minimum) = if self.is_large() {
            let integer = i32::from(block.scales[index]) - self.scales.offset;
            (scale * integer as f32, minimum * f32::from(block.minima[index]))
        } else {
            (scale, minimum)
        };
        match self.minima {
            Minima::Absent => (scale, 0.0),
            Minima::Added => (scale, minimum),
            Minima::Subtracted => (scale, -minimum),
        }
    }
}

/// Returns `2^(exponent - 128)`.
pub(crate) fn half_e8m0(exponent: u8) -> f32 {
    // The two smallest powers are subnormal: their only bit is one of the mantissa.
    f32::from_bits(if exponent < 2 { 0x20_0000 << exponent } else { u32::from(exponent - 1) << 23 })
}

/// Decodes whole blocks. If one of `bytes` and `out` is shorter, the rest of the other is ignored.
pub(crate) fn dequantize<F: BlockFormat>(bytes: &[u8], out: &mut [f32]) {
    let shape = &F::SHAPE;
    let mut block = Block::ZERO;
    for (bytes, out) in bytes.chunks_exact(shape.bytes).zip(out.chunks_exact_mut(shape.values)) {
        F::read(bytes, &mut block);
        let runs = block.numbers.chunks_exact(shape.run).zip(out.chunks_exact_mut(shape.run));
        for (index, (numbers, out)) in runs.enumerate() {
            let (scale, minimum) = shape.run_scale(&block, index);
            for (number, out) in numbers.iter().zip(out) {
                let value = scale * shape.code(*number) as f32;
                *out = if shape.has_minima() { value + minimum } else { value };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_powers_of_two_down_to_the_smallest() {
        for exponent in 0..=254u8 {
            let power = (f64::from(exponent) - 128.0).exp2();
            assert_eq!(f64::from(half_e8m0(exponent)), power, "{exponent}");
        }
    }
}
