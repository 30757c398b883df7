//! A mixture of experts, forward and backward.

use wsd_nn::arch::{Experts, Share};
use wsd_nn::kernels::elementwise::{inner, softmax, softmax_backward};

use super::buffer::{sized, zeroed};
use super::expert::{ExpertRun, Passages, Rows};
use super::places::{ExpertPlaces, Linear};

/// Buffers that all layers share.
#[derive(Default)]
pub(super) struct MixtureScratch {
    /// The inputs of the passages of one expert.
    gathered: Vec<f32>,
    /// The gradients of their outputs.
    outputs: Vec<f32>,
    /// The gradients of their inputs, and of those of the router.
    inputs: Vec<f32>,
    /// The gradients of the router's outputs.
    ratings: Vec<f32>,
}

/// The experts of a layer and their router.
pub(super) struct Mixture<'a> {
    pub(super) first: ExpertRun<'a>,
    pub(super) router: &'a Linear,
    pub(super) plan: Experts,
    pub(super) experts: &'a [ExpertPlaces],
}

/// The passages of one expert: its index, the tokens, and the index of the first passage.
struct Passing<'a> {
    expert: usize,
    shares: &'a [Share],
    first: usize,
}

impl Mixture<'_> {
    /// Sets `out` to the weighted sum of each token's experts.
    pub(super) fn forward(&self, input: &[f32], kept: &mut Passages, out: &mut [f32], scratch: &mut MixtureScratch) {
        let (hidden, weights) = (self.first.blueprint.hidden, self.first.read.weights);
        let tokens = input.len() / hidden;
        self.router.forward(weights, input, sized(&mut kept.ratings, tokens * self.plan.count));
        let passages = tokens * self.plan.used;
        sized(&mut kept.gates, passages * self.first.places.gates.outputs);
        sized(&mut kept.gated, passages * self.first.blueprint.ffn);
        sized(&mut kept.written, passages * hidden);
        out.fill(0.0);
        let shares = self.plan.shares(&kept.ratings);
        for passing in passings(&shares) {
            gather(input, hidden, passing.shares, &mut scratch.gathered);
            let written = &mut kept.written[passing.first * hidden..][..scratch.gathered.len()];
            let rows = self.rows(&passing, (&mut kept.gates, &mut kept.gated));
            self.expert(&passing).forward(&scratch.gathered, rows, written);
            for (share, row) in passing.shares.iter().zip(written.chunks_exact(hidden)) {
                let out = &mut out[share.token * hidden..][..hidden];
                out.iter_mut().zip(row).for_each(|(out, value)| *out += share.weight * value);
            }
        }
    }

    /// Adds the gradients of the weights and sets those of the `input`, given those of the `output`. The
    /// choice of experts has no gradient, their shares have.
    pub(super) fn backward(
        &self,
        (input, output): (&[f32], &[f32]),
        kept: &mut Passages,
        (gradient, input_gradients): (&mut [f32], &mut [f32]),
        (scratch, wide): (&mut MixtureScratch, &mut Vec<f32>),
    ) {
        let (hidden, simd, count) = (self.first.blueprint.hidden, self.first.simd, self.plan.count);
        let MixtureScratch { gathered, outputs, inputs, ratings } = scratch;
        let ratings = zeroed(ratings, kept.ratings.len());
        input_gradients.fill(0.0);
        let shares = self.plan.shares(&kept.ratings);
        for passing in passings(&shares) {
            gather(input, hidden, passing.shares, gathered);
            gather(output, hidden, passing.shares, outputs);
            let written = kept.written[passing.first * hidden..].chunks_exact(hidden);
            for ((share, row), written) in passing.shares.iter().zip(outputs.chunks_exact_mut(hidden)).zip(written) {
                let mut product = [0.0];
                inner(simd, row, written, &mut product);
                ratings[share.token * count + passing.expert] = product[0];
                row.iter_mut().for_each(|value| *value *= share.weight);
            }
            let rows = self.rows(&passing, (&mut kept.gates, &mut kept.gated));
            let inputs = sized(inputs, gathered.len());
            let given = (&**gathered, &**outputs);
            let to = (&mut *gradient, &mut *inputs);
            self.expert(&passing).backward(given, (rows, &mut *wide), to);
            for (share, row) in passing.shares.iter().zip(inputs.chunks_exact(hidden)) {
                let to = &mut input_gradients[share.token * hidden..][..hidden];
                to.iter_mut().zip(row).for_each(|(to, from)| *to += from);
            }
        }
        self.shares_backward(&shares, &mut kept.ratings, ratings);
        let inputs = sized(inputs, input.len());
        self.router.backward(self.first.read, gradient, (input, ratings), inputs);
        input_gradients.iter_mut().zip(inputs).for_each(|(to, from)| *to += *from);
    }

    /// Replaces the gradients with respect to shares by those with respect to the router's outputs
    /// `ratings`, which it overwrites. Shares are a softmax over the chosen experts, or over all.
    fn shares_backward(&self, shares: &[Vec<Share>], ratings: &mut [f32], gradients: &mut [f32]) {
        let (simd, count) = (self.first.simd, self.plan.count);
        if self.plan.normalized {
            ratings.fill(0.0);
            for (expert, share) in
                shares.iter().enumerate().flat_map(|(expert, own)| own.iter().map(move |share| (expert, share)))
            {
                ratings[share.token * count + expert] = share.weight;
            }
        } else {
            ratings.chunks_exact_mut(count).for_each(|row| softmax(simd, row, &mut [0.0]));
        }
        for (gradients, shares) in gradients.chunks_exact_mut(count).zip(ratings.chunks_exact(count)) {
            let mut mean = [0.0];
            inner(simd, gradients, shares, &mut mean);
            softmax_backward(simd, gradients, shares, mean[0]);
        }
    }

    fn expert(&self, passing: &Passing<'_>) -> ExpertRun<'_> {
        ExpertRun { places: &self.experts[passing.expert], ..self.first }
    }

    /// The rows of passages, of the gates and gated branches of all.
    fn rows<'k>(&self, passing: &Passing<'_>, (gates, gated): (&'k mut [f32], &'k mut [f32])) -> Rows<'k> {
        let (first, count) = (passing.first, passing.shares.len());
        let (outputs, ffn) = (self.first.places.gates.outputs, self.first.blueprint.ffn);
        Rows {
            gates: &mut gates[first * outputs..][..count * outputs],
            gated: &mut gated[first * ffn..][..count * ffn],
        }
    }
}

/// The passages of the experts that have some.
fn passings(shares: &[Vec<Share>]) -> impl Iterator<Item = Passing<'_>> {
    shares
        .iter()
        .scan(0, |end, shares| {
            let first = *end;
            *end += shares.len();
            Some((first, &shares[..]))
        })
        .enumerate()
        .map(|(expert, (first, shares))| Passing { expert, shares, first })
        .filter(|passing| !passing.shares.is_empty())
}

/// Sets `rows` to those of the tokens of some passages.
fn gather(from: &[f32], width: usize, shares: &[Share], rows: &mut Vec<f32>) {
    rows.clear();
    shares.iter().for_each(|share| rows.extend_from_slice(&from[share.token * width..][..width]));
}
