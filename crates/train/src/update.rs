//! One update of the parameters of a run.

use crate::layout::{Layout, Place};
use crate::optimizers::{StepInput, clip, norm};
use crate::state::State;

/// A gradient and the terms on which it changes the parameters.
pub(crate) struct Update<'a> {
    /// The gradient with respect to the parameters.
    pub(crate) gradient: &'a mut [f32],
    /// The tensors that the parameters form.
    pub(crate) layout: &'a Layout,
    /// The parameters before the first step; empty unless the optimizer needs them.
    pub(crate) start: &'a [f32],
    /// The learning rate.
    pub(crate) learning_rate: f64,
    /// Each entry of the gradient is clipped to this value; 0 for no clipping.
    pub(crate) max_value: f64,
    /// Then the gradient's norm is clipped to this value; 0 for no clipping.
    pub(crate) max_norm: f64,
    /// The step after which the optimizer began.
    pub(crate) optimizer_start: usize,
}

impl State {
    /// Makes a step. Returns the norm of the gradient before clipping; or else the name of what is no
    /// longer a number. The parameters are then as before unless they themselves are named.
    pub(crate) fn update(&mut self, update: Update<'_>) -> Result<f64, String> {
        let Update { gradient, layout, start, learning_rate, max_value, max_norm, optimizer_start } = update;
        let whole = norm(gradient);
        if !whole.is_finite() {
            return Err(format!("the gradient of `{}`", broken(layout, gradient)));
        }
        if max_value > 0.0 {
            let most = max_value as f32;
            gradient.iter_mut().for_each(|value| *value = value.clamp(-most, most));
        }
        let clipped = if max_value > 0.0 { norm(gradient) } else { whole };
        clip(gradient, clipped, max_norm);
        self.step += 1;
        let (parameters, step) = (&mut *self.parameters, self.step - optimizer_start);
        self.optimizer.step(StepInput { parameters, gradient, start, layout, learning_rate, step });
        // A sum of finite numbers may overflow; each of its terms then is looked at.
        let is_finite = self.parameters.iter().sum::<f32>().is_finite();
        if is_finite || self.parameters.iter().all(|value| value.is_finite()) {
            return Ok(whole);
        }
        Err(format!("`{}` after the update", broken(layout, &self.parameters)))
    }
}

/// The name of the first tensor with a value that is not finite.
fn broken<'l>(layout: &'l Layout, values: &[f32]) -> &'l str {
    let is_broken = |place: &&Place| values[place.range.clone()].iter().any(|value| !value.is_finite());
    layout.places().iter().find(is_broken).map_or("a tensor", |place| &place.name)
}

#[cfg(test)]
mod tests {
    use wsd_core::Values;

    use super::*;
    use crate::optimizers::OptimizerEntry;
    use crate::state::EarlyStopping;

    /// The norm that an update of [3, 4] reports, and the parameters after it: from 0, at the learning rate 1.
    fn updated(max_value: f64, max_norm: f64) -> (f64, Vec<f32>) {
        let layout = Layout::of(vec![("bias".into(), vec![2])]);
        let optimizer = (OptimizerEntry::find("sgd").unwrap().make)(&layout, &Values::default());
        let parameters = vec![0.0; 2];
        let mut state =
            State { step: 0, parameters, average: Vec::new(), optimizer, stopping: EarlyStopping::default() };
        let update = Update {
            gradient: &mut [3.0, 4.0],
            layout: &layout,
            start: &[],
            learning_rate: 1.0,
            max_value,
            max_norm,
            optimizer_start: 0,
        };
        (state.update(update).unwrap(), state.parameters)
    }

    #[test]
    fn values_are_clipped_before_the_norm() {
        let half = std::f32::consts::FRAC_1_SQRT_2;
        for (max_value, max_norm, expected) in [
            (0.0, 0.0, [-3.0, -4.0]),
            (0.0, 1.0, [-0.6, -0.8]),
            (3.5, 0.0, [-3.0, -3.5]),
            (0.5, 0.0, [-0.5, -0.5]),
            // The norm of [3, 3] is clipped, and not that of [3, 4].
            (3.0, 1.0, [-half, -half]),
            // The norm of [0.5, 0.5] is below 1.
            (0.5, 1.0, [-0.5, -0.5]),
        ] {
            let (norm, parameters) = updated(max_value, max_norm);
            assert_eq!(norm, 5.0, "the norm before any clipping");
            let is_near = parameters.iter().zip(expected).all(|(value, expected)| (value - expected).abs() < 1e-6);
            assert!(is_near, "{max_value}, {max_norm}: {parameters:?}");
        }
    }
}
