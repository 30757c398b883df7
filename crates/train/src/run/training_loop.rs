//! The loop over the steps of training.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use super::pace::Pace;
use crate::error::{Error, Result};
use crate::metrics::{Metrics, stamped};
use crate::objectives::LossOutput;
use crate::schedule::Schedule;
use crate::state::{State, saved};
use crate::steps::Steps;

/// An observer of a run. Its methods do nothing by default, and `()` is the silent one.
pub trait Reporter {
    /// Reports a row of metrics; `seconds_left` is an estimate.
    fn progress(&mut self, _row: &Map<String, Value>, _total_steps: usize, _seconds_left: f64) {}

    /// Reports any other event.
    fn note(&mut self, _text: &str) {}
}

impl Reporter for () {}

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// All steps are done.
    Completed,
    /// Early stopping: the evaluation loss did not improve for `early_stopping_patience`
    /// evaluations.
    Early,
    /// The run was stopped and can resume from a checkpoint.
    Stopped,
}

/// Parameters in training, with their data and their loss.
pub(crate) trait Learner {
    /// The parameters, the optimizer's state and the number of steps done.
    fn state(&mut self) -> &mut State;

    /// The number of examples of an epoch.
    fn examples(&self) -> usize;

    /// Tells whether there is an evaluation set.
    fn has_evaluation(&self) -> bool;

    /// Makes the next step.
    fn step(&mut self, learning_rate: f64) -> Result<Step>;

    /// The means over the steps since the last call.
    fn means(&mut self) -> Map<String, Value>;

    /// The means over the evaluation set, named `eval_*`, and the loss.
    fn evaluate(&mut self) -> Result<(Map<String, Value>, f64)>;
}

/// The numbers of one step that are reported.
pub(crate) struct Step {
    pub(crate) grad_norm: f64,
    pub(crate) tokens: usize,
}

/// The training loop: its folder, its settings, and the flag that stops it.
#[derive(Clone, Copy)]
pub(crate) struct TrainingLoop<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) steps: &'a Steps,
    pub(crate) stop: &'a AtomicBool,
}

impl TrainingLoop<'_> {
    /// Makes all steps of a learner, resuming from the latest checkpoint if there is one.
    ///
    /// # Errors
    /// Those of the learner and of the file system.
    pub(crate) fn run(self, learner: &mut dyn Learner, reporter: &mut dyn Reporter) -> Result<Finished> {
        if learner.state().load_latest(self.folder)? {
            reporter.note(&format!("resuming after step {}", learner.state().step));
        }
        let mut run = Run::open(self, learner, reporter)?;
        while !run.is_done() {
            if self.stop.load(Ordering::Relaxed) {
                run.save()?;
                return Ok(Finished::Stopped);
            }
            run.step()?;
            let stops_early = run.evaluate()?;
            if run.is_due(self.steps.save_steps) || stops_early || run.is_done() {
                run.save()?;
            }
            if stops_early && !run.is_done() {
                return Ok(Finished::Early);
            }
        }
        Ok(Finished::Completed)
    }
}

/// A run in progress.
struct Run<'a> {
    training: TrainingLoop<'a>,
    learner: &'a mut dyn Learner,
    reporter: &'a mut dyn Reporter,
    schedule: Schedule,
    metrics: Metrics,
    pace: Pace,
}

impl<'a> Run<'a> {
    fn open(training: TrainingLoop<'a>, learner: &'a mut dyn Learner, reporter: &'a mut dyn Reporter) -> Result<Self> {
        let step = learner.state().step;
        Ok(Self {
            schedule: training.steps.schedule(learner.examples()),
            metrics: Metrics::open(training.folder, step)?,
            pace: Pace::new(step),
            training,
            learner,
            reporter,
        })
    }

    fn done(&mut self) -> usize {
        self.learner.state().step
    }

    fn is_done(&mut self) -> bool {
        self.done() >= self.schedule.total_steps
    }

    /// True if the step is a multiple of `every`; never if `every` is 0.
    fn is_due(&mut self, every: usize) -> bool {
        every > 0 && self.done().is_multiple_of(every)
    }

    /// Makes the next step, and writes a row of metrics if one is due.
    fn step(&mut self) -> Result<()> {
        let next = self.done() + 1;
        let learning_rate = self.schedule.rate(next);
        let Step { grad_norm, tokens } = self.learner.step(learning_rate)?;
        self.pace.add(tokens);
        let steps = self.training.steps;
        if !self.is_due(steps.logging_steps.max(1)) && !self.is_done() {
            return Ok(());
        }
        let mut row = stamped(self.done());
        let seen = self.done() * steps.examples_per_step();
        row.insert("epoch".into(), json!(seen as f64 / self.learner.examples() as f64));
        row.append(&mut self.learner.means());
        row.insert("grad_norm".into(), json!(grad_norm));
        row.insert("learning_rate".into(), json!(learning_rate));
        row.insert("tokens_per_second".into(), json!(self.pace.tokens_per_second()));
        self.report(&row)
    }

    /// Evaluates if due. Returns true if training should stop early.
    fn evaluate(&mut self) -> Result<bool> {
        let steps = self.training.steps;
        if !self.learner.has_evaluation() || !(self.is_due(steps.eval_steps) || self.is_done()) {
            return Ok(false);
        }
        let (mut means, loss) = self.learner.evaluate()?;
        let mut row = stamped(self.done());
        row.append(&mut means);
        self.report(&row)?;
        Ok(self.learner.state().stopping.observe(loss, steps.early_stopping_patience))
    }

    fn report(&mut self, row: &Map<String, Value>) -> Result<()> {
        self.metrics.add(row)?;
        let (done, total) = (self.done(), self.schedule.total_steps);
        self.reporter.progress(row, total, self.pace.seconds_left(done, total));
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        self.learner.state().save(self.training.folder, self.training.steps.save_total_limit)
    }
}

/// The error of a run in `folder` whose number `what` is not finite in a step, with its last checkpoint.
pub(crate) fn diverged(folder: &Path, step: usize, what: String, value: f64) -> Error {
    let last = saved(folder).ok().and_then(|mut saved| saved.pop());
    let kept = last.map_or("no checkpoint was written yet".into(), |(step, _)| format!("checkpoint-{step} is whole"));
    Error::Diverged { step, what, value, kept }
}

/// The first loss that is not finite, and the place of its example in the data.
pub(crate) fn broken(outputs: &[LossOutput], places: &[usize]) -> Option<(f64, usize)> {
    let losses = outputs.iter().filter_map(|output| output.measures.first()).map(|loss| loss.sum);
    losses.zip(places).find(|(loss, _)| !loss.is_finite()).map(|(loss, place)| (loss, *place))
}
