//! Training: next tokens, answers, preferences.
//!
//! [`run`] is the loop. An [`Objective`] turns the log-probabilities of an example's learned tokens into a loss and its
//! slopes; a [`Trainee`] turns those into a gradient of all weights; [`Learner`] steps. Everything that a step depends on
//! follows from the settings, the seed and the last checkpoint, so a run that was killed goes on as if nothing had been.

pub mod data;
mod encode;
mod error;
pub mod events;
mod export;
mod layout;
mod metrics;
mod model;
mod native;
mod objective;
mod optimizer;
mod order;
mod reference;
mod schedule;
mod settings;
mod start;
mod state;
mod tuning;
mod vocabulary;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

pub use encode::{Encoder, wrapped};
pub use error::{Error, Result};
pub use export::{save_checkpoint, save_folder};
pub use layout::{Layout, Place};
pub use metrics::{FILE as METRICS_FILE, Means, Metrics};
pub use model::{Example, Grade, Graded, Measure, Sequence, Trainee};
pub use native::{Native, NativeOptions};
pub use objective::{Learns, OBJECTIVES, Objective, Totals};
pub use optimizer::Learner;
pub use order::Order;
pub use reference::forget_reference;
pub use schedule::{Decay, Schedule};
pub use settings::{Lora, Preference, Steps};
pub use start::{INITIALIZER_RANGE, random};
pub use state::{State, Stopping, saved};
pub use tuning::Tuning;
pub use vocabulary::{VocabularyOptions, train_tokenizer};

/// A run: what is learned, from what, and where it is written down.
pub struct Task<'a> {
    /// The run's folder; it exists.
    pub folder: PathBuf,
    /// What is to become smaller.
    pub objective: &'static Objective,
    /// How the run proceeds.
    pub steps: Steps,
    /// How preferences are learnt.
    pub preference: Preference,
    /// The order of examples follows from it.
    pub seed: u64,
    /// What is learned from; at least one example.
    pub examples: Vec<Example>,
    /// What is only looked at.
    pub evaluation: Vec<Example>,
    /// Becomes true when the run is to stop after the step it is in.
    pub stop: &'a AtomicBool,
}

/// Someone who watches a run.
pub trait Watch {
    /// Numbers were written down; `left` is the number of seconds until the run ends.
    fn progress(&mut self, row: &Map<String, Value>, total_steps: usize, left: f64);
    /// Something else happened.
    fn note(&mut self, text: &str);
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// All steps are done.
    Whole,
    /// The evaluation loss no longer fell.
    Early,
    /// It was stopped, and can go on from a checkpoint.
    Stopped,
}

/// Train until the end, from where `state` stands.
///
/// # Errors
/// What the device says, or the file system; the last checkpoint is then whole.
pub fn run(
    task: &mut Task<'_>,
    trainee: &mut dyn Trainee,
    tuning: &mut Tuning,
    state: &mut State,
    watch: &mut dyn Watch,
) -> Result<Finished> {
    let schedule = task.schedule();
    let per_step = task.steps.batch_size * task.steps.gradient_accumulation_steps;
    let mut order = Order::new(task.seed, task.examples.len());
    let mut metrics = Metrics::open(&task.folder, state.step)?;
    let mut gradient = vec![0.0; trainee.layout().len()];
    let mut pace = Pace::new(state.step);
    let mut means = Means::default();
    while state.step < schedule.total_steps {
        if task.stop.load(Ordering::Relaxed) {
            state.save(&task.folder, task.steps.save_total_limit)?;
            return Ok(Finished::Stopped);
        }
        let step = state.step + 1;
        let examples = order.take(state.step * per_step..step * per_step);
        let examples: Vec<_> = examples.into_iter().map(|index| &task.examples[index]).collect();
        means.add(&task.gradient(trainee, tuning.weights(&state.learner.weights), &examples, &mut gradient)?);
        let rate = schedule.rate(step);
        let learning = tuning.gradient(&state.learner.weights, &gradient);
        let norm = state.learner.step(&task.steps, step, rate, &learning);
        state.step = step;
        pace.add(examples.iter().map(|example| example.tokens()).sum());

        let last = step == schedule.total_steps;
        if step.is_multiple_of(task.steps.logging_steps.max(1)) || last {
            let mut row = Map::new();
            stamp(&mut row, step);
            row.insert("epoch".into(), json!((step * per_step) as f64 / task.examples.len() as f64));
            row.append(&mut std::mem::take(&mut means).values(""));
            row.extend(
                [("grad_norm", norm), ("learning_rate", rate)].map(|(key, value)| (key.to_owned(), json!(value))),
            );
            pace.tell(&mut row);
            metrics.add(&row)?;
            watch.progress(&row, schedule.total_steps, pace.left(step, schedule.total_steps));
        }
        let due = |every: usize| every > 0 && step.is_multiple_of(every);
        let mut ends = last;
        if !task.evaluation.is_empty() && (due(task.steps.eval_steps) || last) {
            let means = task.evaluate(trainee, tuning.weights(&state.learner.weights))?;
            let mut row = Map::new();
            stamp(&mut row, step);
            row.append(&mut means.values("eval_"));
            metrics.add(&row)?;
            watch.progress(&row, schedule.total_steps, pace.left(step, schedule.total_steps));
            let loss = means.get("loss").unwrap_or(f64::INFINITY);
            ends |= state.stopping.see(loss, task.steps.early_stopping_patience);
        }
        if due(task.steps.save_steps) || ends {
            state.save(&task.folder, task.steps.save_total_limit)?;
        }
        if ends && !last {
            return Ok(Finished::Early);
        }
    }
    Ok(Finished::Whole)
}

impl Task<'_> {
    /// The learning rates of all steps.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        let steps = &self.steps;
        let per_step = (steps.batch_size * steps.gradient_accumulation_steps).max(1);
        let epochs = (self.examples.len() as f64 * steps.num_train_epochs / per_step as f64).ceil() as usize;
        let total_steps = steps.max_steps.unwrap_or(epochs.max(1));
        let warmup = (total_steps as f64 * steps.warmup_ratio).ceil() as usize;
        Schedule {
            peak: steps.learning_rate,
            floor: steps.min_lr_rate,
            warmup_steps: if steps.warmup_steps > 0 { steps.warmup_steps } else { warmup },
            total_steps,
            decay: steps.lr_scheduler_type,
        }
    }

    /// The gradient of a step, a batch at a time.
    fn gradient(
        &self,
        trainee: &mut dyn Trainee,
        weights: &[f32],
        examples: &[&Example],
        gradient: &mut [f32],
    ) -> Result<Vec<Graded>> {
        let totals = Totals::of(examples);
        let grade =
            |example: &Example, logprobs: &[&[f32]]| self.objective.grade(&self.preference, totals, example, logprobs);
        let mut graded = Vec::with_capacity(examples.len());
        let mut part = Vec::new();
        for (index, batch) in examples.chunks(self.steps.batch_size).enumerate() {
            if index == 0 {
                graded.extend(trainee.pass(weights, batch, &grade, Some(&mut *gradient))?);
                continue;
            }
            part.resize(gradient.len(), 0.0);
            graded.extend(trainee.pass(weights, batch, &grade, Some(&mut part))?);
            gradient.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part);
        }
        Ok(graded)
    }

    /// The measures of the evaluation set.
    fn evaluate(&self, trainee: &mut dyn Trainee, weights: &[f32]) -> Result<Means> {
        let examples: Vec<_> = self.evaluation.iter().collect();
        let totals = Totals::of(&examples);
        let grade =
            |example: &Example, logprobs: &[&[f32]]| self.objective.grade(&self.preference, totals, example, logprobs);
        let mut means = Means::default();
        for batch in examples.chunks(self.steps.batch_size) {
            means.add(&trainee.pass(weights, batch, &grade, None)?);
        }
        Ok(means)
    }
}

/// Which step a row is of, and when it was written, in seconds since 1970.
fn stamp(row: &mut Map<String, Value>, step: usize) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    row.insert("step".into(), json!(step));
    row.insert("time".into(), json!(time.as_secs_f64()));
}

/// How fast a run is.
struct Pace {
    first: usize,
    started: Instant,
    since: Instant,
    tokens: usize,
}

impl Pace {
    fn new(step: usize) -> Self {
        Self { first: step, started: Instant::now(), since: Instant::now(), tokens: 0 }
    }

    fn add(&mut self, tokens: usize) {
        self.tokens += tokens;
    }

    /// The speed since this was last asked.
    fn tell(&mut self, row: &mut Map<String, Value>) {
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        row.insert("tokens_per_second".into(), json!((self.tokens as f64 / seconds).round()));
        (self.since, self.tokens) = (Instant::now(), 0);
    }

    /// Seconds until the end.
    fn left(&self, step: usize, total: usize) -> f64 {
        let done = (step - self.first).max(1) as f64;
        self.started.elapsed().as_secs_f64() / done * (total - step) as f64
    }
}
