//! The feed-forward part of a layer: one expert, or a mixture of several.

use candle_core::{Result, Tensor};

use super::layers::{Linear, Projections, gate, softmax};
use crate::arch::{Activation, Experts, Share};

/// One feed-forward part.
pub(super) struct Expert {
    /// Gate, up.
    pub(super) gates: Projections,
    pub(super) down: Linear,
}

impl Expert {
    /// Maps `(tokens, hidden)` to floats `(tokens, hidden)`.
    pub(super) fn apply(&self, input: &Tensor, activation: Activation) -> Result<Tensor> {
        self.down.apply(&gate(&self.gates.apply(input)?, activation)?)
    }
}

/// Computes the weighted sum of each token's experts, `(tokens, hidden)`.
pub(super) fn mixture(
    experts: &[Expert],
    router: &Linear,
    plan: Experts,
    activation: Activation,
    input: &Tensor,
) -> Result<Tensor> {
    let ratings = router.apply(input)?;
    // The choice is made on the host, and weights are computed where gradients pass.
    let shares = plan.shares(&ratings.flatten_all()?.to_vec1()?);
    let weights = expert_weights(&ratings, plan, &shares)?;
    let mut output = input.zeros_like()?;
    for (index, (expert, shares)) in experts.iter().zip(&shares).enumerate() {
        let tokens: Vec<_> = shares.iter().map(|share| share.token as u32).collect();
        if tokens.is_empty() {
            continue;
        }
        let tokens = Tensor::new(tokens, input.device())?;
        let weights = weights.narrow(1, index, 1)?.contiguous()?.index_select(&tokens, 0)?;
        let written = expert.apply(&input.index_select(&tokens, 0)?, activation)?.broadcast_mul(&weights)?;
        output = output.index_add(&tokens, &written, 0)?;
    }
    Ok(output)
}

/// Computes the weights of experts, `(tokens, experts)`, from the outputs of the router; those of
/// experts that a token does not pass are of no use.
fn expert_weights(ratings: &Tensor, plan: Experts, shares: &[Vec<Share>]) -> Result<Tensor> {
    if !plan.normalized {
        return softmax(ratings);
    }
    let mut mask = vec![f32::NEG_INFINITY; ratings.elem_count()];
    for (expert, shares) in shares.iter().enumerate() {
        shares.iter().for_each(|share| mask[share.token * plan.count + expert] = 0.0);
    }
    softmax(&(ratings + Tensor::from_vec(mask, ratings.shape(), ratings.device())?)?)
}
