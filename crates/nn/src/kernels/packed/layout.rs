//! How the rows of a format lie in a tile.
//!
//! Four inputs of a row are neighbours (two in bfloat16), then come those of the next row: a vector of 64 bytes has a
//! share for each of sixteen rows. Scales of a tile come before all its numbers, both at multiples of 64 bytes.

use crate::format::Format;
use crate::kernels::ints::QUADS;
use crate::kernels::lanes::{Kind, LANES, Simd};
use crate::kernels::rounded::Rounding;

use super::GROUP;

/// Vectors of four inputs in a group.
const QUADS_PER_GROUP: usize = GROUP / 4;
/// Inputs of a block of [`Layout::Q4_K`].
pub(super) const BLOCK: usize = 256;
/// Bytes of the scales of a block: a scale and a minimum in half precision per row, then of each group six bits of both.
pub(super) const BLOCK_HEAD: usize = 2 * 2 * LANES + BLOCK / GROUP * 2 * LANES;

/// A format of tiles, named as what it is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the names are those of the formats")]
pub(super) enum Layout {
    Q8_0,
    Q4_0,
    Q4_K,
    BF16,
}

impl Layout {
    /// The layout that this processor gains by.
    pub(super) fn of(format: Format, simd: Simd) -> Option<Self> {
        match format {
            Format::Q8_0 => Some(Self::Q8_0),
            Format::Q4_0 => Some(Self::Q4_0),
            Format::Q4_K => Some(Self::Q4_K),
            #[cfg(target_arch = "x86_64")]
            Format::BF16 if simd.0 == Kind::Avx512Bf16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// Whether rows of `inputs` can be laid out so.
    pub(super) fn fits(self, inputs: usize) -> bool {
        inputs > 0 && (self != Self::BF16 || inputs.is_multiple_of(4))
    }

    pub(super) fn rounding(self) -> Rounding {
        if self == Self::BF16 { Rounding::Bf16 } else { Rounding::Int8 }
    }

    pub(super) fn tile_bytes(self, inputs: usize) -> usize {
        let groups = inputs / GROUP;
        match self {
            Self::Q8_0 => scales_bytes(groups) + groups * QUADS_PER_GROUP * QUADS,
            Self::Q4_0 => scales_bytes(groups) + groups * QUADS_PER_GROUP / 2 * QUADS,
            Self::Q4_K => inputs / BLOCK * BLOCK_HEAD + groups * QUADS_PER_GROUP / 2 * QUADS,
            Self::BF16 => inputs / 2 * QUADS,
        }
    }

    /// Write a row of the format's blocks into its lane of a tile, which is zero there.
    pub(super) fn pack(self, row: &[u8], lane: usize, tile: &mut [u8]) {
        match self {
            Self::Q8_0 => q8_0(row, lane, tile),
            Self::Q4_0 => q4_0(row, lane, tile),
            Self::Q4_K => q4_k(row, lane, tile),
            Self::BF16 => {
                for (pair, quad) in row.as_chunks::<4>().0.iter().zip(tile.as_chunks_mut::<QUADS>().0) {
                    quad.as_chunks_mut().0[lane] = *pair;
                }
            }
        }
    }
}

/// Bytes of the half-precision scales of that many groups.
pub(super) fn scales_bytes(groups: usize) -> usize {
    (groups * 2 * LANES).next_multiple_of(QUADS)
}

fn q8_0(row: &[u8], lane: usize, tile: &mut [u8]) {
    let blocks = row.as_chunks::<34>().0;
    let (scales, numbers) = tile.split_at_mut(scales_bytes(blocks.len()));
    let groups = numbers.as_chunks_mut::<{ QUADS_PER_GROUP * QUADS }>().0;
    for ((block, scales), group) in blocks.iter().zip(scales.as_chunks_mut::<{ 2 * LANES }>().0).zip(groups) {
        let (scale, values) = block.split_at(2);
        scales[2 * lane..][..2].copy_from_slice(scale);
        for (values, quad) in values.as_chunks::<4>().0.iter().zip(group.as_chunks_mut::<QUADS>().0) {
            // From -128 on: the instruction wants weights without a sign.
            quad.as_chunks_mut().0[lane] = values.map(|value| value ^ 0x80);
        }
    }
}

fn q4_0(row: &[u8], lane: usize, tile: &mut [u8]) {
    let blocks = row.as_chunks::<18>().0;
    let (scales, numbers) = tile.split_at_mut(scales_bytes(blocks.len()));
    let groups = numbers.as_chunks_mut::<{ QUADS_PER_GROUP / 2 * QUADS }>().0;
    for ((block, scales), group) in blocks.iter().zip(scales.as_chunks_mut::<{ 2 * LANES }>().0).zip(groups) {
        let (scale, values) = block.split_at(2);
        scales[2 * lane..][..2].copy_from_slice(scale);
        halves(values, values, 4, lane, group);
    }
}

/// Four-bit numbers of a group: inputs 0 to 15 in the bytes of `first`, 16 to 31 in those of `second`, shifted by
/// `shift` more. Two quads of inputs share a vector.
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
    let (heads, numbers) = tile.split_at_mut(blocks.len() * BLOCK_HEAD);
    let numbers = numbers.as_chunks_mut::<{ BLOCK / 2 * LANES }>().0;
    for ((block, head), numbers) in blocks.iter().zip(heads.as_chunks_mut::<BLOCK_HEAD>().0).zip(numbers) {
        let (halves_of_row, rest) = block.split_at(4);
        let (packed, values) = rest.split_at(12);
        let (scales, groups) = head.split_at_mut(4 * LANES);
        scales[2 * lane..][..2].copy_from_slice(&halves_of_row[..2]);
        scales[2 * (LANES + lane)..][..2].copy_from_slice(&halves_of_row[2..]);
        for (group, (head, numbers)) in groups
            .as_chunks_mut::<{ 2 * LANES }>()
            .0
            .iter_mut()
            .zip(numbers.as_chunks_mut::<{ GROUP / 2 * LANES }>().0)
            .enumerate()
        {
            let [scale, minimum] = crate::format::scale_and_minimum(packed, group);
            head[lane] = scale;
            head[LANES + lane] = minimum;
            // Two groups share 32 bytes, one in the low bits and one in the high ones.
            let bytes = &values[group / 2 * GROUP..][..GROUP];
            let shifted: [u8; GROUP] = std::array::from_fn(|i| bytes[i] >> (4 * (group % 2)));
            halves(&shifted[..16], &shifted[16..], 0, lane, numbers);
        }
    }
}
