//! Weighted means of weights, and sums of changes.

use super::{MergeInput, MergeMethod};

/// The weighted mean of the experts' weights.
pub(super) static LINEAR: MergeMethod = MergeMethod {
    name: "linear",
    about: "the weighted mean of the experts (model soups, arXiv 2203.05482)",
    experts: None,
    is_mean: true,
    merge: |input| {
        let total: f32 = input.weights.iter().sum();
        let mut mean = vec![0.0; input.base.len()];
        add_weighted(&mut mean, input.experts, input.weights.iter().map(|weight| weight / total));
        mean
    },
};

/// The base plus the weighted sum of the experts' changes.
pub(super) static TASK_ARITHMETIC: MergeMethod = MergeMethod {
    name: "task_arithmetic",
    about: "the base plus `scale` times the weighted sum of changes (arXiv 2212.04089)",
    experts: None,
    is_mean: false,
    merge: |input| input.plus(&weighted_sum(input, &input.changes())),
};

/// Returns the sum of changes, each times its expert's weight.
pub(super) fn weighted_sum(input: &MergeInput<'_>, changes: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0; input.base.len()];
    add_weighted(&mut sum, changes, input.weights.iter().copied());
    sum
}

fn add_weighted(sum: &mut [f32], terms: &[Vec<f32>], weights: impl Iterator<Item = f32>) {
    for (term, weight) in terms.iter().zip(weights) {
        sum.iter_mut().zip(term).for_each(|(sum, value)| *sum += weight * value);
    }
}
