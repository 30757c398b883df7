//! The feed-forward part of a layer, forward and backward: one expert, or a mixture of several.

use super::buffer::sized;
use super::decoder::Decoder;
use super::expert::{ExpertRun, Passages, Rows};
use super::mixture::{Mixture, MixtureScratch};
use super::places::Read;

/// Buffers that all layers share.
#[derive(Default)]
pub(super) struct FeedForwardScratch {
    /// Rows of the width of the feed-forward part.
    wide: Vec<f32>,
    mixture: MixtureScratch,
}

/// The feed-forward part of a layer with its weights.
pub(super) enum FeedForward<'a> {
    Dense(ExpertRun<'a>),
    Mixture(Mixture<'a>),
}

impl<'a> FeedForward<'a> {
    /// The part of the layer of this index.
    pub(super) fn new(decoder: &'a Decoder, index: usize, read: Read<'a>) -> Self {
        let (simd, blueprint, places) = (decoder.simd, &decoder.blueprint, &decoder.layers[index]);
        let first = ExpertRun { simd, blueprint, places: &places.experts[0], read };
        match (&places.router, blueprint.experts) {
            (Some(router), Some(plan)) => Self::Mixture(Mixture { first, router, plan, experts: &places.experts }),
            _ => Self::Dense(first),
        }
    }

    /// Sets `out` to the outputs for `input`, `(tokens, hidden)`.
    pub(super) fn forward(
        &self,
        input: &[f32],
        kept: &mut Passages,
        out: &mut [f32],
        scratch: &mut FeedForwardScratch,
    ) {
        match self {
            Self::Mixture(mixture) => mixture.forward(input, kept, out, &mut scratch.mixture),
            Self::Dense(expert) => {
                let tokens = input.len() / expert.blueprint.hidden;
                let gates = sized(&mut kept.gates, tokens * expert.places.gates.outputs);
                let gated = sized(&mut kept.gated, tokens * expert.blueprint.ffn);
                expert.forward(input, Rows { gates, gated }, out);
            }
        }
    }

    /// Adds the gradients of the weights and sets those of the `input`, given those of the `output`.
    /// Overwrites parts of `kept`.
    pub(super) fn backward(
        &self,
        given: (&[f32], &[f32]),
        kept: &mut Passages,
        to: (&mut [f32], &mut [f32]),
        scratch: &mut FeedForwardScratch,
    ) {
        let FeedForwardScratch { wide, mixture: own } = scratch;
        match self {
            Self::Mixture(mixture) => mixture.backward(given, kept, to, (own, wide)),
            Self::Dense(expert) => {
                let rows = Rows { gates: &mut kept.gates, gated: &mut kept.gated };
                expert.backward(given, (rows, wide), to);
            }
        }
    }
}
