//! Products of matrices that are rounded to bfloat16, with sums in float32.
//!
//! With a unit for products of tiles, sixteen rows of `a` times sixteen columns of `b` are summed 32
//! inputs after the other. Without one, [`super::multiply`] multiplies the rounded matrices.

use std::cell::RefCell;

use super::{Matrix, Output};
use crate::kernels::Simd;
use crate::kernels::panels::nearest_bf16;
use crate::kernels::simd::{LANES, Lanes, PANELS, Prepared, TILE_BYTES, TILE_TOKENS, Tile, TileSums, Tiles, dispatch};

/// Inputs of a tile.
const INPUTS: usize = TILE_BYTES / 2;
/// Panels of sixteen rows of `a` that are multiplied with all columns before the next ones, so that
/// they stay in the cache of a core.
const BLOCK_PANELS: usize = 16;

thread_local! {
    /// The tiles of both matrices of the product that this thread computes.
    static PACKED: RefCell<[Vec<Tile>; 2]> = RefCell::default();
}

/// Sets or adds `alpha * a * b`, whose shapes fit.
pub(super) fn multiply(simd: Simd, alpha: f32, [a, b]: [Matrix<'_>; 2], to: Output<'_>) {
    let Some(unit) = simd.tiles.filter(|_| a.columns > 0) else {
        let [of_a, of_b] = [a, b].map(|matrix| rounded(simd, matrix));
        return super::multiply(alpha, Matrix { data: &of_a, ..a }, Matrix { data: &of_b, ..b }, to);
    };
    let mut product = Product { alpha, shape: [a.rows, b.columns], steps: a.columns.div_ceil(INPUTS), to };
    PACKED.with_borrow_mut(|[panels, columns]| {
        pack(simd, a, panels, false);
        pack(simd, b.transposed(), columns, true);
        product.compute(unit, panels, columns);
    });
}

/// Returns the floats of a matrix, each rounded.
fn rounded(simd: Simd, matrix: Matrix<'_>) -> Vec<f32> {
    let mut out = matrix.data.to_vec();
    round(simd, &mut out);
    out
}

dispatch! {
    fn round(values: &mut [f32]) = round_body
}

#[inline(always)]
fn round_body<S: Lanes>(_: S, values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = f32::from_bits(u32::from(nearest_bf16(*value)) << 16));
}

/// Packs a matrix as tiles of sixteen rows and 32 inputs, those of the first rows first. The inputs of
/// a row lie together, or, `in_pairs`, each two inputs of all rows.
fn pack(simd: Simd, matrix: Matrix<'_>, tiles: &mut Vec<Tile>, in_pairs: bool) {
    tiles.clear();
    tiles.resize(matrix.rows.div_ceil(TILE_TOKENS) * matrix.columns.div_ceil(INPUTS), [[0; TILE_BYTES]; TILE_TOKENS]);
    pack_tiles(simd, matrix, tiles, in_pairs);
}

dispatch! {
    fn pack_tiles(matrix: Matrix<'_>, tiles: &mut [Tile], in_pairs: bool) = pack_body
}

#[inline(always)]
fn pack_body<S: Lanes>(_: S, matrix: Matrix<'_>, tiles: &mut [Tile], in_pairs: bool) {
    let steps = matrix.columns.div_ceil(INPUTS).max(1);
    for (index, tile) in tiles.iter_mut().enumerate() {
        let mut pairs = block(matrix, index / steps * TILE_TOKENS, index % steps * INPUTS);
        if in_pairs {
            let rows = pairs;
            pairs = std::array::from_fn(|pair| rows.map(|row| row[pair]));
        }
        *tile = bytemuck::must_cast(pairs);
    }
}

/// Two bfloat16, the first in the lower bits.
type Pair = [[u8; 2]; 2];

/// Returns sixteen rows of 32 inputs, with zeros beyond the matrix.
#[inline(always)]
fn block(matrix: Matrix<'_>, row: usize, input: usize) -> [[Pair; INPUTS / 2]; TILE_TOKENS] {
    let mut out = [[[0; 2]; INPUTS]; TILE_TOKENS];
    let (rows, inputs) = ((matrix.rows - row).min(TILE_TOKENS), (matrix.columns - input).min(INPUTS));
    let [of_row, of_input] = matrix.strides;
    let data = &matrix.data[row * of_row + input * of_input..];
    if of_input == 1 {
        for (out, data) in out.iter_mut().take(rows).zip(data.chunks(of_row.max(1))) {
            out.iter_mut().zip(&data[..inputs]).for_each(|(out, value)| *out = nearest_bf16(*value).to_le_bytes());
        }
    } else {
        for input in 0..inputs {
            let data = data[input * of_input..].iter().step_by(of_row.max(1));
            out.iter_mut()
                .take(rows)
                .zip(data)
                .for_each(|(out, value)| out[input] = nearest_bf16(*value).to_le_bytes());
        }
    }
    bytemuck::must_cast(out)
}

/// A product in tiles.
struct Product<'a> {
    alpha: f32,
    /// The rows of `a`, and the columns of `b`.
    shape: [usize; 2],
    /// Tiles of a row.
    steps: usize,
    to: Output<'a>,
}

impl Product<'_> {
    fn compute(&mut self, unit: Tiles, panels: &[Tile], columns: &[Tile]) {
        let unit = unit.prepare(TILE_BYTES);
        for (block, panels) in panels.chunks(BLOCK_PANELS * self.steps).enumerate() {
            for (column, columns) in columns.chunks_exact(self.steps).enumerate() {
                let mut place = [block * BLOCK_PANELS * TILE_TOKENS, column * LANES];
                for panels in panels.chunks(PANELS * self.steps) {
                    if panels.len() == PANELS * self.steps {
                        self.some_panels::<PANELS>(&unit, panels, columns, &mut place);
                    } else {
                        let one = panels.chunks_exact(self.steps);
                        one.for_each(|panel| self.some_panels::<1>(&unit, panel, columns, &mut place));
                    }
                }
            }
        }
    }

    /// Multiplies the next `P` panels with sixteen columns.
    fn some_panels<const P: usize>(
        &mut self,
        unit: &Prepared,
        panels: &[Tile],
        columns: &[Tile],
        place: &mut [usize; 2],
    ) {
        let mut sums: [TileSums<f32>; P] = [[[0.0; LANES]; TILE_TOKENS]; P];
        let panels = std::array::from_fn(|panel| &panels[panel * self.steps..][..self.steps]);
        unit.dot_bf16(columns, panels, &mut sums);
        for sums in sums.as_flattened() {
            if place[0] < self.shape[0] {
                self.write(*place, sums);
            }
            place[0] += 1;
        }
    }

    /// Writes the sums of a row for the columns from `column` on.
    fn write(&mut self, [row, column]: [usize; 2], sums: &[f32; LANES]) {
        let Output { data, stride, beta } = &mut self.to;
        let out = &mut data[row * *stride + column..][..LANES.min(self.shape[1] - column)];
        for (out, sum) in out.iter_mut().zip(sums) {
            // What is replaced may be no number.
            let old = if *beta == 0.0 { 0.0 } else { *beta * *out };
            *out = old + self.alpha * sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, frequency: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * frequency).sin() * 3.0).collect()
    }

    #[test]
    fn products_are_those_of_rounded_matrices() {
        // Shapes within a tile, and across tiles, groups of panels and blocks.
        for [rows, inner, columns] in [[1, 1, 1], [5, 40, 3], [16, 32, 16], [70, 65, 33], [290, 7, 18], [3, 0, 4]] {
            let (wide, a, b) = (inner + 3, noise(rows * (inner + 3), 0.7), noise(inner * columns, 0.3));
            let a_columns: Vec<f32> = (0..inner * rows).map(|i| a[i % rows * wide + i / rows]).collect();
            let b_columns: Vec<f32> = (0..inner * columns).map(|i| b[i % inner * columns + i / inner]).collect();
            let a = [Matrix::new(&a, rows, inner, wide), Matrix::new(&a_columns, inner, rows, rows).transposed()];
            let b =
                [Matrix::new(&b, inner, columns, columns), Matrix::new(&b_columns, columns, inner, inner).transposed()];
            let at = |m: Matrix<'_>, [i, j]: [usize; 2]| {
                f64::from(half::bf16::from_f32(m.data[i * m.strides[0] + j * m.strides[1]]).to_f32())
            };
            for (simd, a, b) in Simd::all().into_iter().flat_map(|simd| [(simd, a[0], b[1]), (simd, a[1], b[0])]) {
                let (mut set, mut add) = (vec![f32::NAN; rows * (columns + 2)], vec![1.0; rows * (columns + 2)]);
                multiply(simd, 2.0, [a, b], Output::set(&mut set, columns + 2));
                multiply(simd, 2.0, [a, b], Output::add(&mut add, columns + 2));
                for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
                    let sum: f64 = (0..inner).map(|k| at(a, [i, k]) * at(b, [k, j])).sum();
                    for (out, expected) in [(&set, 2.0 * sum), (&add, 2.0 * sum + 1.0)] {
                        let error = (f64::from(out[i * (columns + 2) + j]) - expected).abs();
                        assert!(error < 1e-4 * (1.0 + expected.abs()), "{simd:?}, {rows} {inner} {columns}: {error}");
                    }
                }
                assert!(set[columns].is_nan() && add[columns] == 1.0, "{simd:?} wrote between rows");
            }
        }
    }
}
