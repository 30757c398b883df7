//! The layout of tiles: where the numbers of a weight row lie in its tile.
//!
//! Four inputs of a row lie side by side (two in bfloat16), followed by the same inputs of the next
//! row, so that a vector of 64 bytes holds four bytes of each of sixteen rows. A tile is a sequence
//! of blocks. A block has its scales before its numbers, both at multiples of 64 bytes, in the
//! order in which products read them. All of it derives from the [`Shape`] of a format.

use half::bf16;

use crate::format::blocks::{Block, BlockFormat, GROUP, Minima, Scale, Shape, half_e8m0};
use crate::kernels::simd::{LANES, VECTOR_BYTES};

/// Bytes of sixteen scales or minima of two bytes each.
pub(super) const PAIRS: usize = 2 * LANES;
/// Groups of a tile's block if those of the format are small.
const SMALL_GROUPS: usize = 2;

/// The sizes of a tile's block.
///
/// Two small blocks of a row make one of its tile: scale and minimum of the first, those of the
/// second, then their numbers. If their number is odd, the last block is half empty. Of a large
/// block, the scale and the minimum come first, then one byte each for the scale and the minimum of
/// every run.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Groups of 32 inputs.
    pub(super) groups: usize,
    /// Bytes of the scale and the minimum of a large block.
    pub(super) block_head: usize,
    /// Bytes of the scales and minima of a group.
    pub(super) group_head: usize,
    /// Bytes of the numbers of a group: the high bits of all, then the low bits.
    pub(super) group: usize,
    /// Bytes of the block.
    pub(super) bytes: usize,
}

impl Layout {
    pub(super) const fn of(shape: &Shape) -> Self {
        let (groups, block_head, group_head) = if shape.is_large() {
            (shape.values / GROUP, VECTOR_BYTES, shape.runs_per_group() * shape.kinds() * LANES)
        } else {
            (SMALL_GROUPS, 0, shape.kinds() * PAIRS)
        };
        let group = shape.bits as usize * GROUP * LANES / 8;
        Self { groups, block_head, group_head, group, bytes: block_head + groups * (group_head + group) }
    }

    /// Returns the bytes of all scales and minima.
    pub(super) const fn head(&self) -> usize {
        self.block_head + self.groups * self.group_head
    }

    /// Returns the bytes of a tile of rows of `inputs`.
    pub(super) const fn tile_bytes(&self, inputs: usize) -> usize {
        (inputs / GROUP).div_ceil(self.groups) * self.bytes
    }
}

/// Returns the low and the high bits of a number, which are stored apart so that bytes hold a whole
/// number of each.
pub(super) const fn low_and_high_bits(shape: &Shape) -> (usize, usize) {
    match shape.bits {
        3 => (2, 1),
        5 => (4, 1),
        6 => (4, 2),
        bits => (bits as usize, 0),
    }
}

/// Writes a row in its weight format into a lane of a tile, which holds zeros there.
pub(super) fn pack<F: BlockFormat>(row: &[u8], lane: usize, tile: &mut [u8]) {
    let (shape, layout) = (&F::SHAPE, Layout::of(&F::SHAPE));
    let groups = shape.values / GROUP;
    let mut block = Block::ZERO;
    for (index, bytes) in row.chunks_exact(shape.bytes).enumerate() {
        F::read(bytes, &mut block);
        let first = index * groups % layout.groups;
        let tile = &mut tile[index * groups / layout.groups * layout.bytes..][..layout.bytes];
        let (head, numbers) = tile.split_at_mut(layout.head());
        if shape.is_large() {
            large_head(shape, &block, lane, head)
        } else {
            small_head(shape, &block, lane, first, head)
        }
        let places = numbers.chunks_exact_mut(layout.group).skip(first);
        for (group, numbers) in block.numbers.as_chunks::<GROUP>().0[..groups].iter().zip(places) {
            write_group(shape, group, lane, numbers);
        }
    }
}

/// Writes a row into a lane of a tile in which `N` bytes of a row are followed by those of the next.
pub(super) fn interleave<const N: usize>(row: &[u8], lane: usize, tile: &mut [u8]) {
    for (input, vector) in row.as_chunks::<N>().0.iter().zip(tile.chunks_exact_mut(N * LANES)) {
        vector.as_chunks_mut().0[lane] = *input;
    }
}

/// Writes the scale and the minimum of small block `slot` of a tile's block.
fn small_head(shape: &Shape, block: &Block, lane: usize, slot: usize, head: &mut [u8]) {
    let places = head.chunks_exact_mut(PAIRS).skip(slot * shape.kinds()).take(shape.kinds());
    for (pairs, value) in places.zip(scale_and_minimum(shape, block)) {
        pairs[2 * lane..][..2].copy_from_slice(&value);
    }
}

/// Writes the scales and minima of a large block.
fn large_head(shape: &Shape, block: &Block, lane: usize, head: &mut [u8]) {
    let (pairs, runs) = head.split_at_mut(VECTOR_BYTES);
    for (pairs, value) in pairs.chunks_exact_mut(PAIRS).zip(scale_and_minimum(shape, block)) {
        pairs[2 * lane..][..2].copy_from_slice(&value);
    }
    for (run, head) in runs.chunks_exact_mut(shape.kinds() * LANES).enumerate() {
        // A signed byte if there is an offset.
        head[lane] = block.scales[run].wrapping_sub(shape.scales.offset as u8);
        if shape.has_minima() {
            head[LANES + lane] = block.minima[run];
        }
    }
}

/// Returns the scale of a block in half precision, or bfloat16 if it is a power of two, and the
/// minimum to add in half precision.
fn scale_and_minimum(shape: &Shape, block: &Block) -> [[u8; 2]; 2] {
    let scale = match shape.scale {
        Scale::F16 => block.scale,
        Scale::HalfE8M0 => bf16::from_f32(half_e8m0(block.scale[0])).to_le_bytes(),
    };
    let [low, high] = block.minimum;
    let sign = if shape.minima == Minima::Subtracted { 0x80 } else { 0 };
    [scale, [low, high ^ sign]]
}

/// Writes the numbers of a group. Numbers of `bits` bits of `8 / bits` quads of inputs share a
/// vector, those of the first quad lowest.
fn write_group(shape: &Shape, values: &[u8; GROUP], lane: usize, numbers: &mut [u8]) {
    let (low_bits, high_bits) = low_and_high_bits(shape);
    let (high, low) = numbers.split_at_mut(high_bits * GROUP * LANES / 8);
    for (part, bits, shift) in [(low, low_bits, 0), (high, high_bits, low_bits)] {
        if bits == 0 {
            continue;
        }
        for (vector, values) in part.as_chunks_mut::<VECTOR_BYTES>().0.iter_mut().zip(values.chunks_exact(GROUP / bits))
        {
            for (index, value) in values.iter().enumerate() {
                let field = (value >> shift) & (0xff >> (8 - bits)) as u8;
                vector[4 * lane + index % 4] |= field << (index / 4 * bits);
            }
        }
    }
}
