//! A decoder on a device with the inputs of a shard, and the embeddings of these.

use std::ops::Range;

use wsd_nn::gpu::{Arithmetic, Array, Element, Operand, View};

use super::inputs::{self, InputViews};
use super::mirror::Mirror;
use crate::error::Result;
use crate::model::decoder::Decoder;
use crate::model::shard::{Shard, Span};

/// A decoder on the device and the inputs of a shard.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) arithmetic: &'a Arithmetic,
    pub(super) decoder: &'a Decoder,
    pub(super) weights: &'a Mirror,
    /// The parameters of low-rank changes; `None` for the reference, which is without them.
    pub(super) parameters: Option<View<'a, Operand>>,
    /// The gradient, to be added to.
    pub(super) gradient: View<'a, f32>,
    pub(super) spans: &'a [Span],
    pub(super) inputs: InputViews<'a>,
}

impl<'a> Run<'a> {
    /// Room for a row of this width for each token.
    pub(super) fn sized<'s, T: Element>(&self, array: &'s mut Array<T>, width: usize) -> Result<View<'s, T>> {
        Ok(self.arithmetic.sized(array, self.tokens() * width)?)
    }

    /// The rows of this width of all tokens.
    pub(super) fn rows<'s, T: Element>(&self, array: &'s Array<T>, width: usize) -> View<'s, T> {
        array.view().part(0..self.tokens() * width)
    }

    pub(super) fn tokens(&self) -> usize {
        self.inputs.tokens.len()
    }

    /// The gradient of a vector or matrix; `None` where it does not change.
    pub(super) fn gradient_of(&self, range: &Range<usize>) -> Option<View<'a, f32>> {
        (!range.is_empty()).then(|| self.gradient.part(range.clone()))
    }

    /// Sets `x` to the embeddings of the tokens.
    pub(super) fn embed(&self, x: View<'_, f32>) -> Result<()> {
        let Decoder { blueprint, embedding, positions, .. } = self.decoder;
        let table = self.weights.matrix(embedding);
        self.arithmetic.lookup(table, self.inputs.tokens, blueprint.embedding_scale, x)?;
        if let Some(positions) = positions {
            self.arithmetic.add_rows(self.weights.vector(&positions.range), self.inputs.positions, x)?;
        }
        Ok(())
    }

    /// Adds the gradients of the embeddings, given that of their output.
    pub(super) fn embed_backward(&self, shard: &Shard, gradients: View<'_, f32>) -> Result<()> {
        let Decoder { blueprint, embedding, positions, trains_embedding, .. } = self.decoder;
        let hidden = blueprint.hidden;
        if let Some(to) = positions.as_ref().and_then(|positions| self.gradient_of(&positions.gradient)) {
            let positions = shard.spans.iter().flat_map(|span| 0..span.rows.len());
            inputs::add_at(self.arithmetic, gradients, positions, (hidden, 1.0), to)?;
        }
        if *trains_embedding {
            let (tokens, to) =
                (shard.tokens.iter().map(|token| *token as usize), self.gradient.part(embedding.clone()));
            inputs::add_at(self.arithmetic, gradients, tokens, (hidden, blueprint.embedding_scale), to)?;
        }
        Ok(())
    }
}
