//! Optimizers: update rules for parameters, one entry each in [`OPTIMIZERS`].

mod adamw;
mod digrap;
mod muon;
mod sgd;
mod spd;

use rayon::prelude::*;
use wsd_core::{Setting, Values};

use crate::layout::Layout;

/// Floats that one task of an element-wise update handles.
pub(crate) const CHUNK: usize = 1 << 14;

/// The decay of matrices, which several optimizers have. Norms and biases do not decay.
static WEIGHT_DECAY: Setting =
    Setting::number("weight_decay", "Share of each matrix that a step at learning rate 1 removes", 0.0..=1e3)
        .with_default_number(0.0);

/// An update rule; an entry of [`OPTIMIZERS`].
#[derive(Debug)]
pub struct OptimizerEntry {
    /// The name in run files.
    pub name: &'static str,
    /// One line for the documentation.
    pub about: &'static str,
    /// The settings of this optimizer.
    pub settings: &'static [&'static Setting],
    /// True where [`StepInput::start`] is read; the trainer keeps a copy of the parameters then.
    pub needs_start: bool,
    /// Makes the optimizer from checked settings, for parameters of a layout.
    pub make: fn(&Layout, &Values) -> Box<dyn Optimizer>,
}

/// All optimizers; the first is the default.
pub static OPTIMIZERS: &[&OptimizerEntry] = &[
    // In the order of messages.
    &adamw::ENTRY,
    &sgd::ENTRY,
    &muon::ENTRY,
    &digrap::ENTRY,
    &spd::ENTRY,
];

impl OptimizerEntry {
    /// The optimizer of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        OPTIMIZERS.iter().copied().find(|entry| entry.name == name)
    }
}

/// An update rule together with its state.
///
/// ```
/// use wsd_core::Values;
/// use wsd_train::{Layout, OptimizerEntry, StepInput};
///
/// let layout = Layout::of(vec![("matrix".into(), vec![1, 2])]);
/// let mut sgd = (OptimizerEntry::find("sgd").unwrap().make)(&layout, &Values::default());
/// let mut parameters = [1.0, 2.0];
/// let input = StepInput {
///     parameters: &mut parameters,
///     gradient: &[1.0, -1.0],
///     start: &[],
///     layout: &layout,
///     learning_rate: 0.5,
///     step: 1,
/// };
/// sgd.step(input);
/// assert_eq!(parameters, [0.5, 2.5]);
/// ```
pub trait Optimizer: Send {
    /// The state as named tensors, whose lengths depend on the layout alone. Checkpoints hold it under these
    /// names; a run that resumes gets back the same bits.
    fn state(&mut self) -> Vec<(&'static str, &mut [f32])>;

    /// Updates the parameters.
    fn step(&mut self, input: StepInput<'_>);
}

/// The numbers of one update.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The parameters, to be changed.
    pub parameters: &'a mut [f32],
    /// The gradient of the loss with respect to the parameters, after clipping.
    pub gradient: &'a [f32],
    /// The parameters before the first step; empty unless the entry sets `needs_start`.
    pub start: &'a [f32],
    /// The tensors that the parameters form.
    pub layout: &'a Layout,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The number of this step, from 1.
    pub step: usize,
}

/// The Euclidean norm, in double precision and with a fixed order of summation.
pub(crate) fn norm(gradient: &[f32]) -> f64 {
    let square = |chunk: &[f32]| {
        let mut sums = [0.0f64; 8];
        for block in chunk.chunks(8) {
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
        sums.iter().sum::<f64>()
    };
    let sums: Vec<f64> = gradient.par_chunks(CHUNK).map(square).collect();
    sums.iter().sum::<f64>().sqrt()
}

/// Scales a gradient of norm `norm` down to `max_norm`, as `torch.nn.utils.clip_grad_norm_` does; 0
/// for no clipping.
pub(crate) fn clip(gradient: &mut [f32], norm: f64, max_norm: f64) {
    let factor = if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 };
    if factor != 1.0 {
        gradient.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|value| *value *= factor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every optimizer walks down a parabola, and its state determines its next step.
    #[test]
    fn every_optimizer_descends_and_resumes() {
        let layout = Layout::of(vec![("matrix".into(), vec![2, 2]), ("norm".into(), vec![2])]);
        let start = [3.0f32, -2.0, 1.0, 0.5, -1.0, 2.0];
        for entry in OPTIMIZERS {
            let make = || (entry.make)(&layout, &Values::default());
            let step = |optimizer: &mut dyn Optimizer, parameters: &mut [f32], step| {
                let gradient: Vec<f32> = parameters.iter().map(|value| 2.0 * value).collect();
                let (start, layout) = (&start[..], &layout);
                optimizer.step(StepInput { parameters, gradient: &gradient, start, layout, learning_rate: 0.02, step });
            };
            let (mut optimizer, mut parameters) = (make(), start);
            (1..=200).for_each(|at| step(&mut *optimizer, &mut parameters, at));
            assert!(norm(&parameters) < 0.7 * norm(&start), "{}", entry.name);
            let (mut resumed, mut again) = (make(), parameters);
            for ((name, to), (other, from)) in resumed.state().into_iter().zip(optimizer.state()) {
                assert_eq!((name, to.len()), (other, from.len()));
                to.copy_from_slice(from);
            }
            step(&mut *optimizer, &mut parameters, 201);
            step(&mut *resumed, &mut again, 201);
            assert_eq!(parameters, again, "{}", entry.name);
        }
    }

    #[test]
    fn long_gradients_are_clipped() {
        let mut gradient = [3.0, 4.0];
        clip(&mut gradient, 5.0, 10.0);
        assert_eq!(gradient, [3.0, 4.0]);
        clip(&mut gradient, 5.0, 0.0);
        assert_eq!(gradient, [3.0, 4.0]);
        clip(&mut gradient, 5.0, 1.0);
        assert!((norm(&gradient) - 1.0).abs() < 1e-6);
    }
}
