//! SPD: Adam with a selective decay towards the start (Tian et al. 2024, arXiv 2411.01713).
//!
//! Where descent already leads back to the start, a step that ends further away than it began is
//! shortened to the old distance; elsewhere Adam's step is left alone.

use rayon::prelude::*;
use wsd_core::{Setting, Values};

use super::adamw::{AdamW, BETA1, BETA2, EPSILON};
use super::{CHUNK, Optimizer, OptimizerEntry, StepInput};
use crate::layout::{Layout, Place};

static SELECTIVE_DECAY: Setting =
    Setting::number("selective_decay", "Share of the growth of a tensor's distance that is undone", 0.0..=100.0)
        .with_default_number(1.0);

pub(super) static ENTRY: OptimizerEntry = OptimizerEntry {
    name: "spd",
    about: "Adam with a selective decay towards the start (SPD)",
    settings: &[&BETA1, &BETA2, &EPSILON, &SELECTIVE_DECAY],
    needs_start: true,
    make,
};

fn make(layout: &Layout, values: &Values) -> Box<dyn Optimizer> {
    Box::new(Spd { adam: AdamW::new(layout, values), decay: values.get(&SELECTIVE_DECAY) })
}

struct Spd {
    adam: AdamW,
    decay: f64,
}

/// The distance of a tensor from the start.
struct Distance {
    length: f64,
    /// The product of the gradient and the distance.
    along: f64,
}

impl Distance {
    fn of(place: &Place, input: &StepInput<'_>) -> Self {
        let range = || place.range.clone();
        let parameters = input.parameters[range()].par_chunks(CHUNK).zip(input.start[range()].par_chunks(CHUNK));
        let chunk = |((parameters, start), gradient): ((&[f32], &[f32]), &[f32])| {
            let (mut square, mut along) = (0.0, 0.0);
            for ((parameter, start), gradient) in parameters.iter().zip(start).zip(gradient) {
                let distance = f64::from(parameter - start);
                square += distance * distance;
                along += distance * f64::from(*gradient);
            }
            (square, along)
        };
        let sums: Vec<(f64, f64)> = parameters.zip(input.gradient[range()].par_chunks(CHUNK)).map(chunk).collect();
        let sum = |part: fn(&(f64, f64)) -> f64| sums.iter().map(part).sum::<f64>();
        Self { length: sum(|sums| sums.0).sqrt(), along: sum(|sums| sums.1) }
    }
}

impl Optimizer for Spd {
    fn state(&mut self) -> Vec<(&'static str, &mut [f32])> {
        self.adam.state()
    }

    fn step(&mut self, input: StepInput<'_>) {
        let places = input.layout.places();
        let before: Vec<_> = places.iter().map(|place| Distance::of(place, &input)).collect();
        let StepInput { parameters, gradient, start, layout, learning_rate, step } = input;
        self.adam.step(StepInput { parameters: &mut *parameters, gradient, start, layout, learning_rate, step });
        for (place, before) in places.iter().zip(&before) {
            let input = StepInput { parameters: &mut *parameters, gradient, start, layout, learning_rate, step };
            let after = Distance::of(place, &input);
            if before.along <= 0.0 || after.length == 0.0 {
                continue;
            }
            let growth = ((after.length - before.length) / after.length).clamp(0.0, 1.0);
            let share = (self.decay * growth) as f32;
            for index in place.range.clone() {
                parameters[index] -= share * (parameters[index] - start[index]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One step at learning rate 1 from a distance; Adam's first step is against the signs of the
    /// gradient, and momentum of another step before may lead on.
    fn stepped(decay: f64, gradients: [f32; 2]) -> f32 {
        let layout = Layout::of(vec![("vector".into(), vec![1])]);
        let values = Values::default().with(&SELECTIVE_DECAY, decay).unwrap();
        let (mut optimizer, mut parameters) = (make(&layout, &values), [3.0f32]);
        for (step, gradient) in (1..).zip(gradients) {
            let (parameters, gradient, layout) = (&mut parameters[..], &[gradient][..], &layout);
            optimizer.step(StepInput { parameters, gradient, start: &[1.0], layout, learning_rate: 1.0, step });
        }
        parameters[0]
    }

    #[test]
    fn only_growth_against_the_gradient_is_undone() {
        // Both steps lead away, and so do the gradients: plain Adam.
        assert_eq!(stepped(1.0, [-1.0, -1.0]), stepped(0.0, [-1.0, -1.0]));
        // Momentum leads away although the gradient now leads back: the old distance stays.
        let first = stepped(1.0, [-1.0, 0.0]);
        assert!(stepped(0.0, [-1.0, 0.1]) > 4.0);
        assert!((stepped(1.0, [-1.0, 0.1]) - 4.0).abs() < 1e-5 && first > 4.0);
        // Both lead back: plain Adam.
        assert_eq!(stepped(1.0, [1.0, 1.0]), stepped(0.0, [1.0, 1.0]));
    }
}
