//! The numbers of `scripts/fspad_goldens.py`.

use wsd_nn::arch::DraftPlan;

/// A linear congruential generator.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// A number in `-1..1`.
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Several numbers.
    pub(crate) fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// The weights of a head: names, shapes and values, in the order of [`DraftPlan::tensors`].
pub(crate) fn weights(plan: &DraftPlan) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut numbers = Numbers(7);
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let mut values = numbers.take(shape.iter().product());
        let mean = if name.ends_with("bias") { 0.0 } else { 1.0 };
        values.iter_mut().for_each(|value| match shape[..] {
            [_, inputs] => *value *= (1.0 / (inputs as f64).sqrt()) as f32,
            _ => *value = *value * 0.1 + mean,
        });
        (name, shape, values)
    };
    plan.tensors().into_iter().map(tensor).collect()
}
