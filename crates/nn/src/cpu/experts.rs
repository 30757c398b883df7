//! The feed-forward part of a layer: one expert, or a mixture of several.

use super::linear::{self, Activations, Linear};
use super::layer::FLOATS_PER_PIECE;
use crate::activation::Activation;
use crate::arch::{Expert, Experts};
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

/// The share of an expert in the output of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    token: usize,
    weight: f32,
}

impl Expert<Linear> {
    /// Computes `(tokens, hidden)` into `out`.
    pub(super) fn apply(
        &self,
        workers: &Workers<'_>,
        activation: Activation,
        input: &[f32],
        (scratch, activations): (&mut ExpertScratch, &mut Activations),
        out: &mut Vec<f32>,
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
        let shares = shares(&scratch.ratings, self.plan);
        for (expert, shares) in self.experts.iter().zip(shares).filter(|(_, shares)| !shares.is_empty()) {
            let (mut gathered, mut written) =
                (std::mem::take(&mut scratch.gathered), std::mem::take(&mut scratch.written));
            gathered.clear();
            for share in &shares {
                gathered.extend_from_slice(&input[share.token * self.hidden..][..self.hidden]);
            }
            expert.apply(workers, self.activation, &gathered, (&mut *scratch, &mut *activations), &mut written);
            for (Share { token, weight }, row) in shares.into_iter().zip(written.chunks_exact(self.hidden)) {
                let out = &mut out[token * self.hidden..][..self.hidden];
                out.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
            }
            (scratch.gathered, scratch.written) = (gathered, written);
        }
    }
}

/// Returns the tokens of each expert, given the ratings `(tokens, experts)`.
fn shares(ratings: &[f32], plan: Experts) -> Vec<Vec<Share>> {
    let mut shares = vec![Vec::new(); plan.count];
    for (token, ratings) in ratings.chunks_exact(plan.count).enumerate() {
        let mut order: Vec<usize> = (0..plan.count).collect();
        // Of equal ratings the first expert counts more.
        order.sort_by(|one, other| ratings[*other].total_cmp(&ratings[*one]));
        let most = ratings[order[0]];
        let chosen = &order[..plan.used];
        let summed = if plan.normalized { chosen } else { &order };
        let total: f32 = summed.iter().map(|expert| (ratings[*expert] - most).exp()).sum();
        for expert in chosen {
            shares[*expert].push(Share { token, weight: (ratings[*expert] - most).exp() / total });
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_its_best_experts() {
        let ln = f32::ln;
        let ratings = [ln(1.0), ln(4.0), ln(2.0), ln(3.0), ln(5.0), ln(5.0), ln(1.0), ln(1.0)];
        let plan = Experts { count: 4, used: 2, normalized: false, bias: false };
        let weights = |plan| {
            let shares = shares(&ratings, plan).into_iter();
            shares
                .map(|shares| shares.iter().map(|share| (share.token, (share.weight * 84.0).round())).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        assert_eq!(weights(plan), [vec![(1, 35.0)], vec![(0, 34.0), (1, 35.0)], vec![], vec![(0, 25.0)]]);
        let plan = Experts { normalized: true, ..plan };
        assert_eq!(weights(plan), [vec![(1, 42.0)], vec![(0, 48.0), (1, 42.0)], vec![], vec![(0, 36.0)]]);
    }
}
