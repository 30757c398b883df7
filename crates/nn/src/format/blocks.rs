//! Block formats: small integers that share a scale, as ggml lays them out.
//!
//! A block format is described once, by its [`Shape`] and a function that sorts a block's bits into
//! a [`Block`]. Decoding, encoding, the layout of tiles and the products with them derive from
//! these. A value is `scale * (number - offset)`, or `scale * code[number]`, plus or minus a
//! minimum.

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
    pub(super) const BYTES: usize = 2 + 2 + LARGE / 16 + LARGE / 16 + LARGE;
    pub(crate) const ZERO: Self =
        Self { scale: [0; 2], minimum: [0; 2], scales: [0; 16], minima: [0; 16], numbers: [0; LARGE] };

    /// Returns all parts, one after the other.
    pub(super) fn to_bytes(&self) -> [u8; Self::BYTES] {
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
    const fn small(bytes: usize, bits: u32, offset: i32) -> Self {
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
    const fn large(bytes: usize, bits: u32, offset: i32, run: usize, scales: Integer) -> Self {
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
pub(super) fn dequantize<F: BlockFormat>(bytes: &[u8], out: &mut [f32]) {
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

fn two(bytes: &[u8], at: usize) -> [u8; 2] {
    [bytes[at], bytes[at + 1]]
}

/// Returns number `i` of a group of 32 in 16 bytes: the low half of byte `i`, or the high half of
/// byte `i - 16`.
#[inline(always)]
fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i % 16] >> (i / 16 * 4)) & 15
}

/// Returns bit `i` of a little-endian integer.
#[inline(always)]
fn bit(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 8] >> (i % 8)) & 1
}

/// Returns number `i`, of `bits` bits, of a large block whose groups of 32 share chunks of 32
/// bytes: the first group of a chunk has the lowest bits of each byte.
#[inline(always)]
fn plane(bytes: &[u8], bits: usize, i: usize) -> u8 {
    let (group, groups_per_chunk) = (i / GROUP, 8 / bits);
    let byte = bytes[group / groups_per_chunk * GROUP + i % GROUP];
    (byte >> (group % groups_per_chunk * bits)) & ((1 << bits) - 1)
}

/// Sorts numbers.
#[inline(always)]
fn numbers(block: &mut Block, count: usize, number: impl Fn(usize) -> u8) {
    for (i, to) in block.numbers[..count].iter_mut().enumerate() {
        *to = number(i);
    }
}

/// Sorts the scale and the minimum of a block and the six-bit scales and minima of its eight
/// groups, which are 16 bytes.
fn scales_and_minima(bytes: &[u8], block: &mut Block) {
    (block.scale, block.minimum) = (two(bytes, 0), two(bytes, 2));
    let packed = &bytes[4..16];
    for group in 0..4 {
        let (low, middle, high) = (packed[group], packed[group + 4], packed[group + 8]);
        (block.scales[group], block.minima[group]) = (low & 63, middle & 63);
        block.scales[group + 4] = (high & 15) | ((low >> 6) << 4);
        block.minima[group + 4] = (high >> 4) | ((middle >> 6) << 4);
    }
}

/// The sixteen codes of IQ4_NL and IQ4_XS, [`CODE_OFFSET`] larger.
const IQ4_CODES: [u8; 16] = table([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]);
/// The doubled values of E2M1, [`CODE_OFFSET`] larger.
const E2M1_CODES: [u8; 16] = table([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]);

const fn table(codes: [i8; 16]) -> [u8; 16] {
    let mut out = [0; 16];
    let mut i = 0;
    while i < 16 {
        out[i] = codes[i].cast_unsigned() ^ 0x80;
        i += 1;
    }
    out
}

/// Defines block formats: the description, and the sorting of `bytes` into `block`.
macro_rules! block_formats {
    ($($(#[$attribute:meta])* $name:ident = $shape:expr; |$bytes:ident, $block:ident| $read:block)*) => {$(
        $(#[$attribute])*
        #[allow(non_camel_case_types, reason = "the names are those of the formats")]
        pub(crate) struct $name;

        impl BlockFormat for $name {
            const SHAPE: Shape = $shape;

            fn read($bytes: &[u8], $block: &mut Block) $read
        }
    )*};
}

block_formats! {
    /// Scale, 32 signed bytes.
    Q8_0 = Shape::small(34, 8, 128);
    |bytes, block| {
        block.scale = two(bytes, 0);
        numbers(block, GROUP, |i| bytes[2 + i] ^ 0x80);
    }

    /// Scale, nibbles.
    Q4_0 = Shape::small(18, 4, 8);
    |bytes, block| {
        block.scale = two(bytes, 0);
        numbers(block, GROUP, |i| nibble(&bytes[2..], i));
    }

    /// Scale, minimum, nibbles.
    Q4_1 = Shape { minima: Minima::Added, ..Shape::small(20, 4, 0) };
    |bytes, block| {
        (block.scale, block.minimum) = (two(bytes, 0), two(bytes, 2));
        numbers(block, GROUP, |i| nibble(&bytes[4..], i));
    }

    /// Scale, fifth bits, nibbles.
    Q5_0 = Shape::small(22, 5, 16);
    |bytes, block| {
        block.scale = two(bytes, 0);
        numbers(block, GROUP, |i| nibble(&bytes[6..], i) | (bit(&bytes[2..6], i) << 4));
    }

    /// Scale, minimum, fifth bits, nibbles.
    Q5_1 = Shape { minima: Minima::Added, ..Shape::small(24, 5, 0) };
    |bytes, block| {
        (block.scale, block.minimum) = (two(bytes, 0), two(bytes, 2));
        numbers(block, GROUP, |i| nibble(&bytes[8..], i) | (bit(&bytes[4..8], i) << 4));
    }

    /// Scale, nibbles that are codes.
    IQ4_NL = Shape { code: Code::Table(&IQ4_CODES), ..Shape::small(18, 4, 0) };
    |bytes, block| {
        block.scale = two(bytes, 0);
        numbers(block, GROUP, |i| nibble(&bytes[2..], i));
    }

    /// Exponent of the scale, nibbles that are codes.
    MXFP4 = Shape { code: Code::Table(&E2M1_CODES), scale: Scale::HalfE8M0, ..Shape::small(17, 4, 0) };
    |bytes, block| {
        block.scale[0] = bytes[0];
        numbers(block, GROUP, |i| nibble(&bytes[1..], i));
    }

    /// Sixteen bytes of a scale (low half) and a minimum, numbers, scale, minimum.
    Q2_K = Shape { minima: Minima::Subtracted, ..Shape::large(84, 2, 0, 16, Integer { bits: 4, offset: 0 }) };
    |bytes, block| {
        (block.scale, block.minimum) = (two(bytes, 80), two(bytes, 82));
        for (run, both) in bytes[..16].iter().enumerate() {
            (block.scales[run], block.minima[run]) = (both & 15, both >> 4);
        }
        numbers(block, LARGE, |i| plane(&bytes[16..80], 2, i));
    }

    /// Third bits, low bits, sixteen scales of six bits in twelve bytes, scale.
    Q3_K = Shape::large(110, 3, 4, 16, Integer { bits: 6, offset: 32 });
    |bytes, block| {
        let scales = &bytes[96..108];
        block.scale = two(bytes, 108);
        for (run, scale) in block.scales.iter_mut().enumerate() {
            let low = (scales[run % 8] >> (4 * (run / 8))) & 15;
            *scale = low | (((scales[8 + run % 4] >> (2 * (run / 4))) & 3) << 4);
        }
        numbers(block, LARGE, |i| plane(&bytes[32..96], 2, i) | (plane(&bytes[..32], 1, i) << 2));
    }

    /// Scale, minimum, scales and minima in twelve bytes, nibbles.
    Q4_K = Shape { minima: Minima::Subtracted, ..Shape::large(144, 4, 0, 32, Integer { bits: 6, offset: 0 }) };
    |bytes, block| {
        scales_and_minima(bytes, block);
        numbers(block, LARGE, |i| plane(&bytes[16..], 4, i));
    }

    /// Scale, minimum, scales and minima in twelve bytes, fifth bits, nibbles.
    Q5_K = Shape { minima: Minima::Subtracted, ..Shape::large(176, 5, 0, 32, Integer { bits: 6, offset: 0 }) };
    |bytes, block| {
        scales_and_minima(bytes, block);
        numbers(block, LARGE, |i| plane(&bytes[48..], 4, i) | (plane(&bytes[16..48], 1, i) << 4));
    }

    /// Nibbles, fifth and sixth bits, sixteen signed scales, scale.
    Q6_K = Shape::large(210, 6, 32, 16, Integer { bits: 8, offset: 128 });
    |bytes, block| {
        block.scale = two(bytes, 208);
        for (scale, byte) in block.scales.iter_mut().zip(&bytes[192..208]) {
            *scale = byte ^ 0x80;
        }
        numbers(block, LARGE, |i| {
            // 128 values take 64 bytes of nibbles, in four groups: the low halves of 32 bytes, of
            // the next 32, then the high halves of both.
            let (section, group) = (i / 128, i % 128 / GROUP);
            let low = bytes[section * 64 + group % 2 * GROUP + i % GROUP] >> (group / 2 * 4);
            (low & 15) | (plane(&bytes[128..192], 2, i) << 4)
        });
    }

    /// Scale, high and low bits of eight scales, nibbles that are codes.
    IQ4_XS = Shape {
        code: Code::Table(&IQ4_CODES),
        ..Shape::large(136, 4, 0, 32, Integer { bits: 6, offset: 32 })
    };
    |bytes, block| {
        block.scale = two(bytes, 0);
        for group in 0..8 {
            let low = (bytes[4 + group / 2] >> (group % 2 * 4)) & 15;
            block.scales[group] = low | (((bytes[2 + group / 4] >> (group % 4 * 2)) & 3) << 4);
        }
        numbers(block, LARGE, |i| nibble(&bytes[8 + i / GROUP * 16..], i % GROUP));
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
