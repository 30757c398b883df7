//! Matrices as slices of their rows.

/// A matrix of rows of `columns` values with rows and columns exchanged.
pub(crate) fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns).copied()).collect()
}
