//! Tiles: what a unit for matrix products multiplies at once.

use super::LANES;

/// Tokens of a tile.
pub(crate) const TILE_TOKENS: usize = 16;
/// Bytes of each token in a full tile.
pub(crate) const TILE_BYTES: usize = 64;
/// Panels that [`Prepared::dot_bf16`](super::Prepared::dot_bf16) multiplies with the same rows at once.
pub(crate) const PANELS: usize = 4;

/// Sums `(tokens, rows)`.
pub(crate) type TileSums<T> = [[T; LANES]; TILE_TOKENS];
/// Bytes `(tokens, inputs)`, or vectors of the inputs of sixteen rows.
pub(crate) type Tile = [[u8; TILE_BYTES]; TILE_TOKENS];
