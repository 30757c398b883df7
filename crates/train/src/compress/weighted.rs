//! Singular value decomposition in the metric of texts: rows weigh as much as their tokens occur
//! (arXiv 1806.06950), and errors in directions that hidden states take weigh most (DRONE, Chen and
//! others 2021).
//!
//! For rows `E`, counts `c` and the second moment `C` of a head's inputs, the product has the least sum
//! over rows `v` of `(c_v + 1/2) |(E_v - E'_v) M|^2` with `M M = C + I / 10`: the first part is the error
//! of logits, the second that of an embedding. Rows stay what they are where nothing is cut off.

use nalgebra::{DMatrix, SymmetricEigen};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use super::svd::right_vectors;
use super::{Factored, Factorization, Table};

pub(super) static WEIGHTED: Factorization = Factorization {
    name: "weighted",
    about: "singular vectors in the metric of texts: frequent tokens and the directions of hidden states \
            weigh most (arXiv 1806.06950); needs texts",
    needs_texts: true,
    factor: |table, _| weighted(table),
};

/// The addition to the count of each token, so that none is free.
const UNSEEN: f64 = 0.5;
/// The share of the identity in the metric, beside the second moment's.
const IDENTITY: f64 = 0.1;

fn weighted(table: &Table<'_>) -> Factored {
    let Table { values, width, rank, counts, moment, .. } = *table;
    let [root, inverse] = roots(moment, width);
    let times = |left: &[f32], inner: usize, right: &[f32], columns: usize| {
        let mut out = vec![0.0; left.len() / inner * columns];
        multiply(1.0, Matrix::dense(left, inner), Matrix::dense(right, columns), Output::set(&mut out, columns));
        out
    };
    let turned = times(values, width, &root, width);
    let mut weighed = turned.clone();
    for (row, values) in weighed.chunks_exact_mut(width).enumerate() {
        let weight = (counts.get(row).map_or(0.0, |count| *count as f64) + UNSEEN).sqrt() as f32;
        values.iter_mut().for_each(|value| *value *= weight);
    }
    let vectors = right_vectors(&weighed, width, rank);
    Factored::new(times(&turned, width, &vectors, rank), times(&inverse, width, &vectors, rank))
}

/// The root of the metric of a second moment, or of the identity where there is none, and its inverse.
fn roots(moment: &[f32], width: usize) -> [Vec<f32>; 2] {
    if moment.is_empty() {
        let identity: Vec<f32> = DMatrix::identity(width, width).iter().copied().collect();
        return [identity.clone(), identity];
    }
    let moment = DMatrix::from_iterator(width, width, moment.iter().map(|value| f64::from(*value)));
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(moment);
    [0.5, -0.5].map(|power| {
        let mut scaled = eigenvectors.clone();
        for (mut column, value) in scaled.column_iter_mut().zip(&eigenvalues) {
            column *= (value.max(0.0) + IDENTITY).powf(power);
        }
        (scaled * eigenvectors.transpose()).iter().map(|value| *value as f32).collect()
    })
}
