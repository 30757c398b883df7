//! A thread of the CPU, with its buffers.

use std::ops::Range;

use super::buffer::sized;
use super::decoder::{Decoder, Decoders, Pass};
use super::head::Head;
use super::layer::{Activations, Backward, LayerRun, Scratch};
use super::places::Read;
use super::shard::{Network, Shard, Side, Span};
use super::threads::Buffers;
use crate::error::Result;

/// The buffers of one thread, reused from shard to shard.
#[derive(Default)]
pub(super) struct Worker {
    /// The thread's sum of gradients with respect to the weights.
    gradient: Vec<f32>,
    /// The input of each layer, and the output of the last.
    states: Vec<Vec<f32>>,
    /// Activations of each layer; a single entry, reused by all layers, if they are not kept for the
    /// backward pass.
    activations: Vec<Activations>,
    /// Rows of a factored embedding, `(tokens, rank)`, or their gradients.
    narrow: Vec<f32>,
    scratch: Scratch,
    head: Head,
}

impl Buffers for Worker {
    fn gradient(&mut self) -> &mut Vec<f32> {
        &mut self.gradient
    }
}

/// A worker on the decoders of a pass.
pub(super) struct WorkerRun<'a> {
    pub(super) worker: &'a mut Worker,
    pub(super) decoders: Decoders<'a>,
    pub(super) pass: &'a Pass<'a>,
    pub(super) needs_gradient: bool,
}

impl Network for WorkerRun<'_> {
    fn forward(&mut self, shard: &Shard, side: Side) -> Result<()> {
        let Self { worker, decoders, pass, needs_gradient } = self;
        match side {
            Side::Model => worker.forward(&decoders.model.decoder, pass, shard, *needs_gradient),
            Side::Reference => {
                let pass = Pass { weights: pass.reference, ..**pass };
                worker.forward(&decoders.reference.decoder, &pass, shard, *needs_gradient);
            }
        }
        Ok(())
    }

    fn numbers(&self, targets: Range<usize>, width: usize) -> &[f32] {
        self.worker.head.logprobs(targets, width)
    }

    fn take_rows(&mut self) -> Vec<f32> {
        self.worker.head.take_rows()
    }

    fn pull_back(&mut self, targets: Range<usize>, given: &[f32]) -> Result<()> {
        self.worker.head.pull_back(&self.decoders.model.decoder, targets, given);
        Ok(())
    }

    fn backward(&mut self, shard: &Shard) -> Result<()> {
        let (worker, decoder, pass) = (&mut *self.worker, &self.decoders.model.decoder, self.pass);
        let mut state_gradients = worker.head_backward(decoder, pass.weights, shard.tokens.len());
        worker.backward(decoder, pass.read(), &shard.spans, &mut state_gradients);
        if let Some(positions) = &decoder.positions {
            let hidden = decoder.blueprint.hidden;
            for span in &shard.spans {
                let rows = &state_gradients[span.rows.start * hidden..span.rows.end * hidden];
                let to = &mut worker.gradient[positions.gradient.clone()];
                to.iter_mut().zip(rows).for_each(|(to, from)| *to += from);
            }
        }
        if decoder.trains_embedding {
            worker.embedding_backward(decoder, pass.weights, &shard.tokens, &mut state_gradients);
        }
        Ok(())
    }
}

impl Worker {
    /// Computes the numbers that the loss needs.
    fn forward(&mut self, decoder: &Decoder, pass: &Pass<'_>, shard: &Shard, needs_gradient: bool) {
        let Shard { tokens, spans, targets } = shard;
        self.head.targets.clone_from(targets);
        let (hidden, layers) = (decoder.blueprint.hidden, decoder.layers.len());
        let weights = pass.weights;
        self.states.resize_with(layers + 1, Vec::new);
        let kept = if needs_gradient && !decoder.recompute { layers.max(1) } else { 1 };
        self.activations.resize_with(kept, Activations::default);
        let embedding = &weights[decoder.embedding.clone()];
        let x = sized(&mut self.states[0], tokens.len() * hidden);
        let width = decoder.embedding_factor.as_ref().map_or(hidden, |factor| factor.rank);
        let rows =
            if decoder.embedding_factor.is_some() { sized(&mut self.narrow, tokens.len() * width) } else { &mut *x };
        for (row, token) in rows.chunks_exact_mut(width).zip(tokens) {
            row.copy_from_slice(&embedding[*token as usize * width..][..width]);
        }
        if let Some(factor) = &decoder.embedding_factor {
            factor.widen(weights, &self.narrow, x);
            factor.kept().iter().for_each(|kept| kept.embed(weights, tokens, x));
        }
        x.iter_mut().for_each(|x| *x *= decoder.blueprint.embedding_scale);
        if let Some(positions) = &decoder.positions {
            for span in spans {
                let rows = x[span.rows.start * hidden..span.rows.end * hidden].iter_mut();
                rows.zip(&weights[positions.range.clone()]).for_each(|(x, position)| *x += position);
            }
        }
        for index in 0..layers {
            let (before, after) = self.states.split_at_mut(index + 1);
            let own = index % self.activations.len();
            let run = LayerRun { decoder, index, read: pass.read(), spans };
            run.forward(&before[index], &mut self.activations[own], &mut after[0], &mut self.scratch);
        }
        self.head.forward(decoder, weights, &self.states[layers], pass.needs);
    }

    /// Computes the gradient with respect to the last layer's output, `(tokens, hidden)`.
    fn head_backward(&mut self, decoder: &Decoder, weights: &[f32], tokens: usize) -> Vec<f32> {
        let hidden = decoder.blueprint.hidden;
        self.head.backward(decoder, weights, &mut self.gradient);
        let mut state_gradients = vec![0.0; tokens * hidden];
        for ((row, _), from) in self.head.targets.iter().zip(self.head.state_gradients.chunks_exact(hidden)) {
            state_gradients[row * hidden..(row + 1) * hidden].copy_from_slice(from);
        }
        state_gradients
    }

    /// Turns the gradient with respect to the last layer's output into that with respect to the first
    /// layer's input, `(tokens, hidden)`, in place, and adds the gradients of the layers' weights.
    fn backward(&mut self, decoder: &Decoder, read: Read<'_>, spans: &[Span], state_gradients: &mut [f32]) {
        let Self { gradient, states, activations, scratch, .. } = self;
        for index in (0..decoder.layers.len()).rev() {
            let run = LayerRun { decoder, index, read, spans };
            let own = index % activations.len();
            let (before, after) = states.split_at_mut(index + 1);
            if decoder.recompute {
                run.forward(&before[index], &mut activations[own], &mut after[0], scratch);
            }
            run.backward(&before[index], &mut activations[own], state_gradients, &mut Backward { gradient, scratch });
        }
    }

    /// Adds the gradient of the embedding, given that of its output, `(tokens, hidden)`.
    fn embedding_backward(&mut self, decoder: &Decoder, weights: &[f32], tokens: &[u32], state_gradients: &mut [f32]) {
        state_gradients.iter_mut().for_each(|gradient| *gradient *= decoder.blueprint.embedding_scale);
        let Self { gradient, narrow, .. } = self;
        let (mut width, mut rows) = (decoder.blueprint.hidden, &*state_gradients);
        if let Some(factor) = &decoder.embedding_factor {
            let embedding = &weights[decoder.embedding.clone()];
            let inputs = tokens.iter().flat_map(|token| &embedding[*token as usize * factor.rank..][..factor.rank]);
            narrow.clear();
            narrow.extend(inputs);
            factor.add_gradient(gradient, state_gradients, narrow);
            factor.kept().iter().for_each(|kept| kept.embed_backward(gradient, tokens, state_gradients));
            factor.narrow(weights, state_gradients, narrow);
            (width, rows) = (factor.rank, narrow);
        }
        let gradient = &mut gradient[decoder.embedding.clone()];
        for (token, from) in tokens.iter().zip(rows.chunks_exact(width)) {
            gradient[*token as usize * width..][..width].iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
}
