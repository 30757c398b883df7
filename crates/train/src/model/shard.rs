//! A shard of examples, from tokens to losses and back to the gradient, whatever computes it.

use std::ops::Range;

use super::decoder::{Decoder, Pass};
use crate::error::Result;
use crate::example::{Example, Sequence};
use crate::objectives::{LossInput, LossOutput, Needs};

/// A sequence of a shard.
pub(super) struct Span {
    /// Its rows in the shard's activations, one per token.
    pub(super) rows: Range<usize>,
    /// True where the sequence is long in the sense of [`wsd_nn::arch::Blueprint::is_long`].
    pub(super) long: bool,
}

/// Sequences one after another, as they are computed.
pub(super) struct Shard {
    pub(super) tokens: Vec<u32>,
    pub(super) spans: Vec<Span>,
    /// Per target, the row that predicts it, and its token.
    pub(super) targets: Vec<(usize, u32)>,
}

/// One of the two decoders of a pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Model,
    Reference,
}

/// What computes the decoders of a pass: a thread of the CPU
/// ([`WorkerRun`](super::worker::WorkerRun)), or a GPU ([`GpuRun`](super::gpu::GpuRun)).
pub(super) trait Network {
    /// Computes the numbers that the loss needs of the targets.
    fn forward(&mut self, shard: &Shard, side: Side) -> Result<()>;

    /// The numbers of some targets, computed last: whole rows for a `width` above 1.
    fn numbers(&self, targets: Range<usize>, width: usize) -> &[f32];

    /// Gives away the rows of numbers.
    fn take_rows(&mut self) -> Vec<f32>;

    /// Takes the gradient with respect to the numbers of some targets, in the place of these.
    fn pull_back(&mut self, targets: Range<usize>, given: &[f32]) -> Result<()>;

    /// Adds the gradient of the weights, once that of all numbers is given.
    fn backward(&mut self, shard: &Shard) -> Result<()>;
}

impl Shard {
    /// Concatenates the sequences of a pass.
    fn new(decoder: &Decoder, pass: &Pass<'_>) -> Self {
        let (mut tokens, mut spans, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in pass.examples.iter().flat_map(|example| &example.sequences) {
            let start = tokens.len();
            tokens.extend_from_slice(&sequence.tokens);
            spans.push(Span { rows: start..tokens.len(), long: decoder.blueprint.is_long(sequence.tokens.len()) });
            // A token is predicted by the row before it and rewarded at its own.
            let before = usize::from(pass.needs != Needs::Rewards);
            let target = |position: usize| (start + position - before, sequence.tokens[position]);
            targets.extend(sequence.positions().map(target));
        }
        Self { tokens, spans, targets }
    }

    /// Puts the masks of examples in the place of tokens.
    fn mask(&mut self, examples: &[&Example]) {
        let mut start = 0;
        for example in examples {
            example.masked.iter().for_each(|(position, token)| self.tokens[start + position] = *token);
            start += example.tokens();
        }
    }
}

/// Computes the loss of every example and, if `needs_gradient`, lets the network add the gradient of
/// their sum.
pub(super) fn run(
    network: &mut impl Network,
    decoder: &Decoder,
    pass: &Pass<'_>,
    needs_gradient: bool,
) -> Result<Vec<LossOutput>> {
    let (mut shard, mut reference) = (Shard::new(decoder, pass), Vec::new());
    if pass.needs == Needs::RowsAndReference {
        network.forward(&shard, Side::Reference)?;
        reference = network.take_rows();
    }
    shard.mask(pass.examples);
    network.forward(&shard, Side::Model)?;
    let width = if pass.needs.rows() { decoder.blueprint.vocab } else { 1 };
    let mut end = 0;
    let mut compute = |example: &&Example| {
        let start = end;
        end += example.sequences.iter().map(Sequence::targets).sum::<usize>();
        let input = LossInput {
            example,
            totals: pass.totals,
            width,
            logprobs: network.numbers(start..end, width),
            reference: reference.get(start * width..end * width).unwrap_or_default(),
        };
        let mut output = pass.loss.compute(&input);
        if needs_gradient {
            output.logprob_gradients.iter_mut().for_each(|gradient| *gradient *= pass.weight);
            network.pull_back(start..end, &output.logprob_gradients)?;
        }
        // Gradients of whole rows are large and are not needed any more.
        output.logprob_gradients = Vec::new();
        Ok(output)
    };
    let outputs = pass.examples.iter().map(&mut compute).collect::<Result<_>>()?;
    if needs_gradient {
        network.backward(&shard)?;
    }
    Ok(outputs)
}

/// Divides the examples into consecutive runs of at most `most` tokens, or of one example.
pub(super) fn shards<'e, 'x>(mut examples: &'e [&'x Example], most: usize) -> Vec<&'e [&'x Example]> {
    let mut shards = Vec::new();
    while !examples.is_empty() {
        let mut tokens = 0;
        let fits = |example: &&&Example| {
            tokens += example.tokens();
            tokens <= most
        };
        let len = examples.iter().take_while(fits).count().max(1);
        let (shard, rest) = examples.split_at(len);
        shards.push(shard);
        examples = rest;
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_in_one_shard() {
        let examples: Vec<_> = (1..40)
            .map(|i| Example::of(Sequence { tokens: vec![0; i * 37 % 500 + 1], target_ranges: Vec::new() }))
            .collect();
        let examples: Vec<_> = examples.iter().collect();
        let back: Vec<_> = shards(&examples, 1024).into_iter().flatten().copied().collect();
        assert_eq!(back, examples);
        assert!(shards(&examples, 1024).len() > 1 && shards(&[], 1024).is_empty());
    }
}
