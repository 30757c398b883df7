//! The formats of tiles: where the numbers of a weight row lie in its tile.
//!
//! Four inputs of a row lie side by side (two in bfloat16), followed by the same inputs of the next
//! row, so that a vector of 64 bytes holds four bytes of each of sixteen rows. A tile is a sequence
//! of blocks. A block has its scales before its numbers, both at multiples of 64 bytes, in the
//! order in which products read them.

use super::GROUP;
use crate::format::Format;
use crate::kernels::Simd;
use crate::kernels::panels::Quantization;
use crate::kernels::simd::{LANES, QUADS};

/// Vectors in a group of 8-bit numbers.
const QUADS_PER_GROUP: usize = GROUP / 4;
/// Bytes of the head of a block of [`TileFormat::Q8_0`] and [`TileFormat::Q4_0`]: the scales of two
/// groups in half precision. If the number of groups is odd, the last block is half empty.
pub(super) const PAIR_HEAD: usize = 2 * 2 * LANES;
/// Inputs of a block of [`TileFormat::Q4_K`], [`TileFormat::Q5_K`] and [`TileFormat::Q6_K`].
pub(super) const BLOCK: usize = 256;
/// Bytes of the head of a block of [`TileFormat::Q4_K`] and [`TileFormat::Q5_K`]: a scale and a
/// minimum per row in half precision, then six bits of each per row and group, one byte each.
pub(super) const BLOCK_HEAD: usize = 2 * 2 * LANES + BLOCK / GROUP * 2 * LANES;
/// Bytes of the head of a block of [`TileFormat::Q6_K`]: a scale per row in half precision, padded
/// to 64 bytes, then eight bits per row and half group.
pub(super) const BLOCK_HEAD_6: usize = QUADS + BLOCK / GROUP * 2 * LANES;
/// Bytes of a group of 8-bit numbers in a tile.
pub(super) const GROUP_8: usize = QUADS_PER_GROUP * QUADS;
/// Bytes of a group of 4-bit numbers in a tile.
pub(super) const GROUP_4: usize = QUADS_PER_GROUP / 2 * QUADS;
/// Bytes of a group of 5-bit numbers in a tile: the fifth bits, then the low four as in
/// [`TileFormat::Q4_K`].
pub(super) const GROUP_5: usize = (QUADS_PER_GROUP / 2 + 1) * QUADS;
/// Bytes of a group of 6-bit numbers in a tile: the high two bits, then the low four as in
/// [`TileFormat::Q4_K`].
pub(super) const GROUP_6: usize = (QUADS_PER_GROUP / 2 + 2) * QUADS;

/// A format of tiles, named after the weight format that is packed into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the names are those of the formats")]
pub(super) enum TileFormat {
    Q8_0,
    Q4_0,
    Q4_K,
    Q5_K,
    Q6_K,
    BF16,
}

impl TileFormat {
    /// Returns the tile format for a weight format, if packing is faster on this processor.
    pub(super) fn of(format: Format, simd: Simd) -> Option<Self> {
        match format {
            Format::Q8_0 => Some(Self::Q8_0),
            Format::Q4_0 => Some(Self::Q4_0),
            Format::Q4_K => Some(Self::Q4_K),
            Format::Q5_K => Some(Self::Q5_K),
            Format::Q6_K => Some(Self::Q6_K),
            Format::BF16 if simd.has_bf16() => Some(Self::BF16),
            _ => None,
        }
    }

    /// Returns true if rows of `inputs` can be packed.
    pub(super) fn fits(self, inputs: usize) -> bool {
        inputs > 0 && (self != Self::BF16 || inputs.is_multiple_of(4))
    }

    /// Returns the format of the activations that tiles are multiplied with.
    pub(super) fn quantization(self) -> Quantization {
        if self == Self::BF16 { Quantization::Bf16 } else { Quantization::Int8 }
    }

    /// Returns the bytes of a tile of rows of `inputs`.
    pub(super) fn tile_bytes(self, inputs: usize) -> usize {
        let (pairs, blocks, groups) = ((inputs / GROUP).div_ceil(2), inputs / BLOCK, BLOCK / GROUP);
        match self {
            Self::Q8_0 => pairs * (PAIR_HEAD + 2 * GROUP_8),
            Self::Q4_0 => pairs * (PAIR_HEAD + 2 * GROUP_4),
            Self::Q4_K => blocks * (BLOCK_HEAD + groups * GROUP_4),
            Self::Q5_K => blocks * (BLOCK_HEAD + groups * GROUP_5),
            Self::Q6_K => blocks * (BLOCK_HEAD_6 + groups * GROUP_6),
            Self::BF16 => inputs / 2 * QUADS,
        }
    }

    /// Writes a row in its weight format into a lane of a tile, which holds zeros there.
    pub(super) fn pack(self, row: &[u8], lane: usize, tile: &mut [u8]) {
        match self {
            Self::Q8_0 => q8_0(row, lane, tile),
            Self::Q4_0 => q4_0(row, lane, tile),
            Self::Q4_K => q4_k(row, lane, tile),
            Self::Q5_K => q5_k(row, lane, tile),
            Self::Q6_K => q6_k(row, lane, tile),
            Self::BF16 => {
                for (pair, quad) in row.as_chunks::<4>().0.iter().zip(tile.as_chunks_mut::<QUADS>().0) {
                    quad.as_chunks_mut().0[lane] = *pair;
                }
            }
        }
    }
}

/// Packs a row whose groups are a scale and `VALUES` bytes: copies the scales, and calls `write`
/// with the bytes of each group and the place of its numbers in the tile.
fn pairs<const VALUES: usize, const NUMBERS: usize>(
    row: &[u8],
    lane: usize,
    tile: &mut [u8],
    write: impl Fn(&[u8; VALUES], &mut [u8; NUMBERS]),
) {
    let rows = row.chunks(2 * (2 + VALUES));
    for (pair, block) in rows.zip(tile.chunks_exact_mut(PAIR_HEAD + 2 * NUMBERS)) {
        let (scales, numbers) = block.split_at_mut(PAIR_HEAD);
        let groups = scales.as_chunks_mut::<{ 2 * LANES }>().0.iter_mut().zip(numbers.as_chunks_mut().0);
        for (group, (scales, numbers)) in pair.chunks_exact(2 + VALUES).zip(groups) {
            let (scale, values) = group.split_at(2);
            scales[2 * lane..][..2].copy_from_slice(scale);
            write(values.as_array().expect("invariant: a group's values"), numbers);
        }
    }
}

fn q8_0(row: &[u8], lane: usize, tile: &mut [u8]) {
    pairs::<32, GROUP_8>(row, lane, tile, |values, numbers| {
        for (values, quad) in values.as_chunks::<4>().0.iter().zip(numbers.as_chunks_mut::<QUADS>().0) {
            // The sign bit is flipped, which adds 128: `Lanes::dot_biased` takes unsigned weights.
            quad.as_chunks_mut().0[lane] = values.map(|value| value ^ 0x80);
        }
    });
}

fn q4_0(row: &[u8], lane: usize, tile: &mut [u8]) {
    pairs::<16, GROUP_4>(row, lane, tile, |values, numbers| halves(values, values, 4, lane, numbers));
}

/// Writes the 4-bit numbers of a group: inputs 0 to 15 are the low bits of `first`, 16 to 31 the
/// bits of `second` from bit `shift` on. Two quads of inputs share a vector.
fn halves(first: &[u8], second: &[u8], shift: u32, lane: usize, group: &mut [u8]) {
    let value = |input: usize| match input {
        0..16 => first[input] & 15,
        _ => (second[input - 16] >> shift) & 15,
    };
    for (index, quad) in group.as_chunks_mut::<QUADS>().0.iter_mut().enumerate() {
        for place in 0..4 {
            let low = 8 * index + place;
            quad[4 * lane + place] = value(low) | (value(low + 4) << 4);
        }
    }
}

fn q4_k(row: &[u8], lane: usize, tile: &mut [u8]) {
    let blocks = row.as_chunks::<144>().0;
    for (block, bytes) in blocks.iter().zip(tile.chunks_exact_mut(BLOCK_HEAD + BLOCK / GROUP * GROUP_4)) {
        let numbers = scales_and_minima(block, lane, bytes);
        for (group, numbers) in numbers.as_chunks_mut::<GROUP_4>().0.iter_mut().enumerate() {
            let values = nibbles_of(&block[16..], group);
            halves(&values[..16], &values[16..], 0, lane, numbers);
        }
    }
}

fn q5_k(row: &[u8], lane: usize, tile: &mut [u8]) {
    let blocks = row.as_chunks::<176>().0;
    for (block, bytes) in blocks.iter().zip(tile.chunks_exact_mut(BLOCK_HEAD + BLOCK / GROUP * GROUP_5)) {
        let numbers = scales_and_minima(block, lane, bytes);
        let fifth = &block[16..48];
        for (group, numbers) in numbers.as_chunks_mut::<GROUP_5>().0.iter_mut().enumerate() {
            let low = nibbles_of(&block[48..], group);
            let values = std::array::from_fn(|i| low[i] | (((fifth[i] >> group) & 1) << 4));
            low_and_high::<1>(values, lane, numbers);
        }
    }
}

fn q6_k(row: &[u8], lane: usize, tile: &mut [u8]) {
    let blocks = row.as_chunks::<210>().0;
    for (block, bytes) in blocks.iter().zip(tile.chunks_exact_mut(BLOCK_HEAD_6 + BLOCK / GROUP * GROUP_6)) {
        let (head, numbers) = bytes.split_at_mut(BLOCK_HEAD_6);
        let (low, high) = (&block[..128], &block[128..192]);
        head[2 * lane..][..2].copy_from_slice(&block[208..]);
        for (half, scale) in block[192..208].iter().enumerate() {
            head[QUADS + half * LANES + lane] = *scale;
        }
        for (group, numbers) in numbers.as_chunks_mut::<GROUP_6>().0.iter_mut().enumerate() {
            // 128 values take 64 bytes of the low bits and 32 of the high ones, in four runs of 32.
            let (section, run) = (group / 4, group % 4);
            let low = &low[section * 64 + run % 2 * 32..][..GROUP];
            let high = &high[section * 32..][..GROUP];
            let bits = |i: usize| ((low[i] >> (run / 2 * 4)) & 15) | (((high[i] >> (run * 2)) & 3) << 4);
            low_and_high::<2>(std::array::from_fn(bits), lane, numbers);
        }
    }
}

/// Writes the head of a block that has minima; returns the place of its numbers.
fn scales_and_minima<'a>(block: &[u8], lane: usize, bytes: &'a mut [u8]) -> &'a mut [u8] {
    let (head, numbers) = bytes.split_at_mut(BLOCK_HEAD);
    let (scales, groups) = head.split_at_mut(4 * LANES);
    scales[2 * lane..][..2].copy_from_slice(&block[..2]);
    scales[2 * (LANES + lane)..][..2].copy_from_slice(&block[2..4]);
    for (group, head) in groups.as_chunks_mut::<{ 2 * LANES }>().0.iter_mut().enumerate() {
        [head[lane], head[LANES + lane]] = crate::format::scale_and_minimum(&block[4..16], group);
    }
    numbers
}

/// Returns the low four bits of a group. Two groups share 32 bytes: the low and the high nibbles.
fn nibbles_of(values: &[u8], group: usize) -> [u8; GROUP] {
    let bytes = &values[group / 2 * GROUP..][..GROUP];
    std::array::from_fn(|i| (bytes[i] >> (4 * (group % 2))) & 15)
}

/// Writes numbers of `4 + HIGH` bits. The high bits of `8 / HIGH` quads share a byte, those of the
/// first quad lowest.
fn low_and_high<const HIGH: usize>(values: [u8; GROUP], lane: usize, numbers: &mut [u8]) {
    let (high, low) = numbers.split_at_mut(HIGH * QUADS);
    halves(&values[..16], &values[16..], 0, lane, low);
    for (values, high) in values.chunks_exact(32 / HIGH).zip(high.as_chunks_mut::<QUADS>().0) {
        for (index, value) in values.iter().enumerate() {
            high[4 * lane + index % 4] |= (value >> 4) << (index / 4 * HIGH);
        }
    }
}
