//! The largest singular values of a matrix and their vectors, by random projection (Halko, Martinsson
//! and Tropp 2011, arXiv 0909.4061).

use nalgebra::DMatrix;
use wsd_core::splitmix64;

/// Columns beyond the wanted rank, which make the projection exact enough.
const OVERSAMPLING: usize = 8;
/// Multiplications with the matrix and its transpose, which separate the values.
const POWER_ITERATIONS: usize = 3;

/// `u * s * v` of rank `k`.
pub(crate) struct Svd {
    /// `(rows, k)`, orthonormal columns.
    pub(crate) u: DMatrix<f32>,
    /// Singular values, the largest first.
    pub(crate) s: Vec<f32>,
    /// `(k, columns)`, orthonormal rows.
    pub(crate) v: DMatrix<f32>,
}

/// Computes the `rank` largest singular values of a matrix, or all if it has fewer.
pub(crate) fn truncated_svd(matrix: &DMatrix<f32>, rank: usize) -> Svd {
    let most = matrix.nrows().min(matrix.ncols());
    let (rank, width) = (rank.min(most), (rank + OVERSAMPLING).min(most));
    let mut state = 0;
    let mut random = || {
        state += 1;
        (splitmix64(state) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut columns = DMatrix::from_fn(matrix.ncols(), width, |_, _| random());
    for _ in 0..POWER_ITERATIONS {
        let rows = (matrix * columns).qr().q();
        columns = matrix.tr_mul(&rows).qr().q();
    }
    // The matrix is about `(matrix * columns) * columns^T`; the first factor is small.
    let small = matrix * &columns;
    let qr = small.qr();
    let svd = qr.r().svd(true, true);
    let (u, v) = (svd.u.unwrap_or_default(), svd.v_t.unwrap_or_default());
    let mut order: Vec<usize> = (0..svd.singular_values.len()).collect();
    order.sort_by(|one, other| svd.singular_values[*other].total_cmp(&svd.singular_values[*one]));
    order.truncate(rank);
    Svd {
        u: qr.q() * u.select_columns(&order),
        s: order.iter().map(|index| svd.singular_values[*index]).collect(),
        v: v.select_rows(&order) * columns.transpose(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_low_rank_is_its_decomposition() {
        let noise =
            |seed: usize| move |row: usize, column: usize| ((row * 31 + column * 17 + seed) as f32 * 12.99).sin();
        let matrix = DMatrix::from_fn(60, 5, noise(1)) * DMatrix::from_fn(5, 40, noise(2));
        let Svd { u, s, v } = truncated_svd(&matrix, 5);
        let again = &u * DMatrix::from_diagonal(&s.clone().into()) * &v;
        assert!((again - &matrix).norm() <= 1e-4 * matrix.norm());
        assert!((u.tr_mul(&u) - DMatrix::identity(5, 5)).norm() < 1e-4);
        assert!((&v * v.transpose() - DMatrix::identity(5, 5)).norm() < 1e-4);
        assert!(s.windows(2).all(|pair| pair[0] >= pair[1]));
        let whole = matrix.clone().svd(false, false).singular_values;
        assert!((whole[0] - s[0]).abs() < 1e-3 * s[0]);
    }

    #[test]
    fn a_rank_beyond_the_matrix_is_all_of_it() {
        let matrix =
            DMatrix::from_fn(6, 9, |row, column| (row as f32 - 2.0) * (column as f32 + 0.5).cos() + row as f32);
        let Svd { u, s, v } = truncated_svd(&matrix, 100);
        assert_eq!([u.shape(), v.shape()], [(6, 6), (6, 9)]);
        let again = &u * DMatrix::from_diagonal(&s.into()) * &v;
        assert!((again - &matrix).norm() <= 1e-4 * matrix.norm());
    }
}
