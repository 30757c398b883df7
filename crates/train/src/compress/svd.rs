//! Truncated singular value decomposition: the product of a rank with the least squared error
//! (Eckart and Young 1936).

use nalgebra::{DMatrix, SymmetricEigen};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use super::{Factored, Factorization, Table};

pub(super) static SVD: Factorization = Factorization {
    name: "svd",
    about: "the product with the least squared error: truncated singular value decomposition",
    needs_texts: false,
    factor: |table, _| svd(table),
};

/// `rows = table * factor` with the first right singular vectors as columns of `factor`.
pub(super) fn svd(table: &Table<'_>) -> Factored {
    let Table { values, width, rank, .. } = *table;
    let factor = right_vectors(values, width, rank);
    let mut rows = vec![0.0; values.len() / width * rank];
    multiply(1.0, Matrix::dense(values, width), Matrix::dense(&factor, rank), Output::set(&mut rows, rank));
    Factored::new(rows, factor)
}

/// The right singular vectors of the largest singular values, `(width, rank)`: eigenvectors of the
/// products of columns, which are few beside the rows.
pub(super) fn right_vectors(values: &[f32], width: usize, rank: usize) -> Vec<f32> {
    let mut products = vec![0.0f32; width * width];
    let matrix = Matrix::dense(values, width);
    multiply(1.0, matrix.transposed(), matrix, Output::set(&mut products, width));
    let products = DMatrix::from_iterator(width, width, products.into_iter().map(f64::from));
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(products);
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|one, other| eigenvalues[*other].total_cmp(&eigenvalues[*one]));
    let places = (0..width).flat_map(|row| order[..rank].iter().map(move |column| (row, *column)));
    places.map(|place| eigenvectors[place] as f32).collect()
}
