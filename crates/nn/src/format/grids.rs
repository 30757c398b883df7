//! Block formats that are read only: the code books of IQ1, IQ2 and IQ3, and the ternary TQ.
//!
//! A block holds 256 values. In the IQ formats an index selects eight or four values at once from a
//! code book, whose signs stand apart; a scale belongs to 16 or 32 values. The layouts are those of
//! ggml (<https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>). The code books come from
//! `scripts/make_grids.py`.

use half::f16;

/// Values of a block.
pub(super) const VALUES: usize = 256;
/// The code books, one after the other; see `scripts/make_grids.py`.
static WORDS: &[u8; 2 * 4608] = include_bytes!("grids.bin");

/// A code book.
struct Book {
    /// The first entry in [`WORDS`].
    first: usize,
    /// The values that occur in entries.
    values: &'static [i8],
    /// Bits of an index into `values`.
    bits: u32,
}

const IQ2_XXS: Book = Book { first: 0, values: &[8, 25, 43], bits: 2 };
const IQ2_XS: Book = Book { first: 256, ..IQ2_XXS };
const IQ2_S: Book = Book { first: 768, ..IQ2_XXS };
const IQ3_XXS: Book = Book { first: 1792, values: &[4, 12, 20, 28, 36, 44, 52, 62], bits: 3 };
const IQ3_S: Book = Book { first: 2048, values: &[1, 3, 5, 7, 9, 11, 13, 15], bits: 3 };
const IQ1_S: Book = Book { first: 2560, values: &[-1, 0, 1], bits: 2 };

impl Book {
    /// Returns the `N` values of an entry.
    fn entry<const N: usize>(&self, index: usize) -> [f32; N] {
        let at = 2 * (self.first + index);
        let word = u16::from_le_bytes([WORDS[at], WORDS[at + 1]]);
        let mask = (1 << self.bits) - 1;
        std::array::from_fn(|place| f32::from(self.values[usize::from((word >> (self.bits * place as u32)) & mask)]))
    }
}

/// Writes values times a scale, negated where the bit of a value is set.
fn write_signed<const N: usize>(values: [f32; N], signs: u8, scale: f32, out: &mut [f32]) {
    for (place, (out, value)) in out.iter_mut().zip(values).enumerate() {
        *out = if signs >> place & 1 == 1 { -scale * value } else { scale * value };
    }
}

/// Returns eight signs from seven bits: an even number of them is negative.
fn even_signs(bits: u32) -> u8 {
    let seven = (bits & 127) as u8;
    seven | ((seven.count_ones() as u8 & 1) << 7)
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

fn word(bytes: &[u8], index: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]))
}

fn long(bytes: &[u8], index: usize) -> u32 {
    (word(bytes, 2 * index) | word(bytes, 2 * index + 1) << 16) as u32
}

/// Returns one of the 4-bit numbers of bytes, the lower half of a byte first.
fn nibble(bytes: &[u8], index: usize) -> f32 {
    f32::from(bytes[index / 2] >> (4 * (index % 2)) & 15)
}

/// Decodes blocks of `BYTES` bytes. `run` decodes eight values: it takes the block, the number of the
/// run of 32 values, and the number of the eight in it.
fn by_eights<const BYTES: usize>(bytes: &[u8], out: &mut [f32], run: impl Fn(&[u8; BYTES], usize, usize, &mut [f32])) {
    for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.chunks_exact_mut(VALUES)) {
        for (index, out) in out.chunks_exact_mut(8).enumerate() {
            run(block, index / 4, index % 4, out);
        }
    }
}

/// Decodes IQ2_XXS: per 32 values four indices, then four times seven signs and a scale of four bits.
pub(super) fn iq2_xxs(bytes: &[u8], out: &mut [f32]) {
    by_eights::<66>(bytes, out, |block, run, eight, out| {
        let codes = &block[2 + 8 * run..];
        let rest = long(codes, 1);
        let scale = half(block) * (0.5 + (rest >> 28) as f32) * 0.25;
        let values: [f32; 8] = IQ2_XXS.entry(usize::from(codes[eight]));
        write_signed(values, even_signs(rest >> (7 * eight)), scale, out);
    });
}

/// Decodes IQ2_XS: words of a 9-bit index and seven signs, then scales of 4 bits for 16 values.
pub(super) fn iq2_xs(bytes: &[u8], out: &mut [f32]) {
    by_eights::<74>(bytes, out, |block, run, eight, out| {
        let code = word(&block[2..], 4 * run + eight);
        let scale = half(block) * (0.5 + nibble(&block[66..], 2 * run + eight / 2)) * 0.25;
        let values: [f32; 8] = IQ2_XS.entry(code & 511);
        write_signed(values, even_signs((code >> 9) as u32), scale, out);
    });
}

/// Decodes IQ2_S: low bytes of indices, signs, two high bits of each index, scales for 16 values.
pub(super) fn iq2_s(bytes: &[u8], out: &mut [f32]) {
    by_eights::<82>(bytes, out, |block, run, eight, out| {
        let high = usize::from(block[66 + run]) >> (2 * eight) & 3;
        let values: [f32; 8] = IQ2_S.entry(usize::from(block[2 + 4 * run + eight]) | high << 8);
        let scale = half(block) * (0.5 + nibble(&block[74..], 2 * run + eight / 2)) * 0.25;
        write_signed(values, block[34 + 4 * run + eight], scale, out);
    });
}

/// Decodes IQ3_XXS: indices of four values, then per 32 values four times seven signs and a scale.
pub(super) fn iq3_xxs(bytes: &[u8], out: &mut [f32]) {
    by_eights::<98>(bytes, out, |block, run, eight, out| {
        let rest = long(&block[66..], run);
        let scale = half(block) * (0.5 + (rest >> 28) as f32) * 0.5;
        let signs = even_signs(rest >> (7 * eight));
        for (four, out) in out.chunks_exact_mut(4).enumerate() {
            let values: [f32; 4] = IQ3_XXS.entry(usize::from(block[2 + 8 * run + 2 * eight + four]));
            write_signed(values, signs >> (4 * four), scale, out);
        }
    });
}

/// Decodes IQ3_S: low bytes of indices of four values, their high bits, signs, scales for 32 values.
pub(super) fn iq3_s(bytes: &[u8], out: &mut [f32]) {
    by_eights::<110>(bytes, out, |block, run, eight, out| {
        let scale = half(block) * (1.0 + 2.0 * nibble(&block[106..], run));
        for (four, out) in out.chunks_exact_mut(4).enumerate() {
            let place = 2 * eight + four;
            let high = usize::from(block[66 + run]) >> place & 1;
            let values: [f32; 4] = IQ3_S.entry(usize::from(block[2 + 8 * run + place]) | high << 8);
            write_signed(values, block[74 + 4 * run + eight] >> (4 * four), scale, out);
        }
    });
}

/// The part of a step of the code book by which all values of IQ1 are shifted.
const IQ1_SHIFT: f32 = 0.125;

/// Decodes IQ1_S: low bytes of indices, then per 32 values four times three high bits, a scale of
/// three bits, and the sign of a shift.
pub(super) fn iq1_s(bytes: &[u8], out: &mut [f32]) {
    by_eights::<50>(bytes, out, |block, run, eight, out| {
        let rest = word(&block[34..], run);
        let scale = half(block) * (2 * (rest >> 12 & 7) + 1) as f32;
        let shift = if rest >> 15 == 1 { -IQ1_SHIFT } else { IQ1_SHIFT };
        let index = usize::from(block[2 + 4 * run + eight]) | (rest >> (3 * eight) & 7) << 8;
        let values: [f32; 8] = IQ1_S.entry(index);
        write_signed(values.map(|value| value + shift), 0, scale, out);
    });
}

/// Decodes IQ1_M: low bytes of indices, then for each index three high bits and the sign of a shift,
/// then scales of three bits for 16 values, among which the block's scale is spread.
pub(super) fn iq1_m(bytes: &[u8], out: &mut [f32]) {
    by_eights::<56>(bytes, out, |block, run, eight, out| {
        let scales = &block[48..];
        let of_block = (0..4).map(|index| word(scales, index) >> 12 << (4 * index)).sum::<usize>() as u16;
        let of_run = word(scales, run / 2) >> (6 * (run % 2) + 3 * (eight / 2)) & 7;
        let scale = f16::from_bits(of_block).to_f32() * (2 * of_run + 1) as f32;
        let high = usize::from(block[32 + 2 * run + eight / 2]) >> (4 * (eight % 2));
        let shift = if high & 8 == 8 { -IQ1_SHIFT } else { IQ1_SHIFT };
        let values: [f32; 8] = IQ1_S.entry(usize::from(block[4 * run + eight]) | (high & 7) << 8);
        write_signed(values.map(|value| value + shift), 0, scale, out);
    });
}

/// Decodes TQ1_0: five ternary digits in a byte, which is a fraction of 256; four in the last bytes.
pub(super) fn tq1_0(bytes: &[u8], out: &mut [f32]) {
    // Bytes from, bytes to, digits of each.
    const PARTS: [(usize, usize, u32); 3] = [(0, 32, 5), (32, 48, 5), (48, 52, 4)];
    for (block, out) in bytes.as_chunks::<54>().0.iter().zip(out.chunks_exact_mut(VALUES)) {
        let scale = half(&block[52..]);
        let mut out = out.iter_mut();
        for (from, to, digits) in PARTS {
            for digit in 0..digits {
                for (byte, out) in block[from..to].iter().zip(&mut out) {
                    let rest = byte.wrapping_mul(3_u8.pow(digit));
                    *out = (f32::from((u16::from(rest) * 3) >> 8) - 1.0) * scale;
                }
            }
        }
    }
}

/// Decodes TQ2_0: four ternary digits of two bits in a byte.
pub(super) fn tq2_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<66>().0.iter().zip(out.chunks_exact_mut(VALUES)) {
        let scale = half(&block[64..]);
        for (index, out) in out.chunks_exact_mut(32).enumerate() {
            for (byte, out) in block[index / 4 * 32..].iter().zip(out) {
                *out = (f32::from(byte >> (2 * (index % 4)) & 3) - 1.0) * scale;
            }
        }
    }
}
