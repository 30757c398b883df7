//! One feed-forward part, forward and backward.

use wsd_nn::arch::Blueprint;
use wsd_nn::kernels::Simd;
use wsd_nn::kernels::elementwise::{activate, activate_backward, gate, gate_backward};

use super::buffer::sized;
use super::places::{ExpertPlaces, Read};

/// Activations saved for the backward pass: a row for each passage of a token through an expert,
/// expert after expert.
#[derive(Default)]
pub(super) struct Passages {
    /// Outputs of the router, `(tokens, experts)`; empty without one.
    pub(super) ratings: Vec<f32>,
    pub(super) gates: Vec<f32>,
    pub(super) gated: Vec<f32>,
    /// Outputs of the experts; empty without a router.
    pub(super) written: Vec<f32>,
}

/// The rows of passages through one expert.
pub(super) struct Rows<'a> {
    /// Outputs of gates and ups.
    pub(super) gates: &'a mut [f32],
    /// The inputs of `down`.
    pub(super) gated: &'a mut [f32],
}

/// A feed-forward part with its weights.
#[derive(Clone, Copy)]
pub(super) struct ExpertRun<'a> {
    pub(super) simd: Simd,
    pub(super) blueprint: &'a Blueprint,
    pub(super) places: &'a ExpertPlaces,
    pub(super) read: Read<'a>,
}

impl ExpertRun<'_> {
    /// Sets `out` to the outputs for `input`, and the rows to what the backward pass reads.
    pub(super) fn forward(&self, input: &[f32], Rows { gates, gated }: Rows<'_>, out: &mut [f32]) {
        let (Blueprint { ffn, activation, .. }, weights) = (self.blueprint, self.read.weights);
        self.places.gates.forward(weights, input, gates);
        if self.blueprint.gated {
            gate(self.simd, gated, gates, *ffn, *activation);
        } else {
            activate(self.simd, gated, gates, *activation);
        }
        self.places.down.forward(weights, gated, out);
    }

    /// Adds the gradients of the weights and sets those of the `input`, given those of the `output`.
    /// Overwrites the gates.
    pub(super) fn backward(
        &self,
        (input, output): (&[f32], &[f32]),
        (Rows { gates, gated }, wide): (Rows<'_>, &mut Vec<f32>),
        (gradient, input_gradients): (&mut [f32], &mut [f32]),
    ) {
        let Blueprint { ffn, activation, .. } = self.blueprint;
        let gated_gradients = sized(wide, gated.len());
        self.places.down.backward(self.read, gradient, (gated, output), gated_gradients);
        if self.blueprint.gated {
            gate_backward(self.simd, gates, gated_gradients, *ffn, *activation);
        } else {
            activate_backward(self.simd, gates, gated_gradients, *activation);
        }
        self.places.gates.backward(self.read, gradient, (input, gates), input_gradients);
    }
}
