//! DiGraP: Adam whose gradient loses a trainable share of the part that leads away from the start
//! (Huang et al. 2025, arXiv 2502.15895, algorithm 1).
//!
//! With `g` the gradient of a tensor and `d` its distance from the start, the projection of `g` on
//! `d` is `(g . d / |d|^2) d`. Where the two objectives of small loss and small distance conflict,
//! a share `omega` of the projection is taken off. `omega` itself follows Adam on its
//! hypergradient, the product of `g` and the projection of the step before: it falls while the
//! gradient keeps pointing away from the start and rises while it swings.
//!
//! The printed algorithm and the caption of figure 1 disagree about the sign, at least as texts:
//! the former projects unless `g . d < 0`, the latter where the gradients conflict, and conflict is
//! `g . d < 0` since PCGrad (Yu et al. 2020, arXiv 2001.06782). Here `g . d < 0` is projected: then
//! descent leads away from the start, and the other sign would take off the way back. `project`
//! has both. The normalization of the hypergradient is not defined in the text either; here it is
//! the cosine of the two vectors.

use rayon::prelude::*;
use wsd_core::{Setting, Values};

use super::adamw::{AdamW, BETA1, BETA2, EPSILON};
use super::{CHUNK, Optimizer, OptimizerEntry, StepInput, WEIGHT_DECAY};
use crate::layout::{Layout, Place};

static MU: Setting =
    Setting::number("mu", "Learning rate of the projected share of each tensor", 0.0..=1.0).with_default_number(0.01);
static OMEGA: Setting =
    Setting::number("omega", "Projected share before the first step", 0.0..=1.0).with_default_number(0.0);
static PROJECT: Setting = Setting::choice(
    "project",
    "Gradients that are projected",
    &[
        ("conflict", "Those whose descent leads away from the start"),
        ("agreement", "Those whose descent leads back to the start"),
    ],
);

pub(super) static ENTRY: OptimizerEntry = OptimizerEntry {
    name: "digrap",
    about: "Adam with gradients projected against the way from the start (DiGraP)",
    settings: &[&WEIGHT_DECAY, &BETA1, &BETA2, &EPSILON, &MU, &OMEGA, &PROJECT],
    needs_start: true,
    make,
};

fn make(layout: &Layout, values: &Values) -> Box<dyn Optimizer> {
    Box::new(DiGraP::new(layout, values))
}

/// Decay of the moments of the hypergradient, and the constant beside its root.
const OMEGA_BETAS: [f64; 2] = [0.9, 0.999];
const OMEGA_EPSILON: f64 = 1e-8;

struct DiGraP {
    adam: AdamW,
    mu: f64,
    /// 1 to project conflicting gradients, -1 to project agreeing ones.
    sign: f64,
    /// The projections of the step before.
    projections: Vec<f32>,
    /// The share of the projection that is taken off, per tensor.
    omegas: Vec<f32>,
    /// Running means of the hypergradient and of its square, per tensor.
    moments: [Vec<f32>; 2],
    /// The gradient that Adam takes in; no state.
    gradient: Vec<f32>,
}

/// Two vectors of one length.
type Pair<'a> = (&'a [f32], &'a [f32]);

/// Inner products of the gradient `g`, the distance `d` and the last projection `p` of a tensor.
#[derive(Clone, Copy, Default)]
struct Products {
    gd: f64,
    dd: f64,
    gp: f64,
    gg: f64,
    pp: f64,
}

impl Products {
    fn of(input: &StepInput<'_>, projections: &[f32], place: &Place) -> Self {
        let range = || place.range.clone();
        let parameters = input.parameters[range()].par_chunks(CHUNK).zip(input.start[range()].par_chunks(CHUNK));
        let gradients = input.gradient[range()].par_chunks(CHUNK).zip(projections[range()].par_chunks(CHUNK));
        let chunk = |((parameters, start), (gradients, projections)): (Pair<'_>, Pair<'_>)| {
            let mut sums = Self::default();
            for ((parameter, start), (g, p)) in parameters.iter().zip(start).zip(gradients.iter().zip(projections)) {
                let (d, g, p) = (f64::from(parameter - start), f64::from(*g), f64::from(*p));
                sums.gd += g * d;
                sums.dd += d * d;
                sums.gp += g * p;
                sums.gg += g * g;
                sums.pp += p * p;
            }
            sums
        };
        let sums: Vec<Self> = parameters.zip(gradients).map(chunk).collect();
        sums.into_iter().fold(Self::default(), |a, b| Self {
            gd: a.gd + b.gd,
            dd: a.dd + b.dd,
            gp: a.gp + b.gp,
            gg: a.gg + b.gg,
            pp: a.pp + b.pp,
        })
    }

    /// The cosine of the gradient and the last projection; 0 where one of them is zero.
    fn hypergradient(&self) -> f64 {
        let lengths = (self.gg * self.pp).sqrt();
        if lengths > 0.0 { self.gp / lengths } else { 0.0 }
    }
}

impl DiGraP {
    fn new(layout: &Layout, values: &Values) -> Self {
        let (len, tensors) = (layout.len(), layout.places().len());
        Self {
            adam: AdamW::new(layout, values),
            mu: values.get(&MU),
            sign: if values.get::<&str>(&PROJECT) == "agreement" { -1.0 } else { 1.0 },
            projections: vec![0.0; len],
            omegas: vec![values.get::<f32>(&OMEGA); tensors],
            moments: [vec![0.0; tensors], vec![0.0; tensors]],
            gradient: vec![0.0; len],
        }
    }

    /// Lets the share of a tensor descend along its hypergradient by Adam, within 0 and 1. `step` counts
    /// the hypergradients.
    fn update_omega(&mut self, tensor: usize, hypergradient: f64, step: usize) {
        let [mean, square] = &mut self.moments;
        let (mean, square) = (&mut mean[tensor], &mut square[tensor]);
        let [beta1, beta2] = OMEGA_BETAS;
        *mean = (f64::from(*mean) * beta1 + (1.0 - beta1) * hypergradient) as f32;
        *square = (f64::from(*square) * beta2 + (1.0 - beta2) * hypergradient * hypergradient) as f32;
        let corrected = |moment: f32, beta: f64| f64::from(moment) / (1.0 - beta.powf(step as f64));
        let move_by = corrected(*mean, beta1) / (corrected(*square, beta2).sqrt() + OMEGA_EPSILON);
        let omega = &mut self.omegas[tensor];
        *omega = (f64::from(*omega) - self.mu * move_by).clamp(0.0, 1.0) as f32;
    }

    /// Sets the gradient that Adam takes in, and the projections that the next step needs.
    fn project(&mut self, input: &StepInput<'_>) {
        for (tensor, place) in input.layout.places().iter().enumerate() {
            let products = Products::of(input, &self.projections, place);
            if input.step > 1 {
                // The first step has no hypergradient.
                self.update_omega(tensor, products.hypergradient(), input.step - 1);
            }
            let share = if products.dd > 0.0 { (products.gd / products.dd) as f32 } else { 0.0 };
            let omega = if self.sign * products.gd < 0.0 { self.omegas[tensor] } else { 0.0 };
            for index in place.range.clone() {
                let projection = share * (input.parameters[index] - input.start[index]);
                self.projections[index] = projection;
                let gradient = input.gradient[index];
                self.gradient[index] = if omega == 0.0 { gradient } else { gradient - omega * projection };
            }
        }
    }
}

impl Optimizer for DiGraP {
    fn state(&mut self) -> Vec<(&'static str, &mut [f32])> {
        let [means, squares] = &mut self.moments;
        let mut state = self.adam.state();
        state.extend([
            ("projections", &mut self.projections[..]),
            ("omegas", &mut self.omegas[..]),
            ("omega_means", &mut means[..]),
            ("omega_squares", &mut squares[..]),
        ]);
        state
    }

    fn step(&mut self, input: StepInput<'_>) {
        self.project(&input);
        self.adam.step(StepInput { gradient: &self.gradient, ..input });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::of(vec![("matrix".into(), vec![2, 3]), ("vector".into(), vec![2])])
    }

    fn gradient(step: usize) -> Vec<f32> {
        (0..8).map(|at| ((at * 5 + step * 3) as f32 * 0.7).sin() + 0.4).collect()
    }

    /// The parameters after 20 steps, and per step the gradients given and taken in with the
    /// distances from the start.
    fn descended(optimizer: &mut DiGraP) -> (Vec<f32>, Vec<[Vec<f32>; 3]>) {
        let (start, layout) = ([0.5f32; 8], layout());
        let (mut parameters, mut seen) = (start.to_vec(), Vec::new());
        for step in 1..=20 {
            let distance = parameters.iter().zip(&start).map(|(now, start)| now - start).collect();
            let (gradient, learning_rate) = (gradient(step), 0.05);
            let (parameters, start, layout) = (&mut parameters[..], &start[..], &layout);
            optimizer.step(StepInput { parameters, gradient: &gradient, start, layout, learning_rate, step });
            assert!(optimizer.omegas.iter().all(|omega| (0.0..=1.0).contains(omega)));
            seen.push([gradient, optimizer.gradient.clone(), distance]);
        }
        (parameters, seen)
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    fn fixed(omega: f64) -> Values {
        Values::default().with(&MU, 0.0).unwrap().with(&OMEGA, omega).unwrap()
    }

    #[test]
    fn a_share_of_none_is_adam_to_the_bit() {
        let (found, _) = descended(&mut DiGraP::new(&layout(), &fixed(0.0)));
        let (start, layout) = ([0.5f32; 8], layout());
        let (mut adam, mut parameters) = (AdamW::new(&layout, &Values::default()), start.to_vec());
        for step in 1..=20 {
            let (gradient, parameters) = (gradient(step), &mut parameters[..]);
            let (start, layout, learning_rate) = (&start[..], &layout, 0.05);
            adam.step(StepInput { parameters, gradient: &gradient, start, layout, learning_rate, step });
        }
        assert_eq!(found, parameters);
    }

    #[test]
    fn a_whole_share_leaves_nothing_along_the_distance() {
        for (word, sign) in [("conflict", 1.0), ("agreement", -1.0)] {
            let values = fixed(1.0).with(&PROJECT, word).unwrap();
            let (_, seen) = descended(&mut DiGraP::new(&layout(), &values));
            let mut projected = 0;
            for [given, taken, distance] in &seen {
                for range in layout().places().iter().map(|place| place.range.clone()) {
                    let (given, taken, distance) = (&given[range.clone()], &taken[range.clone()], &distance[range]);
                    if sign * dot(given, distance) < 0.0 {
                        projected += 1;
                        assert!(dot(taken, distance).abs() < 1e-6, "{word}: {}", dot(taken, distance));
                    } else {
                        assert_eq!(given, taken, "{word}");
                    }
                }
            }
            assert!(projected > 2 && projected < 40, "{word}: {projected}");
        }
    }

    #[test]
    fn the_start_divides_by_nothing() {
        let mut optimizer = DiGraP::new(&layout(), &fixed(1.0));
        let start = [0.5f32; 8];
        let (mut parameters, gradient, layout) = (start, gradient(1), layout());
        let (parameters, start, learning_rate) = (&mut parameters[..], &start[..], 0.05);
        optimizer.step(StepInput { parameters, gradient: &gradient, start, layout: &layout, learning_rate, step: 1 });
        assert_eq!(optimizer.gradient, gradient);
        assert_eq!(optimizer.projections, [0.0; 8]);
    }

    #[test]
    fn the_share_falls_while_the_gradient_persists() {
        let values = Values::default().with(&OMEGA, 0.5).unwrap();
        let mut optimizer = DiGraP::new(&layout(), &values);
        let start = [0.0f32; 8];
        let (mut parameters, layout, gradient) = (start, layout(), [1.0f32; 8]);
        for step in 1..=5 {
            let (parameters, start, layout) = (&mut parameters[..], &start[..], &layout);
            optimizer.step(StepInput { parameters, gradient: &gradient, start, layout, learning_rate: 0.1, step });
        }
        assert!(optimizer.omegas.iter().all(|omega| *omega < 0.48), "{:?}", optimizer.omegas);
    }
}
