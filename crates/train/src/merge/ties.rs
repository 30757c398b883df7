//! TIES (Yadav et al. 2023, arXiv 2306.01708): trim, elect a sign, mean of those that agree.

use super::{MergeInput, MergeMethod};

/// The base plus the mean of the largest changes that agree in sign.
pub(super) static TIES: MergeMethod = MergeMethod {
    name: "ties",
    about: "the base plus `scale` times the mean of changes that agree in sign, of which each expert's largest \
            `density` count (arXiv 2306.01708)",
    experts: None,
    is_mean: false,
    merge: |input| {
        let mut changes = input.changes();
        changes.iter_mut().for_each(|change| trim(change, input.options.density));
        input.plus(&agreed(input, &changes))
    },
};

/// Sets all but the largest `density` of a tensor's changes to zero.
fn trim(change: &mut [f32], density: f32) {
    let kept = (change.len() as f64 * f64::from(density)).round() as usize;
    if kept >= change.len() {
        return;
    }
    let mut sizes: Vec<f32> = change.iter().map(|value| value.abs()).collect();
    let Some(last) = kept.checked_sub(1) else { return change.fill(0.0) };
    let (_, threshold, _) = sizes.select_nth_unstable_by(last, |one, other| other.total_cmp(one));
    let threshold = *threshold;
    change.iter_mut().filter(|value| value.abs() < threshold).for_each(|value| *value = 0.0);
}

/// Returns the mean of the changes that have the sign of their weighted sum, by weight; zeros do not
/// count.
pub(super) fn agreed(input: &MergeInput<'_>, changes: &[Vec<f32>]) -> Vec<f32> {
    let mean = |place: usize| {
        let weighted =
            || changes.iter().zip(input.weights).map(move |(change, weight)| (weight * change[place], *weight));
        let sign = weighted().map(|(change, _)| change).sum::<f32>();
        let agreeing = weighted().filter(|(change, _)| change * sign > 0.0);
        let (sum, weight) = agreeing.fold((0.0, 0.0), |(sum, all), (change, weight)| (sum + change, all + weight));
        if weight == 0.0 { 0.0 } else { sum / weight }
    };
    (0..input.base.len()).map(mean).collect()
}
