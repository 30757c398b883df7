//! A shard of examples on one thread: from tokens to the loss, and back to the gradient.

use super::buffer::sized;
use super::decoder::{Decoder, Pass};
use super::head::Head;
use super::layer::{Activations, Backward, LayerRun, Scratch, Span};
use super::places::Read;
use super::threads::Buffers;
use crate::example::{Example, Sequence};
use crate::objectives::{LossInput, LossOutput, Needs};

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

impl Worker {
    /// Computes the loss of every example and, if `needs_gradient`, adds the gradient of their sum to
    /// [`Worker::gradient`].
    ///
    /// `teacher` computes the reference's numbers.
    pub(super) fn run(
        &mut self,
        (decoder, teacher): (&Decoder, &Decoder),
        pass: &Pass<'_>,
        needs_gradient: bool,
    ) -> Vec<LossOutput> {
        let (mut tokens, spans) = self.concatenate(decoder, pass);
        let mut reference = Vec::new();
        if pass.needs == Needs::RowsAndReference {
            self.forward(teacher, &Pass { weights: pass.reference, ..*pass }, (&tokens, &spans), needs_gradient);
            reference = self.head.take_rows();
        }
        let mut start = 0;
        for example in pass.examples {
            example.masked.iter().for_each(|(position, token)| tokens[start + position] = *token);
            start += example.tokens();
        }
        self.forward(decoder, pass, (&tokens, &spans), needs_gradient);
        let outputs = self.compute_losses(decoder, pass, &reference, needs_gradient);
        if needs_gradient {
            let mut state_gradients = self.head_backward(decoder, pass.weights, tokens.len());
            self.backward(decoder, pass.read(), &spans, &mut state_gradients);
            if let Some(positions) = &decoder.positions {
                let hidden = decoder.blueprint.hidden;
                for span in &spans {
                    let rows = &state_gradients[span.rows.start * hidden..span.rows.end * hidden];
                    let to = &mut self.gradient[positions.gradient.clone()];
                    to.iter_mut().zip(rows).for_each(|(to, from)| *to += from);
                }
            }
            if decoder.trains_embedding {
                self.embedding_backward(decoder, pass.weights, &tokens, &mut state_gradients);
            }
        }
        outputs
    }

    /// Concatenates all sequences and sets the head's targets. Returns the tokens and the rows of each
    /// sequence.
    fn concatenate(&mut self, decoder: &Decoder, pass: &Pass<'_>) -> (Vec<u32>, Vec<Span>) {
        let (mut tokens, mut spans) = (Vec::new(), Vec::new());
        self.head.targets.clear();
        for sequence in pass.examples.iter().flat_map(|example| &example.sequences) {
            let start = tokens.len();
            tokens.extend_from_slice(&sequence.tokens);
            spans.push(Span { rows: start..tokens.len(), long: decoder.blueprint.is_long(sequence.tokens.len()) });
            // A token is predicted by the row before it and rewarded at its own.
            let before = usize::from(pass.needs != Needs::Rewards);
            let target = |position: usize| (start + position - before, sequence.tokens[position]);
            self.head.targets.extend(sequence.positions().map(target));
        }
        (tokens, spans)
    }

    /// Computes the log-probabilities that the loss needs.
    fn forward(
        &mut self,
        decoder: &Decoder,
        pass: &Pass<'_>,
        (tokens, spans): (&[u32], &[Span]),
        needs_gradient: bool,
    ) {
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

    /// Computes the loss of every example. If `needs_gradient`, gives the gradients with respect to the
    /// log-probabilities to the head and removes them from the outputs.
    fn compute_losses(
        &mut self,
        decoder: &Decoder,
        pass: &Pass<'_>,
        reference: &[f32],
        needs_gradient: bool,
    ) -> Vec<LossOutput> {
        let width = if pass.needs.rows() { decoder.blueprint.vocab } else { 1 };
        let mut end = 0;
        let compute = |example: &&Example| {
            let start = end;
            end += example.sequences.iter().map(Sequence::targets).sum::<usize>();
            let input = LossInput {
                example,
                totals: pass.totals,
                width,
                logprobs: self.head.logprobs(start..end, width),
                reference: reference.get(start * width..end * width).unwrap_or_default(),
            };
            let mut output = pass.loss.compute(&input);
            if needs_gradient {
                output.logprob_gradients.iter_mut().for_each(|gradient| *gradient *= pass.weight);
                self.head.pull_back(decoder, start..end, &output.logprob_gradients);
            }
            // Gradients of whole rows are large and are not needed any more.
            output.logprob_gradients = Vec::new();
            output
        };
        pass.examples.iter().map(compute).collect()
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
