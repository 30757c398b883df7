//! Random initial weights.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::layout::Layout;
use wsd_nn::arch::{Blueprint, SINKS};

/// The standard deviation of initial weights in GPT-2 and most of its successors.
pub const INITIALIZER_RANGE: f64 = 0.02;

/// Returns random weights.
///
/// Matrices are normal with standard deviation `spread`, divided by `sqrt(2 * layers)` for those
/// that write to the residual stream (Radford et al. 2019, section 2.3). Norms are the identity,
/// and biases and sinks 0.
#[must_use]
pub fn random(blueprint: &Blueprint, layout: &Layout, spread: f64, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = vec![0.0; layout.len()];
    for place in layout.places() {
        let values = &mut weights[place.range.clone()];
        let writes = place.name.ends_with("o_proj.weight") || place.name.ends_with("down_proj.weight");
        let spread = if writes { spread / (2.0 * blueprint.layers.len() as f64).sqrt() } else { spread };
        if place.is_matrix() {
            values.iter_mut().for_each(|value| *value = (normal(&mut random) * spread) as f32);
        } else if !place.name.ends_with(".bias") && !place.name.ends_with(SINKS) {
            values.fill(1.0 - blueprint.norms.offset);
        }
    }
    weights
}

/// A uniform number in `0..1`.
pub(crate) fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A normal number by the Box-Muller transform.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let [radius, angle] = [uniform(random), uniform(random)];
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
