//! Stochastic gradient descent with momentum, as `torch.optim.SGD` with decoupled weight decay.

use wsd_core::{Setting, Values};

use super::{Optimizer, OptimizerEntry, StepInput, WEIGHT_DECAY};
use crate::layout::Layout;

static MOMENTUM: Setting =
    Setting::number("momentum", "Decay of the running sum of gradients", 0.0..=0.999_999).with_default_number(0.0);

pub(super) static ENTRY: OptimizerEntry = OptimizerEntry {
    name: "sgd",
    about: "Gradient descent with momentum",
    settings: &[&WEIGHT_DECAY, &MOMENTUM],
    needs_start: false,
    make,
};

fn make(layout: &Layout, values: &Values) -> Box<dyn Optimizer> {
    let momentum = vec![0.0; layout.len()];
    Box::new(Sgd { decay: values.get(&MOMENTUM), weight_decay: values.get(&WEIGHT_DECAY), momentum })
}

struct Sgd {
    decay: f32,
    weight_decay: f64,
    momentum: Vec<f32>,
}

impl Optimizer for Sgd {
    fn state(&mut self) -> Vec<(&'static str, &mut [f32])> {
        vec![("momentum", &mut self.momentum)]
    }

    fn step(&mut self, input: StepInput<'_>) {
        let rate = input.learning_rate as f32;
        for place in input.layout.places() {
            let keep = if place.is_matrix() { 1.0 - input.learning_rate * self.weight_decay } else { 1.0 } as f32;
            for index in place.range.clone() {
                self.momentum[index] = self.momentum[index] * self.decay + input.gradient[index];
                input.parameters[index] = input.parameters[index] * keep - rate * self.momentum[index];
            }
        }
    }
}
