//! The feed-forward part of a layer: one expert, or a mixture of several.

use super::layer::FLOATS_PER_PIECE;
use super::linear::{self, Activations, Linear};
use crate::activation::Activation;
use crate::arch::{Expert, Experts, Share};
use crate::kernels::{self, Workers};

/// Buffers of the feed-forward part.
#[derive(Default)]
pub(super) struct ExpertScratch {
    gate: Vec<f32>,
    up: Vec<f32>,
    /// Router outputs, `(tokens, experts)`.
    ratings: Vec<f32>,
    /// The inputs of the tokens of one expert, and its outputs.
    gathered: Vec<f32>,
    written: Vec<f32>,
}

impl Expert<Linear> {
    /// Maps `(tokens, hidden)` to `(tokens, hidden)`, from `input` into `out`.
    pub(super) fn apply(
        &self,
        workers: &Workers<'_>,
        activation: Activation,
        (scratch, activations): (&mut ExpertScratch, &mut Activations),
        (input, out): (&[f32], &mut Vec<f32>),
    ) {
        let ExpertScratch { gate, up, .. } = scratch;
        let simd = workers.simd();
        if let Some(gate_linear) = &self.gate {
            linear::apply(workers, input, activations, [(gate_linear, &mut *gate), (&self.up, &mut *up)]);
            workers.chunks(gate, FLOATS_PER_PIECE, 1, |index, gate| {
                let up = &up[index * FLOATS_PER_PIECE..][..gate.len()];
                kernels::gate(simd, gate, up, activation);
            });
        } else {
            linear::apply(workers, input, activations, [(&self.up, &mut *gate)]);
            workers.chunks(gate, FLOATS_PER_PIECE, 1, |_, gate| kernels::activate(simd, gate, activation));
        }
        linear::apply(workers, gate, activations, [(&self.down, out)]);
    }
}

/// A mixture of experts.
pub(super) struct Mixture<'a> {
    pub(super) experts: &'a [Expert<Linear>],
    pub(super) router: &'a Linear,
    pub(super) plan: Experts,
    pub(super) activation: Activation,
    /// The width of the residual stream.
    pub(super) hidden: usize,
}

impl Mixture<'_> {
    /// Computes the weighted sum of each token's experts into `out`, in the order of the experts, so
    /// that it does not depend on the other tokens.
    pub(super) fn apply(
        &self,
        workers: &Workers<'_>,
        input: &[f32],
        (scratch, activations): (&mut ExpertScratch, &mut Activations),
        out: &mut Vec<f32>,
    ) {
        linear::apply(workers, input, activations, [(self.router, &mut scratch.ratings)]);
        out.clear();
        out.resize(input.len(), 0.0);
        let shares = self.plan.shares(&scratch.ratings);
        for (expert, shares) in self.experts.iter().zip(shares).filter(|(_, shares)| !shares.is_empty()) {
            let (mut gathered, mut written) =
                (std::mem::take(&mut scratch.gathered), std::mem::take(&mut scratch.written));
            gathered.clear();
            for share in &shares {
                gathered.extend_from_slice(&input[share.token * self.hidden..][..self.hidden]);
            }
            let buffers = (&mut *scratch, &mut *activations);
            expert.apply(workers, self.activation, buffers, (&gathered, &mut written));
            for (Share { token, weight }, row) in shares.into_iter().zip(written.chunks_exact(self.hidden)) {
                let out = &mut out[token * self.hidden..][..self.hidden];
                out.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
            }
            (scratch.gathered, scratch.written) = (gathered, written);
        }
    }
}
