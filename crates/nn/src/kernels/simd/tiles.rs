//! Products of whole tiles, where a processor has a unit for them.
//!
//! A product adds `a * b` to a tile of sums: `a` holds up to 64 bytes of each of sixteen tokens, and
//! `b` the same inputs of sixteen rows, in vectors of [`VECTOR_BYTES`] as the tiles of packed
//! matrices have them. A token's sums depend on no other token.

use std::marker::PhantomData;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::sync::OnceLock;

use super::VECTOR_BYTES;
use super::tile::{TILE_BYTES, TILE_TOKENS, Tile, TileSums};

/// The witness of a unit for products of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tiles {
    /// Plain Rust: the reference of the arithmetic.
    Portable,
    /// Advanced Matrix Extensions.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(super::Amx),
}

impl Tiles {
    /// Returns the unit of this processor, if it has one that computes what the reference does.
    pub(super) fn detect() -> Option<Self> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        {
            static FOUND: OnceLock<Option<Tiles>> = OnceLock::new();
            *FOUND.get_or_init(|| super::Amx::detect().map(Tiles::Amx).filter(|unit| agree(*unit, Self::Portable)))
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        None
    }

    /// Prepares this thread for products of which each token has `bytes` bytes: 16, 32 or 64.
    pub(crate) fn prepare(self, bytes: usize) -> Prepared {
        assert!(matches!(bytes, 16 | 32 | TILE_BYTES), "bytes of a tile");
        match self {
            Self::Portable => {}
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(amx) => amx.configure(bytes),
        }
        Prepared { tiles: self, bytes, _thread: PhantomData }
    }
}

/// The permission to multiply tiles on this thread.
pub(crate) struct Prepared {
    tiles: Tiles,
    bytes: usize,
    _thread: PhantomData<*const ()>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        match self.tiles {
            Tiles::Portable => {}
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Tiles::Amx(amx) => amx.release(),
        }
    }
}

impl Prepared {
    /// Adds to the sums of each panel the products of its bfloat16 and those of the rows, 32 inputs
    /// after the other.
    ///
    /// The even and the odd of 32 inputs are summed apart, from the first to the last, and both
    /// sums are added to the sum so far. Numbers below the smallest normal one are zeros.
    ///
    /// # Panics
    /// If a panel has fewer tiles than the rows, or the thread is prepared for others.
    pub(crate) fn dot_bf16<const P: usize>(&self, rows: &[Tile], panels: [&[Tile]; P], sums: &mut [TileSums<f32>; P]) {
        assert!(self.bytes == TILE_BYTES && panels.iter().all(|panel| panel.len() >= rows.len()), "tiles of a product");
        match self.tiles {
            Tiles::Portable => {
                for (panel, sums) in panels.into_iter().zip(sums) {
                    panel.iter().zip(rows).for_each(|(tokens, rows)| portable::dot_bf16(tokens, rows, sums));
                }
            }
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Tiles::Amx(amx) => amx.dot_bf16(rows, panels, sums),
        }
    }

    /// Adds the products of the signed bytes of tokens and the unsigned bytes of rows. The bytes of
    /// a token begin `stride` bytes after those of the token before it.
    ///
    /// # Panics
    /// If `tokens` ends too early, or the thread is prepared for others than four bytes per vector.
    pub(crate) fn dot_bytes(
        &self,
        rows: &[[u8; VECTOR_BYTES]],
        tokens: &[u8],
        stride: usize,
        sums: &mut TileSums<i32>,
    ) {
        assert!(self.bytes == 4 * rows.len(), "bytes of a product");
        assert!(tokens.len() >= (TILE_TOKENS - 1) * stride + self.bytes, "tokens of a product");
        match self.tiles {
            Tiles::Portable => portable::dot_bytes(rows, tokens, stride, sums),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Tiles::Amx(amx) => amx.dot_bytes(rows, tokens, stride, sums),
        }
    }
}

/// The arithmetic in plain Rust.
mod portable {
    use super::{Tile, TileSums, VECTOR_BYTES};

    pub(super) fn dot_bf16(tokens: &Tile, rows: &Tile, sums: &mut TileSums<f32>) {
        for (token, sums) in tokens.iter().zip(sums) {
            for (row, sum) in sums.iter_mut().enumerate() {
                let mut parts = [0.0; 2];
                for (token, rows) in token.as_chunks::<4>().0.iter().zip(rows) {
                    let pairs = token.as_chunks().0.iter().zip(rows[4 * row..].as_chunks().0);
                    for (part, (a, b)) in parts.iter_mut().zip(pairs) {
                        *part = flushed(widened(*a).mul_add(widened(*b), *part));
                    }
                }
                *sum = flushed(flushed(*sum) + flushed(parts[0] + parts[1]));
            }
        }
    }

    pub(super) fn dot_bytes(rows: &[[u8; VECTOR_BYTES]], tokens: &[u8], stride: usize, sums: &mut TileSums<i32>) {
        for (token, sums) in tokens.chunks(stride).zip(sums) {
            for (x, rows) in token.as_chunks::<4>().0.iter().zip(rows) {
                for (sum, row) in sums.iter_mut().zip(rows.as_chunks::<4>().0) {
                    *sum += x.iter().zip(row).map(|(x, w)| i32::from(x.cast_signed()) * i32::from(*w)).sum::<i32>();
                }
            }
        }
    }

    fn widened(bytes: [u8; 2]) -> f32 {
        flushed(f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16))
    }

    /// Returns a number, or a zero of its sign if it is not normal.
    fn flushed(number: f32) -> f32 {
        if number.is_subnormal() { 0.0f32.copysign(number) } else { number }
    }
}

/// Returns true if both units give the same bits for products of numbers without a pattern.
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
fn agree(one: Tiles, other: Tiles) -> bool {
    use super::LANES;
    use super::tile::PANELS;
    const STEPS: usize = 3;
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    // The upper byte of each bfloat16 has a middling exponent.
    let mut tile = || -> Tile {
        let mut number = |index| if index % 2 == 0 { noise() } else { noise() & 0x81 | 0x3e };
        std::array::from_fn(|_| std::array::from_fn(&mut number))
    };
    let mut tiles = || -> [Tile; STEPS] { std::array::from_fn(|_| tile()) };
    let (rows, panels) = (tiles(), [tiles(), tiles(), tiles(), tiles()]);
    let floats = |unit: Tiles| {
        let unit = unit.prepare(TILE_BYTES);
        let mut sums = [[[0.5; LANES]; TILE_TOKENS]; PANELS + 1];
        let (four, one) = sums.split_first_chunk_mut::<PANELS>().expect("invariant: as many and one more");
        unit.dot_bf16(&rows, panels.each_ref().map(<[Tile; STEPS]>::as_slice), four);
        unit.dot_bf16::<1>(&rows, [&panels[1]], one.first_chunk_mut().expect("invariant: one is left"));
        sums.map(|sums| sums.map(|sums| sums.map(f32::to_bits)))
    };
    let bytes = |unit: Tiles, bytes: usize| {
        let mut sums = [[-7; LANES]; TILE_TOKENS];
        unit.prepare(bytes).dot_bytes(&rows[0][..bytes / 4], panels[0].as_flattened().as_flattened(), 60, &mut sums);
        sums
    };
    floats(one) == floats(other) && [16, 32].iter().all(|count| bytes(one, *count) == bytes(other, *count))
}

#[cfg(test)]
mod tests {
    use super::super::{LANES, Simd};
    use super::*;

    #[test]
    fn units_agree_with_the_reference() {
        for tiles in Simd::all().into_iter().filter_map(|simd| simd.tiles) {
            assert!(agree(tiles, Tiles::Portable), "{tiles:?}");
        }
    }

    #[test]
    fn bfloat16_are_summed_as_pairs_of_inputs() {
        // Token t has t + 1 at input 2 and -1 at input 31; row r has r + 2 and 0.5 there.
        let number = |number: f32| half::bf16::from_f32(number).to_le_bytes();
        let (mut tokens, mut rows) = ([[0; TILE_BYTES]; TILE_TOKENS], [[0; TILE_BYTES]; TILE_TOKENS]);
        for index in 0..TILE_TOKENS {
            tokens[index][4..6].copy_from_slice(&number(index as f32 + 1.0));
            tokens[index][62..64].copy_from_slice(&number(-1.0));
            rows[1][4 * index..][..2].copy_from_slice(&number(index as f32 + 2.0));
            rows[15][4 * index + 2..][..2].copy_from_slice(&number(0.5));
        }
        for tiles in Simd::all().into_iter().filter_map(|simd| simd.tiles) {
            let mut sums = [[[3.0; LANES]; TILE_TOKENS]];
            tiles.prepare(TILE_BYTES).dot_bf16(&[rows], [&[tokens]], &mut sums);
            for (token, sums) in sums[0].iter().enumerate() {
                for (row, sum) in sums.iter().enumerate() {
                    assert_eq!(*sum, 2.5 + ((token + 1) * (row + 2)) as f32, "{tiles:?}");
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_not_normal_are_zeros() {
        let smallest = [[0x40, 0x00]; TILE_BYTES / 2].as_flattened().first_chunk().copied().unwrap();
        let large = [[0x80, 0x7e]; TILE_BYTES / 2].as_flattened().first_chunk().copied().unwrap();
        for tiles in Simd::all().into_iter().filter_map(|simd| simd.tiles) {
            let mut sums = [[[0.0; LANES]; TILE_TOKENS]];
            tiles.prepare(TILE_BYTES).dot_bf16(&[[large; TILE_TOKENS]], [&[[smallest; TILE_TOKENS]]], &mut sums);
            assert_eq!(sums, [[[0.0; LANES]; TILE_TOKENS]], "{tiles:?}");
        }
    }
}
