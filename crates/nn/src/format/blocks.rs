//! Block formats: small integers that share a scale, as ggml lays them out.
//!
//! A block format is described once, by its [`Shape`] and a function that sorts a block's bits into
//! a [`Block`]. Decoding, encoding, the layout of tiles and the products with them derive from
//! these. A value is `scale * (number - offset)`, or `scale * code[number]`, plus or minus a
//! minimum.

mod shape;

pub(crate) use shape::{Block, BlockFormat, Code, GROUP, Integer, LARGE, Minima, Scale, Shape, dequantize, half_e8m0};

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

/// The sixteen codes of IQ4_NL and IQ4_XS, [`shape::CODE_OFFSET`] larger.
const IQ4_CODES: [u8; 16] = table([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]);
/// The doubled values of E2M1, [`shape::CODE_OFFSET`] larger.
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
