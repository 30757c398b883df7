//! DARE (Yu et al. 2023, arXiv 2311.03099): drop changes at random and rescale the rest.

use wsd_core::splitmix64;

use super::linear::weighted_sum;
use super::ties::agreed;
use super::{MergeInput, MergeMethod};

/// The base plus the weighted sum of thinned changes.
pub(super) static DARE: MergeMethod = MergeMethod {
    name: "dare",
    about: "task_arithmetic of changes of which a random `density` is kept and divided by it (arXiv 2311.03099)",
    experts: None,
    is_mean: false,
    merge: |input| input.plus(&weighted_sum(input, &thinned(input))),
};

/// The base plus the mean of thinned changes that agree in sign.
pub(super) static DARE_TIES: MergeMethod = MergeMethod {
    name: "dare_ties",
    about: "ties of changes of which a random `density` is kept and divided by it, in place of the largest",
    experts: None,
    is_mean: false,
    merge: |input| input.plus(&agreed(input, &thinned(input))),
};

/// Returns changes of which each is zero with probability `1 - density`, and else divided by it.
fn thinned(input: &MergeInput<'_>) -> Vec<Vec<f32>> {
    let density = input.options.density;
    let mut changes = input.changes();
    for (expert, change) in changes.iter_mut().enumerate() {
        let stream = splitmix64(splitmix64(input.options.seed ^ input.index) ^ expert as u64);
        for (place, value) in change.iter_mut().enumerate() {
            // 24 bits are a float from 0 to 1.
            let draw = (splitmix64(stream.wrapping_add(place as u64)) >> 40) as f32 / (1 << 24) as f32;
            *value = if draw < density { *value / density } else { 0.0 };
        }
    }
    changes
}
