//! The second factor of a table of the vocabulary, between its rank and the width of the model.

use std::ops::Range;

use wsd_nn::arch::{Blueprint, EMBEDDING_FACTOR, HEAD_FACTOR};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use crate::layout::Layout;

/// A matrix between the rank of a table and the width of the model.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    range: Range<usize>,
    hidden: usize,
    pub(super) rank: usize,
    /// It lies as `(rank, hidden)`, not as `(hidden, rank)`.
    is_transposed: bool,
    /// True where it changes.
    trained: bool,
}

impl Factor {
    /// The factor of the embedding, if it has one.
    pub(super) fn of_embedding(blueprint: &Blueprint, layout: &Layout, trained: &dyn Fn(&str) -> bool) -> Option<Self> {
        let rank = blueprint.factors.embedding?;
        Self::new((EMBEDDING_FACTOR, rank, false), blueprint, layout, trained)
    }

    /// The factor of the vocabulary head, if it has one; that of the embedding for a tied head.
    pub(super) fn of_head(blueprint: &Blueprint, layout: &Layout, trained: &dyn Fn(&str) -> bool) -> Option<Self> {
        if blueprint.tied {
            return Self::of_embedding(blueprint, layout, trained);
        }
        let rank = blueprint.factors.head?;
        Self::new((HEAD_FACTOR, rank, true), blueprint, layout, trained)
    }

    fn new(
        (name, rank, is_transposed): (&str, usize, bool),
        blueprint: &Blueprint,
        layout: &Layout,
        trained: &dyn Fn(&str) -> bool,
    ) -> Option<Self> {
        let range = layout.get(name)?.range.clone();
        Some(Self { range, hidden: blueprint.hidden, rank, is_transposed, trained: trained(name) })
    }

    /// The matrix, `(hidden, rank)`.
    fn matrix<'w>(&self, weights: &'w [f32]) -> Matrix<'w> {
        let data = &weights[self.range.clone()];
        if self.is_transposed { Matrix::dense(data, self.hidden).transposed() } else { Matrix::dense(data, self.rank) }
    }

    /// Sets `out`, `(rows, rank)`, to vectors `(rows, hidden)` times the matrix.
    pub(super) fn narrow(&self, weights: &[f32], wide: &[f32], out: &mut [f32]) {
        multiply(1.0, Matrix::dense(wide, self.hidden), self.matrix(weights), Output::set(out, self.rank));
    }

    /// Sets `out`, `(rows, hidden)`, to vectors `(rows, rank)` times the transposed matrix.
    pub(super) fn widen(&self, weights: &[f32], narrow: &[f32], out: &mut [f32]) {
        let matrix = self.matrix(weights).transposed();
        multiply(1.0, Matrix::dense(narrow, self.rank), matrix, Output::set(out, self.hidden));
    }

    /// Adds the gradient of the matrix: the sum of products of `wide`, `(rows, hidden)`, and `narrow`,
    /// `(rows, rank)`, of which one is an input and the other the gradient of the output.
    pub(super) fn add_gradient(&self, gradient: &mut [f32], wide: &[f32], narrow: &[f32]) {
        if !self.trained {
            return;
        }
        let (wide, narrow) = (Matrix::dense(wide, self.hidden), Matrix::dense(narrow, self.rank));
        let gradient = &mut gradient[self.range.clone()];
        let (rows, columns, stride) =
            if self.is_transposed { (narrow, wide, self.hidden) } else { (wide, narrow, self.rank) };
        multiply(1.0, rows.transposed(), columns, Output::add(gradient, stride));
    }
}
