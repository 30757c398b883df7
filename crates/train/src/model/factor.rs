//! The second factor of a table of the vocabulary, between its rank and the width of the model, and
//! the rows that kept tokens have beside the product.

use std::ops::Range;

use wsd_nn::arch::{Blueprint, EMBEDDING_FACTOR, EMBEDDING_KEPT, HEAD_FACTOR, HEAD_KEPT};
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
    kept: Option<Kept>,
}

/// Rows `(tokens, hidden)` that are added to those of some tokens.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    tokens: Vec<u32>,
    range: Range<usize>,
    hidden: usize,
    trained: bool,
}

impl Factor {
    /// The factor of the embedding, if it has one.
    pub(super) fn of_embedding(blueprint: &Blueprint, layout: &Layout, trained: &dyn Fn(&str) -> bool) -> Option<Self> {
        let rank = blueprint.factors.embedding?;
        let kept = Kept::new(EMBEDDING_KEPT, blueprint, layout, trained);
        let factor = Self::new((EMBEDDING_FACTOR, rank, false), blueprint, layout, trained)?;
        Some(Self { kept, ..factor })
    }

    /// The factor of the vocabulary head, if it has one; that of the embedding for a tied head.
    pub(super) fn of_head(blueprint: &Blueprint, layout: &Layout, trained: &dyn Fn(&str) -> bool) -> Option<Self> {
        if blueprint.tied {
            return Self::of_embedding(blueprint, layout, trained);
        }
        let rank = blueprint.factors.head?;
        let kept = Kept::new(HEAD_KEPT, blueprint, layout, trained);
        let factor = Self::new((HEAD_FACTOR, rank, true), blueprint, layout, trained)?;
        Some(Self { kept, ..factor })
    }

    fn new(
        (name, rank, is_transposed): (&str, usize, bool),
        blueprint: &Blueprint,
        layout: &Layout,
        trained: &dyn Fn(&str) -> bool,
    ) -> Option<Self> {
        let range = layout.get(name)?.range.clone();
        Some(Self { range, hidden: blueprint.hidden, rank, is_transposed, trained: trained(name), kept: None })
    }

    /// The rows of kept tokens.
    pub(super) fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
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

impl Kept {
    fn new(name: &str, blueprint: &Blueprint, layout: &Layout, trained: &dyn Fn(&str) -> bool) -> Option<Self> {
        let (tokens, range) = (blueprint.factors.kept.clone(), layout.get(name)?.range.clone());
        Some(Self { tokens, range, hidden: blueprint.hidden, trained: trained(name) })
    }

    /// The rows of tokens among those that a table of `x`, `(tokens, hidden)`, is for.
    fn rows_of<'t>(&'t self, tokens: &'t [u32]) -> impl Iterator<Item = (usize, Range<usize>)> + 't {
        let own = |token: &u32| self.tokens.binary_search(token).ok().map(|row| row * self.hidden);
        let places = tokens.iter().map(own).enumerate();
        places.filter_map(|(place, start)| Some((place * self.hidden, start?..start? + self.hidden)))
    }

    /// Adds the rows of tokens to their embeddings `x`, `(tokens, hidden)`.
    pub(super) fn embed(&self, weights: &[f32], tokens: &[u32], x: &mut [f32]) {
        let rows = &weights[self.range.clone()];
        for (place, row) in self.rows_of(tokens) {
            add_to(&mut x[place..place + self.hidden], &rows[row]);
        }
    }

    /// Adds the gradient of the rows, given that of the embeddings `x`, `(tokens, hidden)`.
    pub(super) fn embed_backward(&self, gradient: &mut [f32], tokens: &[u32], x: &[f32]) {
        if !self.trained {
            return;
        }
        let rows = &mut gradient[self.range.clone()];
        for (place, row) in self.rows_of(tokens) {
            add_to(&mut rows[row], &x[place..place + self.hidden]);
        }
    }

    /// Adds what the rows give for `states`, `(rows, hidden)`, times `scale`, to the logits of their
    /// tokens, `(rows, vocab)`.
    pub(super) fn logits(&self, weights: &[f32], scale: f32, states: &[f32], logits: &mut [f32]) {
        let (count, targets) = (self.tokens.len(), states.len() / self.hidden);
        let mut own = vec![0.0; targets * count];
        let rows = Matrix::dense(&weights[self.range.clone()], self.hidden);
        multiply(scale, Matrix::dense(states, self.hidden), rows.transposed(), Output::set(&mut own, count));
        for (logits, own) in logits.chunks_exact_mut(logits.len() / targets.max(1)).zip(own.chunks_exact(count)) {
            self.tokens.iter().zip(own).for_each(|(token, own)| logits[*token as usize] += own);
        }
    }

    /// Adds the gradients of the rows and of `states`, the latter to `to`, given that of the logits.
    pub(super) fn logits_backward(
        &self,
        (weights, gradient): (&[f32], &mut [f32]),
        scale: f32,
        (states, logits): (&[f32], &[f32]),
        to: &mut [f32],
    ) {
        let (count, targets) = (self.tokens.len(), states.len() / self.hidden);
        let picked = |logits: &[f32]| self.tokens.iter().map(|token| logits[*token as usize]).collect::<Vec<_>>();
        let own: Vec<f32> = logits.chunks_exact(logits.len() / targets.max(1)).flat_map(picked).collect();
        let (own, rows) = (Matrix::dense(&own, count), Matrix::dense(&weights[self.range.clone()], self.hidden));
        if self.trained {
            let to = Output::add(&mut gradient[self.range.clone()], self.hidden);
            multiply(scale, own.transposed(), Matrix::dense(states, self.hidden), to);
        }
        multiply(scale, own, rows, Output::add(to, self.hidden));
    }
}

fn add_to(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}
