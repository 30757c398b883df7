//! The parts of a decoder that all threads share, and the description of one pass over it.

use std::ops::Range;

use wsd_nn::arch::Blueprint;
use wsd_nn::kernels::Simd;
use wsd_nn::kernels::dense::Precision;

use super::factor::{Factor, Kept};
use super::logits::Table;
use super::norm::{NormPlace, NormRun};
use super::places::{LayerPlaces, Read};
use super::rotary::RotaryTable;
use super::vector::Vector;
use crate::example::Example;
use crate::layout::Layout;
use crate::objectives::{Loss, Needs, Totals};

/// The read-only parts that all threads share.
pub(super) struct Decoder {
    pub(super) blueprint: Blueprint,
    pub(super) simd: Simd,
    /// The embedding; its rows are of the rank of the factor, if there is one.
    pub(super) embedding: Range<usize>,
    pub(super) embedding_factor: Option<Factor>,
    /// The embedding of positions, `(positions, hidden)`.
    pub(super) positions: Option<Vector>,
    pub(super) vocabulary: Projection,
    pub(super) reward: Projection,
    pub(super) final_norm: NormPlace,
    pub(super) layers: Vec<LayerPlaces>,
    /// Per rotary embedding of the blueprint, for short and for long sequences.
    pub(super) rotary: Vec<[RotaryTable; 2]>,
    /// Only the inputs of layers are kept for the backward pass, which computes the rest again.
    pub(super) recompute: bool,
    /// The precision of products with the matrices of heads.
    pub(super) precision: Precision,
    pub(super) trains_embedding: bool,
}

/// A decoder and its tensors.
pub(super) struct Model {
    pub(super) decoder: Decoder,
    pub(super) layout: Layout,
    /// The indexes of the tensors that change as a whole ([`Trained::Whole`](crate::Trained::Whole)).
    pub(super) changing: Vec<usize>,
}

/// The decoders of a pass.
#[derive(Clone, Copy)]
pub(super) struct Decoders<'a> {
    pub(super) model: &'a Model,
    pub(super) reference: &'a Model,
}

/// A head: a matrix on the normed final states.
pub(super) struct Projection {
    /// The matrix, `(outputs, hidden)`, or `(outputs, rank)` with a factor; empty where the model lacks
    /// the head.
    pub(super) matrix: Range<usize>,
    pub(super) factor: Option<Factor>,
    pub(super) outputs: usize,
    /// Factor on the outputs.
    pub(super) scale: f32,
    /// Soft limit of the outputs.
    pub(super) cap: Option<f32>,
    /// True where the matrix changes.
    pub(super) trained: bool,
}

/// A batch and its loss.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The model's weights.
    pub weights: &'a [f32],
    /// The parameters that low-rank changes consist of; empty without such changes.
    pub parameters: &'a [f32],
    /// The frozen reference model's weights; read for [`Needs::RowsAndReference`] only.
    pub reference: &'a [f32],
    /// The examples.
    pub examples: &'a [&'a Example],
    /// The counts over all examples of the step, of which this batch may be a part.
    pub totals: Totals,
    /// The loss.
    pub loss: &'a dyn Loss,
    /// The numbers that the loss needs.
    pub needs: Needs,
    /// A factor on the gradient, the objective's weight in the run.
    pub weight: f32,
}

impl Pass<'_> {
    /// The numbers that the backward pass of a layer reads.
    pub(super) fn read(&self) -> Read<'_> {
        Read { weights: self.weights, parameters: self.parameters }
    }
}

impl Projection {
    /// The rows of kept tokens.
    pub(super) fn kept(&self) -> Option<&Kept> {
        self.factor.as_ref()?.kept()
    }

    /// The matrix and the factors on its outputs.
    pub(super) fn table<'w>(&self, weights: &'w [f32], decoder: &Decoder) -> Table<'w> {
        let inputs = self.factor.as_ref().map_or(decoder.blueprint.hidden, |factor| factor.rank);
        let (matrix, precision) = (&weights[self.matrix.clone()], decoder.precision);
        Table { matrix, inputs, scale: self.scale, cap: self.cap, precision }
    }
}

impl Decoder {
    /// The head that gives the numbers.
    pub(super) fn projection(&self, needs: Needs) -> &Projection {
        if needs == Needs::Rewards { &self.reward } else { &self.vocabulary }
    }

    /// The norm whose weights lie at `place`.
    pub(super) fn norm<'w>(&'w self, weights: &'w [f32], place: &'w NormPlace) -> NormRun<'w> {
        NormRun { simd: self.simd, norms: &self.blueprint.norms, weights, place }
    }
}
