//! The training loop.
//!
//! Every step follows from the settings, the seed and the last checkpoint, so an interrupted run
//! that is resumed ends with bit-identical parameters.

pub(crate) mod pace;

use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::metrics::{Means, Metrics, stamped};
use crate::objectives::LossOutput;
use crate::order::Order;
use crate::reference;
use crate::schedule::Schedule;
use crate::state::saved;
use crate::task::Task;
use crate::trainer::{Gradient, Term, Trainer};
pub(crate) use pace::Pace;

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

/// Runs a training task, resuming from the latest checkpoint in its folder if there is one.
///
/// ```
/// use std::sync::atomic::AtomicBool;
/// use wsd_nn::{Checkpoint, arch};
/// use wsd_train::{Choice, Example, Finished, Layout, Objective, Sequence, Steps, Task, Term, Trainer, run};
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../nn/tests/fixtures/llama");
/// # let checkpoint = Checkpoint::open(folder.as_ref())?;
/// # let output = tempfile::tempdir()?;
///
/// let blueprint = arch::blueprint(&checkpoint.config)?;
/// let weights = Layout::new(&blueprint).read(&checkpoint)?;
/// let rows = (0..10).map(|row| Example::of(Sequence::targets_from(1, vec![row, row + 1, row + 2])));
/// let objective = Choice::of(Objective::find("pretrain").unwrap());
/// let mut task = Task {
///     folder: output.path().into(),
///     terms: vec![Term::new(&objective, rows.collect())],
///     steps: Steps { max_steps: Some(8), learning_rate: 0.01, logging_steps: 1, ..Steps::default() },
///     seed: 1,
///     stop: &AtomicBool::new(false),
/// };
/// let mut trainer = Trainer::try_new(&blueprint, weights, &Default::default())?;
/// assert_eq!(run(&mut task, &mut trainer, &mut ())?, Finished::Completed);
/// assert_eq!(trainer.state.step, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// I/O errors; [`Error::Diverged`] for a loss, a gradient or a parameter that is no longer a finite
/// number, and [`Error::Setting`] for an objective that `trainer` has not the numbers for. The last
/// checkpoint then stays intact.
pub fn run(task: &mut Task<'_>, trainer: &mut Trainer, reporter: &mut dyn Reporter) -> Result<Finished> {
    trainer.check(&task.terms)?;
    reference::fill(task, trainer, &mut |text| reporter.note(text))?;
    if trainer.state.load_latest(&task.folder)? {
        reporter.note(&format!("resuming after step {}", trainer.state.step));
    }
    let mut run = Run::open(task, trainer, reporter)?;
    while !run.is_done() {
        if run.is_stopped() {
            run.save()?;
            return Ok(Finished::Stopped);
        }
        let update = run.step()?;
        run.log(&update)?;
        let stops_early = run.evaluate()?;
        if run.is_due(task.steps.save_steps) || stops_early || run.is_done() {
            run.save()?;
        }
        if stops_early && !run.is_done() {
            return Ok(Finished::Early);
        }
    }
    Ok(Finished::Completed)
}

/// A run in progress.
struct Run<'a> {
    task: &'a Task<'a>,
    trainer: &'a mut Trainer,
    reporter: &'a mut dyn Reporter,
    schedule: Schedule,
    /// The shuffled order of examples, one per objective.
    orders: Vec<Order>,
    /// The running averages of each objective since the last logged row.
    means: Vec<Means>,
    metrics: Metrics,
    pace: Pace,
    gradient: Gradient,
}

/// The numbers of one update that are reported.
struct Update {
    grad_norm: f64,
    learning_rate: f64,
}

impl<'a> Run<'a> {
    fn open(task: &'a Task<'a>, trainer: &'a mut Trainer, reporter: &'a mut dyn Reporter) -> Result<Self> {
        let order = |(index, term): (usize, &Term)| Order::new(task.seed ^ (index as u64) << 32, term.examples.len());
        Ok(Self {
            schedule: task.schedule(),
            orders: task.terms.iter().enumerate().map(order).collect(),
            means: vec![Means::default(); task.terms.len()],
            metrics: Metrics::open(&task.folder, trainer.state.step)?,
            pace: Pace::new(trainer.state.step),
            gradient: Gradient::default(),
            task,
            trainer,
            reporter,
        })
    }

    fn is_done(&self) -> bool {
        self.trainer.state.step >= self.schedule.total_steps
    }

    fn is_stopped(&self) -> bool {
        self.task.stop.load(Ordering::Relaxed)
    }

    /// True if the step is a multiple of `every`; never if `every` is 0.
    fn is_due(&self, every: usize) -> bool {
        every > 0 && self.trainer.state.step.is_multiple_of(every)
    }

    /// Accumulates the gradients of the next step's examples over all objectives, then updates the
    /// parameters.
    fn step(&mut self) -> Result<Update> {
        let steps = &self.task.steps;
        let (step, progress) = (self.trainer.state.step, self.progress(1));
        let per_step = steps.examples_per_step();
        for (index, term) in self.task.terms.iter().enumerate() {
            let places = self.orders[index].take(step * per_step..(step + 1) * per_step);
            let examples: Vec<_> = places.iter().map(|&place| &term.examples[place]).collect();
            let (weighted, gradient) = (term.at(progress), Some(&mut self.gradient));
            let outputs = self.trainer.compute_losses(weighted, &examples, steps.batch_size, gradient);
            if let Some((value, place)) = broken(&outputs, &places) {
                let what = format!("the loss of {} on its example {}", term.objective.name, place + 1);
                return Err(diverged(&self.task.folder, step + 1, what, value));
            }
            self.means[index].add(&outputs);
            self.pace.add(examples.iter().map(|example| example.tokens()).sum());
        }
        let learning_rate = self.schedule.rate(step + 1);
        match self.trainer.update(&mut self.gradient, steps, learning_rate) {
            Ok(grad_norm) => Ok(Update { grad_norm, learning_rate }),
            Err(what) => Err(diverged(&self.task.folder, step + 1, what, f64::NAN)),
        }
    }

    /// The share of the steps that is done after `more` steps.
    fn progress(&self, more: usize) -> f64 {
        (self.trainer.state.step + more) as f64 / self.schedule.total_steps.max(1) as f64
    }

    /// Writes a row of metrics if one is due.
    fn log(&mut self, update: &Update) -> Result<()> {
        if !self.is_due(self.task.steps.logging_steps.max(1)) && !self.is_done() {
            return Ok(());
        }
        let step = self.trainer.state.step;
        let examples = self.task.terms.first().map_or(1, |term| term.examples.len());
        let mut row = stamped(step);
        row.insert("epoch".into(), json!((step * self.task.steps.examples_per_step()) as f64 / examples as f64));
        row.append(&mut summary((&self.task.terms, self.progress(0)), &self.means, ""));
        row.insert("grad_norm".into(), json!(update.grad_norm));
        row.insert("learning_rate".into(), json!(update.learning_rate));
        row.insert("tokens_per_second".into(), json!(self.pace.tokens_per_second()));
        self.means.fill(Means::default());
        self.report(&row)
    }

    /// Evaluates if due. Returns true if training should stop early.
    fn evaluate(&mut self) -> Result<bool> {
        let has_set = self.task.terms.iter().any(|term| !term.evaluation.is_empty());
        if !has_set || !(self.is_due(self.task.steps.eval_steps) || self.is_done()) {
            return Ok(false);
        }
        let mut means = vec![Means::default(); self.task.terms.len()];
        for (term, means) in self.task.terms.iter().zip(&mut means) {
            let examples: Vec<_> = term.evaluation.iter().collect();
            let weighted = term.at(self.progress(0));
            means.add(&self.trainer.compute_losses(weighted, &examples, self.task.steps.batch_size, None));
        }
        let mut row = stamped(self.trainer.state.step);
        row.append(&mut summary((&self.task.terms, self.progress(0)), &means, "eval_"));
        self.report(&row)?;
        let loss = total_loss(&self.task.terms, self.progress(0), &means).unwrap_or(f64::INFINITY);
        Ok(self.trainer.state.stopping.observe(loss, self.task.steps.early_stopping_patience))
    }

    fn report(&mut self, row: &Map<String, Value>) -> Result<()> {
        self.metrics.add(row)?;
        let total = self.schedule.total_steps;
        self.reporter.progress(row, total, self.pace.seconds_left(self.trainer.state.step, total));
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        self.trainer.state.save(&self.task.folder, self.task.steps.save_total_limit)
    }
}

/// The error of a run in `folder` whose number `what` is not finite in a step, with its last checkpoint.
pub(crate) fn diverged(folder: &Path, step: usize, what: String, value: f64) -> Error {
    let last = saved(folder).ok().and_then(|mut saved| saved.pop());
    let kept = last.map_or("no checkpoint was written yet".into(), |(step, _)| format!("checkpoint-{step} is whole"));
    Error::Diverged { step, what, value, kept }
}

/// The first loss that is not finite, and the place of its example in the data.
fn broken(outputs: &[LossOutput], places: &[usize]) -> Option<(f64, usize)> {
    let losses = outputs.iter().filter_map(|output| output.measures.first()).map(|loss| loss.sum);
    losses.zip(places).find(|(loss, _)| !loss.is_finite()).map(|(loss, place)| (loss, *place))
}

/// Merges the metrics of all objectives. With more than one, `loss` is the weighted sum of their
/// losses, and each objective's own metrics are named `objective/metric`; repeated objectives are
/// numbered from 2.
fn summary((terms, progress): (&[Term], f64), means: &[Means], prefix: &str) -> Map<String, Value> {
    if let [means] = means {
        return means.values(prefix);
    }
    let mut row = Map::new();
    row.insert(format!("{prefix}loss"), json!(total_loss(terms, progress, means)));
    for (index, (term, means)) in terms.iter().zip(means).enumerate() {
        let name = term.objective.name;
        let same = terms[..index].iter().filter(|other| other.objective.name == name).count();
        let number = if same > 0 { (same + 1).to_string() } else { String::new() };
        row.append(&mut means.values(&format!("{prefix}{name}{number}/")));
    }
    row
}

/// The weighted sum of the losses of all terms that have one.
fn total_loss(terms: &[Term], progress: f64, means: &[Means]) -> Option<f64> {
    let losses = terms.iter().zip(means);
    let losses = losses.filter_map(|(term, means)| Some(means.get("loss")? * term.weight.at(progress)));
    losses.reduce(|sum, loss| sum + loss)
}
