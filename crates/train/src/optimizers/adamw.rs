//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), operation by operation as
//! `torch.optim.AdamW`.

use rayon::prelude::*;
use wsd_core::{Setting, Values};

use super::{CHUNK, Optimizer, OptimizerEntry, StepInput, WEIGHT_DECAY};
use crate::layout::{Layout, Place};

pub(super) static BETA1: Setting =
    Setting::number("adam_beta1", "AdamW beta1: decay of the first moment", 0.0..=0.999_999).with_default_number(0.9);
pub(super) static BETA2: Setting =
    Setting::number("adam_beta2", "AdamW beta2: decay of the second moment", 0.0..=0.999_999_999)
        .with_default_number(0.999);
pub(super) static EPSILON: Setting =
    Setting::number("adam_epsilon", "AdamW epsilon, added to the denominator", 0.0..=1.0).with_default_number(1e-8);

pub(super) static ENTRY: OptimizerEntry = OptimizerEntry {
    name: "adamw",
    about: "Adam with decoupled weight decay",
    settings: &[&WEIGHT_DECAY, &BETA1, &BETA2, &EPSILON],
    needs_start: false,
    make,
};

fn make(layout: &Layout, values: &Values) -> Box<dyn Optimizer> {
    Box::new(AdamW::new(layout, values))
}

/// The update rule, on which others stand.
pub(super) struct AdamW {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    /// Running mean of the gradient.
    pub(super) first_moment: Vec<f32>,
    /// Running mean of the gradient's square.
    second_moment: Vec<f32>,
}

impl AdamW {
    pub(super) fn new(layout: &Layout, values: &Values) -> Self {
        Self {
            beta1: values.get(&BETA1),
            beta2: values.get(&BETA2),
            epsilon: values.get(&EPSILON),
            weight_decay: values.get(&WEIGHT_DECAY),
            first_moment: vec![0.0; layout.len()],
            second_moment: vec![0.0; layout.len()],
        }
    }

    /// Updates some of the tensors.
    pub(super) fn step_where(&mut self, input: StepInput<'_>, takes: impl Fn(&Place) -> bool) {
        let StepInput { parameters, gradient, layout, learning_rate, step, .. } = input;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let update = Update {
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            step_size: (learning_rate / correction(self.beta1)) as f32,
            root: correction(self.beta2).sqrt() as f32,
            epsilon: self.epsilon as f32,
        };
        for place in layout.places().iter().filter(|place| takes(place)) {
            let keep = if place.is_matrix() { 1.0 - learning_rate * self.weight_decay } else { 1.0 };
            let range = place.range.clone();
            let parameters = parameters[range.clone()].par_chunks_mut(CHUNK);
            let first = self.first_moment[range.clone()].par_chunks_mut(CHUNK);
            let second = self.second_moment[range.clone()].par_chunks_mut(CHUNK);
            let chunks = parameters.zip(first).zip(second).zip(gradient[range].par_chunks(CHUNK));
            chunks.for_each(|(((parameters, first), second), gradient)| {
                let moments = first.iter_mut().zip(second);
                for ((parameter, (first, second)), gradient) in parameters.iter_mut().zip(moments).zip(gradient) {
                    *parameter = update.apply(*parameter * keep as f32, first, second, *gradient);
                }
            });
        }
    }
}

impl Optimizer for AdamW {
    fn state(&mut self) -> Vec<(&'static str, &mut [f32])> {
        vec![("means", &mut self.first_moment), ("squares", &mut self.second_moment)]
    }

    fn step(&mut self, input: StepInput<'_>) {
        self.step_where(input, |_| true);
    }
}

/// The constants of one step, in the precision of the parameters.
struct Update {
    beta1: f32,
    beta2: f32,
    step_size: f32,
    /// The square root of the second moment's bias correction.
    root: f32,
    epsilon: f32,
}

impl Update {
    /// Updates both moments and returns the new parameter, given the decayed one.
    fn apply(&self, decayed: f32, first: &mut f32, second: &mut f32, gradient: f32) -> f32 {
        *first += (gradient - *first) * (1.0 - self.beta1);
        *second = *second * self.beta2 + gradient * gradient * (1.0 - self.beta2);
        decayed - self.step_size * *first / (second.sqrt() / self.root + self.epsilon)
    }
}
