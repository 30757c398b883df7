//! A GPU that computes passes, by the operations of [`wsd_nn::gpu`].
//!
//! What is multiplied is an operand, in bfloat16 or float; all sums are floats: the residual stream,
//! gradients, and the master weights, which stay with the optimizer on the host. Weights that change
//! are copied to the device at the beginning of a pass, and the gradient is read at its end.

mod attention;
mod head;
mod inputs;
mod layer;
mod linear;
mod memory;
mod mirror;
mod norm;
mod run;

use std::ops::Range;

use wsd_nn::arch::Blueprint;
use wsd_nn::gpu::{Arithmetic, Array, Operand, View};

use self::head::Head;
use self::inputs::Inputs;
use self::layer::{Activations, Layer, Scratch};
use self::memory::SHARD_TOKENS;
use self::mirror::Mirror;
use self::run::Run;
use super::decoder::{Decoders, Pass};
use super::shard::{self, Network, Shard, Side, shards};
use crate::error::Result;
use crate::objectives::{LossOutput, Needs};

/// Refuses a model with a part that has no backward pass on a GPU.
///
/// # Errors
/// [`wsd_nn::Error::DeviceLacks`] with the part.
pub(super) fn refuse_missing(arithmetic: &Arithmetic, blueprint: &Blueprint) -> Result<()> {
    let factors = &blueprint.factors;
    let properties = [
        (blueprint.experts.is_some(), "a mixture of experts, which is trained on the CPU only"),
        (blueprint.sinks, "attention sinks, which are trained on the CPU only"),
        (factors.embedding.or(factors.head).is_some(), "factored tables, which are trained on the CPU only"),
    ];
    match properties.into_iter().find(|(is_there, _)| *is_there) {
        Some((_, property)) => {
            Err(wsd_nn::Error::DeviceLacks { device: arithmetic.name().to_owned(), property }.into())
        }
        None => Ok(()),
    }
}

/// A GPU with the weights of a model, and the buffers to differentiate it.
pub(super) struct Gpu {
    arithmetic: Arithmetic,
    model: Mirror,
    reference: Mirror,
    /// The parameters of low-rank changes.
    parameters: Array<Operand>,
    gradient: Array<f32>,
    buffers: Buffers,
}

/// Buffers of a shard, reused from shard to shard.
#[derive(Default)]
struct Buffers {
    inputs: Inputs,
    /// The input of each layer, and the output of the last.
    states: Vec<Array<f32>>,
    /// Activations of each layer; a single entry if they are not kept for the backward pass.
    activations: Vec<Activations>,
    /// The gradient with respect to the residual stream, `(tokens, hidden)`.
    gradients: Array<f32>,
    scratch: Scratch,
    head: Head,
}

impl Gpu {
    pub(super) fn new(arithmetic: Arithmetic) -> Self {
        let (model, reference) = (Mirror::default(), Mirror::default());
        let (parameters, gradient, buffers) = (Array::default(), Array::default(), Buffers::default());
        Self { arithmetic, model, reference, parameters, gradient, buffers }
    }

    pub(super) fn arithmetic(&self) -> &Arithmetic {
        &self.arithmetic
    }

    /// Checks that there is memory for passes of these needs, where an example and a sequence have at
    /// most `longest` tokens. Returns the bytes.
    pub(super) fn require_memory(&self, decoders: Decoders<'_>, needs: &[Needs], longest: [usize; 2]) -> Result<usize> {
        let bytes = memory::bytes(self.arithmetic.compute(), decoders, needs, longest);
        // Later a part of them is in use.
        if !self.model.is_loaded() {
            self.arithmetic.require(bytes)?;
        }
        Ok(bytes)
    }

    /// Copies the reference's weights again in the next pass that reads them.
    pub(super) fn forget_reference(&mut self) {
        self.reference = Mirror::default();
    }

    /// Computes the loss of each example, and sets a `gradient` to that of their sum.
    pub(super) fn pass(
        &mut self,
        decoders: Decoders<'_>,
        pass: &Pass<'_>,
        gradient: Option<&mut [f32]>,
    ) -> Result<Vec<LossOutput>> {
        let Self { arithmetic, model, reference, parameters, .. } = self;
        model.load(arithmetic, decoders.model, pass.weights)?;
        if pass.needs == Needs::RowsAndReference && !reference.is_loaded() {
            reference.load(arithmetic, decoders.reference, pass.reference)?;
        }
        let parameters = arithmetic.sized(parameters, pass.parameters.len())?;
        arithmetic.write_operands(parameters, pass.parameters)?;
        let len = gradient.as_ref().map_or(0, |gradient| gradient.len());
        arithmetic.zero(arithmetic.sized(&mut self.gradient, len)?)?;
        let mut outputs = Vec::with_capacity(pass.examples.len());
        for examples in shards(pass.examples, SHARD_TOKENS) {
            let pass = Pass { examples, ..*pass };
            let needs_gradient = gradient.is_some();
            let mut run = GpuRun { gpu: &mut *self, decoders, pass: &pass, needs_gradient };
            outputs.extend(shard::run(&mut run, &decoders.model.decoder, &pass, needs_gradient)?);
        }
        if let Some(gradient) = gradient {
            self.gradient.view().read(gradient)?;
        }
        Ok(outputs)
    }
}

/// A GPU on the decoders of a pass.
pub(super) struct GpuRun<'a> {
    gpu: &'a mut Gpu,
    decoders: Decoders<'a>,
    pass: &'a Pass<'a>,
    needs_gradient: bool,
}

impl Network for GpuRun<'_> {
    fn forward(&mut self, shard: &Shard, side: Side) -> Result<()> {
        let Gpu { arithmetic, model, reference, parameters, buffers, .. } = &mut *self.gpu;
        let (of, weights) = match side {
            Side::Model => (self.decoders.model, &*model),
            Side::Reference => (self.decoders.reference, &*reference),
        };
        let decoder = &of.decoder;
        let Buffers { inputs, states, activations, scratch, head, .. } = buffers;
        let run = Run {
            arithmetic,
            decoder,
            weights,
            parameters: (side == Side::Model).then(|| parameters.view()),
            gradient: View::default(),
            spans: &shard.spans,
            inputs: inputs.upload(arithmetic, decoder, shard)?,
        };
        let layers = decoder.layers.len();
        states.resize_with(layers + 1, Array::default);
        let kept = if self.needs_gradient && !decoder.recompute { layers.max(1) } else { 1 };
        activations.resize_with(kept, Activations::default);
        let hidden = decoder.blueprint.hidden;
        states.iter_mut().try_for_each(|state| run.sized(state, hidden).map(drop))?;
        run.embed(run.rows(&states[0], hidden))?;
        for index in 0..layers {
            let [x, out] = [index, index + 1].map(|index| run.rows(&states[index], hidden));
            Layer::new(run, index).forward(x, &mut activations[index % kept], out, scratch)?;
        }
        head.forward(run, &shard.targets, run.rows(&states[layers], hidden), (self.pass.needs, self.needs_gradient))
    }

    fn numbers(&self, targets: Range<usize>, width: usize) -> &[f32] {
        &self.gpu.buffers.head.numbers[targets.start * width..targets.end * width]
    }

    fn take_rows(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.gpu.buffers.head.numbers)
    }

    fn pull_back(&mut self, targets: Range<usize>, given: &[f32]) -> Result<()> {
        let width = given.len() / targets.len().max(1);
        self.gpu.buffers.head.give(&self.gpu.arithmetic, targets.start * width, given)
    }

    fn backward(&mut self, shard: &Shard) -> Result<()> {
        let Gpu { arithmetic, model, parameters, gradient, buffers, .. } = &mut *self.gpu;
        let decoder = &self.decoders.model.decoder;
        let Buffers { inputs, states, activations, gradients, scratch, head } = buffers;
        let run = Run {
            arithmetic,
            decoder,
            weights: model,
            parameters: Some(parameters.view()),
            gradient: gradient.view(),
            spans: &shard.spans,
            inputs: inputs.views(shard),
        };
        let hidden = decoder.blueprint.hidden;
        let gradients = run.sized(gradients, hidden)?;
        head.backward(run, gradients)?;
        for index in (0..decoder.layers.len()).rev() {
            let (layer, own) = (Layer::new(run, index), index % activations.len());
            let [x, out] = [index, index + 1].map(|index| run.rows(&states[index], hidden));
            let kept = &mut activations[own];
            if decoder.recompute {
                layer.forward(x, kept, out, scratch)?;
            }
            layer.backward(x, kept, gradients, scratch)?;
        }
        run.embed_backward(shard, gradients)
    }
}
