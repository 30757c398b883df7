//! Weights to begin with, where there are none.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::layout::Layout;
use wsd_nn::arch::Blueprint;

/// The spread of weights, as in GPT-2 and most that came after it.
pub const INITIALIZER_RANGE: f64 = 0.02;

/// Random weights: matrices normal with deviation `spread`, those that write into the residual stream smaller by the root
/// of twice the layers (Radford et al. 2019, section 2.3); norms that change nothing; biases 0.
#[must_use]
pub fn random(plan: &Blueprint, layout: &Layout, spread: f64, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = vec![0.0; layout.len()];
    for place in layout.places() {
        let values = &mut weights[place.range.clone()];
        let writes = place.name.ends_with("o_proj.weight") || place.name.ends_with("down_proj.weight");
        let spread = if writes { spread / (2.0 * plan.layers.len() as f64).sqrt() } else { spread };
        if place.is_matrix() {
            values.iter_mut().for_each(|value| *value = (normal(&mut random) * spread) as f32);
        } else if !place.name.ends_with(".bias") {
            values.fill(1.0 - plan.norms.offset);
        }
    }
    weights
}

/// A number in 0..1.
pub(super) fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Box and Muller.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let [radius, angle] = [uniform(random), uniform(random)];
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
