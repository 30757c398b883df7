//! Adaptation to a stream of unlabelled texts of changing domains: OoPk (arXiv 2506.19022) for texts.
//!
//! The method is from image segmentation, and neither code nor numbers are published: this is a
//! reconstruction. A teacher is the exponential moving average of the student's parameters. Both read
//! the same text, the student with a share of its tokens masked, and the student learns the
//! distributions of the teacher at every position. Texts come in their order, each once. Nothing of
//! this belongs in a server, whose answers must not depend on earlier requests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use wsd_core::splitmix64;

use crate::error::{Error, Result};
use crate::example::Example;
use crate::metrics::{Means, Metrics, stamped};
use crate::run::pace::Pace;
use crate::run::{Finished, Reporter, diverged};
use crate::state::State;
use crate::steps::Steps;
use crate::trainer::{Gradient, Term, Trainer};

/// A part of the stream.
pub struct Domain {
    /// The name, for messages.
    pub name: String,
    /// The texts in their order; every token but the first is a target.
    pub examples: Vec<Example>,
}

/// The settings of an adaptation.
#[derive(Clone, Debug)]
pub struct AdaptOptions {
    /// Texts of a step, at least 1.
    pub batch_size: usize,
    /// The learning rate, the same throughout.
    pub learning_rate: f64,
    /// The share of tokens that the student reads masked, from 0 to 1.
    pub mask_share: f64,
    /// The token that stands for a masked one.
    pub mask_token: u32,
    /// The share of the teacher that stays in a step, from 0 to 1.
    pub momentum: f64,
    /// True to go back to the source, optimizer included, at the start of each domain.
    pub resets: bool,
    /// Steps between two checkpoints; a domain ends with one too.
    pub save_steps: usize,
    /// The seed of masks.
    pub seed: u64,
}

/// An adaptation before it runs.
pub struct Adaptation<'a> {
    /// The folder of checkpoints and metrics; it exists.
    pub folder: PathBuf,
    /// The stream.
    pub domains: Vec<Domain>,
    /// The consistency loss, without examples of its own: an objective that needs rows and a reference.
    pub loss: Term,
    /// The settings.
    pub options: AdaptOptions,
    /// A flag that stops after the current step.
    pub stop: &'a AtomicBool,
}

/// The state that a reset goes back to.
struct Source {
    parameters: Vec<f32>,
    /// The tensors of the optimizer, in their order.
    optimizer: Vec<Vec<f32>>,
}

impl Source {
    fn of(state: &mut State) -> Self {
        let optimizer = state.optimizer.state().into_iter().map(|(_, values)| values.to_vec()).collect();
        Self { parameters: state.parameters.clone(), optimizer }
    }

    fn restore(&self, state: &mut State) {
        state.parameters.copy_from_slice(&self.parameters);
        state.average.copy_from_slice(&self.parameters);
        let optimizer = state.optimizer.state().into_iter().zip(&self.optimizer);
        optimizer.for_each(|((_, values), source)| values.copy_from_slice(source));
    }
}

/// A function of the trainer, whose teacher is the adapted model, and of the number of a domain, from
/// 0. Its error `E` may be another than the trainer's.
pub type Ended<'e, E> = dyn FnMut(&mut Trainer, usize) -> Result<(), E> + 'e;

impl AdaptOptions {
    /// Checks the limits.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value outside its limits.
    pub fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::setting("batch_size", "at least 1", self.batch_size));
        }
        let shares = [("mask_share", self.mask_share), ("momentum", self.momentum)];
        match shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            Some((name, share)) => Err(Error::setting(name, "from 0 to 1", share)),
            None => Ok(()),
        }
    }
}

impl Adaptation<'_> {
    /// Runs through the stream, resuming from the latest checkpoint in the folder if there is one.
    /// `ended` is called after each domain, and again after a domain at whose end a run was stopped.
    ///
    /// # Errors
    /// Those of [`run()`](crate::run()) and of `ended`.
    pub fn run<E: From<Error>>(
        &self,
        trainer: &mut Trainer,
        reporter: &mut dyn Reporter,
        ended: &mut Ended<'_, E>,
    ) -> Result<Finished, E> {
        self.check()?;
        trainer.start_teacher();
        let source = self.options.resets.then(|| Source::of(&mut trainer.state));
        trainer.follow_teacher();
        trainer.check(std::slice::from_ref(&self.loss))?;
        if trainer.state.load_latest(&self.folder)? {
            reporter.note(&format!("resuming after step {}", trainer.state.step));
        }
        let mut metrics = Metrics::open(&self.folder, trainer.state.step)?;
        let (ends, mut gradient, pace) = (self.ends(), Gradient::default(), Pace::new(trainer.state.step));
        let total = ends.last().copied().unwrap_or(0);
        if let Some(index) = ends.iter().position(|end| *end == trainer.state.step) {
            ended(trainer, index)?;
        }
        while trainer.state.step < total {
            if self.stop.load(Ordering::Relaxed) {
                trainer.state.save(&self.folder, 1)?;
                return Ok(Finished::Stopped);
            }
            let index = ends.iter().filter(|end| **end <= trainer.state.step).count();
            let start = index.checked_sub(1).map_or(0, |before| ends[before]);
            if let Some(source) = &source {
                trainer.optimizer_start = start;
                if trainer.state.step == start {
                    source.restore(&mut trainer.state);
                }
            }
            let domain = &self.domains[index];
            let loss = self.step(trainer, &mut gradient, domain, trainer.state.step - start)?;
            let mut row = stamped(trainer.state.step);
            row.insert("domain".into(), json!(domain.name));
            row.insert("loss".into(), json!(loss));
            metrics.add(&row)?;
            let step = trainer.state.step;
            if step.is_multiple_of(10) || step == ends[index] {
                reporter.progress(&row, total, pace.seconds_left(step, total));
            }
            let is_due = self.options.save_steps > 0 && step.is_multiple_of(self.options.save_steps);
            if is_due || step == ends[index] {
                trainer.state.save(&self.folder, 1)?;
            }
            if step == ends[index] {
                ended(trainer, index)?;
            }
        }
        Ok(Finished::Completed)
    }

    fn check(&self) -> Result<()> {
        self.options.check()?;
        match self.domains.iter().find(|domain| domain.examples.is_empty()) {
            Some(domain) => Err(Error::setting("stream", "files with texts", &domain.name)),
            None => Ok(()),
        }
    }

    /// The number of steps up to the end of each domain.
    fn ends(&self) -> Vec<usize> {
        let steps = self.domains.iter().map(|domain| domain.examples.len().div_ceil(self.options.batch_size));
        let sum = |end: &mut usize, steps: usize| {
            *end += steps;
            Some(*end)
        };
        steps.scan(0, sum).collect()
    }

    /// Learns from the texts of step `at` of a domain and lets the teacher follow. Returns the loss.
    fn step(&self, trainer: &mut Trainer, gradient: &mut Gradient, domain: &Domain, at: usize) -> Result<f64> {
        let AdaptOptions { batch_size, learning_rate, momentum, .. } = self.options;
        let step = trainer.state.step + 1;
        let texts = domain.examples.iter().skip(at * batch_size).take(batch_size).cloned();
        let texts: Vec<_> = texts.enumerate().map(|(place, text)| self.masked(text, (step << 20) + place)).collect();
        trainer.follow_teacher();
        let outputs =
            trainer.compute_losses(self.loss.at(0.0), &texts.iter().collect::<Vec<_>>(), batch_size, Some(gradient))?;
        let mut means = Means::default();
        means.add(&outputs);
        let loss = means.get("loss").unwrap_or(f64::NAN);
        if !loss.is_finite() {
            return Err(diverged(&self.folder, step, format!("the loss on {}", domain.name), loss));
        }
        let steps = Steps { batch_size, ..Steps::default() };
        let update = trainer.update(gradient, &steps, learning_rate);
        update.map_err(|what| diverged(&self.folder, step, what, f64::NAN))?;
        let state = &mut trainer.state;
        for (teacher, student) in state.average.iter_mut().zip(&state.parameters) {
            *teacher = (momentum * f64::from(*teacher) + (1.0 - momentum) * f64::from(*student)) as f32;
        }
        Ok(loss)
    }

    /// A text with masks that depend on the seed and on `number` alone; its first token stays.
    fn masked(&self, text: Example, number: usize) -> Example {
        let AdaptOptions { mask_share, mask_token, seed, .. } = self.options;
        let is_masked = |position: &usize| {
            let key = splitmix64(seed ^ (number as u64) << 16) ^ *position as u64;
            (splitmix64(key) >> 11) as f64 / ((1u64 << 53) as f64) < mask_share
        };
        let masked = (1..text.tokens()).filter(is_masked).map(|position| (position, mask_token)).collect();
        Example { masked, ..text }
    }
}

#[cfg(test)]
mod tests;
