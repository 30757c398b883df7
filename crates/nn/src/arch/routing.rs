//! The choice of experts.

use super::Experts;

/// The share of an expert in the output of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The index of the token.
    pub token: usize,
    /// The factor on the expert's output.
    pub weight: f32,
}

impl Experts {
    /// Returns the tokens of each expert, given the outputs of the router, `(tokens, experts)`.
    #[must_use]
    pub fn shares(&self, ratings: &[f32]) -> Vec<Vec<Share>> {
        let mut shares = vec![Vec::new(); self.count];
        for (token, ratings) in ratings.chunks_exact(self.count).enumerate() {
            let mut order: Vec<usize> = (0..self.count).collect();
            // The sort is stable: of equal ratings the first expert counts more.
            order.sort_by(|one, other| ratings[*other].total_cmp(&ratings[*one]));
            let most = ratings[order[0]];
            let chosen = &order[..self.used];
            let summed = if self.normalized { chosen } else { &order };
            let total: f32 = summed.iter().map(|expert| (ratings[*expert] - most).exp()).sum();
            for expert in chosen {
                shares[*expert].push(Share { token, weight: (ratings[*expert] - most).exp() / total });
            }
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_its_best_experts() {
        let ratings = [1.0, 4.0, 2.0, 3.0, 5.0, 5.0, 1.0, 1.0].map(f32::ln);
        let weights = |normalized| {
            let shares = Experts { count: 4, used: 2, normalized, bias: false }.shares(&ratings).into_iter();
            let rounded = |share: &Share| (share.token, (share.weight * 84.0).round());
            shares.map(|shares| shares.iter().map(rounded).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(weights(false), [vec![(1, 35.0)], vec![(0, 34.0), (1, 35.0)], vec![], vec![(0, 25.0)]]);
        assert_eq!(weights(true), [vec![(1, 42.0)], vec![(0, 48.0), (1, 42.0)], vec![], vec![(0, 36.0)]]);
    }
}
