//! Choosing from the most likely tokens of a row, where the rest of the row cannot matter.

use super::{Sampling, filters, settle};
use crate::{Sampled, Token};

/// The most likely tokens of a row of logits, and sums over the whole row.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    /// Tokens with their logits; no other token has a larger one than the least of these.
    pub tokens: Vec<(Token, f32)>,
    /// The logarithm of the sum of `exp(logit)`.
    pub log_sum_exp: f64,
    /// The sum of `exp((logit - largest) / temperature)`, at most [`Candidates::MASS_ERROR`] of
    /// itself off.
    pub mass: f64,
}

impl Candidates {
    /// The relative error that a sum in single precision may have.
    pub const MASS_ERROR: f64 = 3e-5;
}

impl Sampling {
    /// Tells whether `count` candidates may be enough to choose a token: for filters that leave the
    /// most likely tokens of an unchanged row.
    #[must_use]
    pub fn may_read_candidates(&self, count: usize) -> bool {
        let cuts = (1..count).contains(&self.top_k) || (self.top_k == 0 && (self.top_p < 1.0 || self.min_p > 0.0));
        self.temperature > 0.0 && !self.adjusts() && self.top_n_sigma == 0.0 && cuts
    }
}

/// Chooses the token at a position from the candidates of its row: the one that [`crate::pick`]
/// chooses from the whole row. Returns `None` where other tokens of the row may matter.
///
/// ```
/// use wsd_core::{Candidates, Sampling, pick_candidates};
/// let candidates = Candidates { tokens: vec![(7, 3.0), (4, 1.0)], log_sum_exp: 3.2, mass: 1.2 };
/// let greedy = Sampling { temperature: 1.0, top_k: 1, ..Sampling::default() };
/// assert_eq!(pick_candidates(&candidates, 0, &greedy).unwrap().token, 7);
/// assert!(pick_candidates(&candidates, 0, &Sampling { top_k: 2, ..greedy }).is_none());
/// ```
#[must_use]
pub fn pick_candidates(candidates: &Candidates, position: usize, sampling: &Sampling) -> Option<Sampled> {
    let Candidates { tokens, log_sum_exp, mass } = candidates;
    let are_finite = tokens.iter().all(|(_, logit)| logit.is_finite()) && log_sum_exp.is_finite() && mass.is_finite();
    if !are_finite || !sampling.may_read_candidates(tokens.len()) {
        return None;
    }
    let mut tokens = tokens.clone();
    tokens.sort_unstable_by_key(|(token, _)| *token);
    let largest = tokens.iter().map(|(_, logit)| *logit).fold(f32::NEG_INFINITY, f32::max);
    let best = tokens.iter().find(|(_, logit)| *logit == largest)?.0 as usize;
    let temperature = f64::from(sampling.temperature);
    let weight = |logit: f32| (f64::from(logit - largest) / temperature).exp();
    let weights = tokens.iter().map(|(token, logit)| (*token as usize, weight(*logit)));
    let rest = tokens.iter().map(|(_, logit)| weight(*logit)).fold(f64::INFINITY, f64::min);
    let [number, chance] = sampling.draw(position);
    let row = filters::Row { logits: &[], best, chance, sampling };
    let head = filters::Head { rest, mass: *mass, error: Candidates::MASS_ERROR };
    let kept = filters::filter_head(&row, weights.filter(|(_, weight)| *weight > 0.0).collect(), &head)?;
    let token = settle(&kept, number, best) as Token;
    let logit = tokens.iter().find(|(other, _)| *other == token)?.1;
    Some(Sampled { token, logprob: Some((f64::from(logit) - log_sum_exp).min(0.0)), top: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pick;

    /// The candidates of a row, as a device makes them in single precision.
    fn candidates(row: &[f32], count: usize, temperature: f32) -> Candidates {
        let mut tokens: Vec<_> = row.iter().enumerate().map(|(token, logit)| (token as Token, *logit)).collect();
        tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
        let largest = tokens[0].1;
        let mass = row.iter().map(|logit| ((logit - largest) / temperature).exp()).sum::<f32>();
        let sum = row.iter().map(|logit| (logit - largest).exp()).sum::<f32>();
        tokens.truncate(count);
        Candidates { tokens, log_sum_exp: f64::from(largest + sum.ln()), mass: f64::from(mass) }
    }

    #[test]
    fn candidates_give_the_token_of_the_whole_row() {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        let sampling = |top_k, top_p, min_p| Sampling { temperature: 0.8, top_k, top_p, min_p, ..Sampling::default() };
        let settings = [
            sampling(20, 1.0, 0.0),
            sampling(20, 0.8, 0.02),
            sampling(0, 0.9, 0.0),
            sampling(0, 0.95, 0.01),
            sampling(0, 1.0, 0.05),
            Sampling { typical_p: 0.7, xtc_probability: 0.5, ..sampling(40, 0.95, 0.0) },
            Sampling { temperature: 1.7, ..sampling(0, 0.5, 0.0) },
        ];
        for sampling in &settings {
            let mut chosen = 0;
            for position in 0..300 {
                // Coarse logits are often equal, and peaks of several heights.
                let row: Vec<f32> = (0..700).map(|_| (next().powi(4) * 160.0).round() / 8.0).collect();
                let from = candidates(&row, 64, sampling.temperature);
                let Some(found) = pick_candidates(&from, position, sampling) else { continue };
                let expected = pick(&mut row.clone(), &vec![0; position], sampling).unwrap();
                assert_eq!(found.token, expected.token, "{sampling:?} at {position}");
                assert!((found.logprob.unwrap() - expected.logprob.unwrap()).abs() < 1e-4);
                chosen += 1;
            }
            println!("{chosen} of 300 rows: {sampling:?}");
            assert!(chosen > 100, "only {chosen} of 300 rows were decided: {sampling:?}");
        }
    }

    #[test]
    fn rows_that_need_their_rest_are_left_alone() {
        let flat = candidates(&[1.0; 500], 64, 1.0);
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        for sampling in [
            sampling.clone(),
            Sampling { top_k: 64, ..sampling.clone() },
            Sampling { top_k: 10, ..sampling.clone() },
            Sampling { top_p: 0.5, ..sampling.clone() },
            Sampling { min_p: 0.5, ..sampling.clone() },
            Sampling { top_k: 3, repetition_penalty: 1.1, ..sampling.clone() },
            Sampling { top_k: 3, top_n_sigma: 1.0, ..sampling },
        ] {
            assert_eq!(pick_candidates(&flat, 0, &sampling), None, "{sampling:?}");
        }
    }
}
