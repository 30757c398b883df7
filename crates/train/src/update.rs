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
