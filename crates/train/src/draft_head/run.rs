//! The loop of a run of a draft head.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::{Value, json};
use wsd_core::files::{write_folder, write_whole};
use wsd_nn::arch::DraftPlan;
use wsd_nn::draft::{CONFIG_FILE, DraftConfig, WEIGHTS_FILE};
use wsd_nn::{Format, Tensor};

use super::{Features, HeadTable};
use crate::error::{Error, Result};
use crate::example::Sequence;
use crate::export::save_tensors;
use crate::initialization::uniform;
use crate::layout::Layout;
use crate::metrics::{Means, Metrics, stamped};
use crate::model::{DraftBase, DraftExample, DraftLoss, DraftModel};
use crate::optimizers::{OptimizerEntry, StepInput, clip, norm};
use crate::order::Order;
use crate::run::{Finished, Pace, Reporter};
use crate::state::{EarlyStopping, State, saved};
use crate::steps::Steps;
use crate::trainer::Choice;

/// The length of the sequences that [`HeadTable::feature_noise`] is told for.
const NOISE_TOKENS: f32 = 512.0;

/// A run of a draft head.
pub struct HeadTask<'a> {
    /// The run's folder; it exists.
    pub folder: PathBuf,
    /// The sequences to learn from.
    pub examples: Vec<&'a Sequence>,
    /// The sequences to evaluate on.
    pub evaluation: Vec<&'a Sequence>,
    /// The features of all of them, in this order.
    pub features: Features,
    /// The settings of the head.
    pub head: HeadTable,
    /// The settings of the loop.
    pub steps: Steps,
    /// The seed of the order of examples and of the noise.
    pub seed: u64,
    /// A flag that stops the run after the current step.
    pub stop: &'a AtomicBool,
}

/// A draft head in training.
pub struct HeadTrainer {
    /// The parameters, the optimizer's state and the number of steps done, as in a checkpoint.
    pub state: State,
    model: DraftModel,
}

impl HeadTrainer {
    /// Makes a trainer of a head with random weights. `max_len` is the length of the longest sequence.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn try_new(
        plan: &DraftPlan,
        base: DraftBase,
        optimizer: &Choice<OptimizerEntry>,
        (seed, threads, max_len): (u64, usize, usize),
    ) -> Result<Self> {
        let model = DraftModel::try_new(plan, base, max_len, threads)?;
        let parameters = random(model.layout(), seed);
        let optimizer = (optimizer.entry.make)(model.layout(), &optimizer.values);
        let state = State { step: 0, parameters, average: Vec::new(), optimizer, stopping: EarlyStopping::default() };
        Ok(Self { state, model })
    }

    /// The places of tensors in the parameters.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        self.model.layout()
    }

    /// Updates the parameters by a gradient. Returns its norm before clipping.
    fn update(&mut self, gradient: &mut [f32], task: &HeadTask<'_>, learning_rate: f64) -> f64 {
        let norm = norm(gradient);
        if task.head.max_grad_value > 0.0 {
            let most = task.head.max_grad_value as f32;
            gradient.iter_mut().for_each(|value| *value = value.clamp(-most, most));
        }
        clip(gradient, self::norm(gradient), task.steps.max_grad_norm);
        self.state.step += 1;
        self.state.optimizer.step(StepInput {
            parameters: &mut self.state.parameters,
            gradient,
            start: &[],
            layout: self.model.layout(),
            learning_rate,
            step: self.state.step,
        });
        norm
    }
}

/// Random weights: matrices uniform within the inverse root of their inputs, norms 1, biases 0.
fn random(layout: &Layout, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = vec![0.0; layout.len()];
    for place in layout.places() {
        let values = &mut weights[place.range.clone()];
        match place.shape[..] {
            [_, inputs] => {
                let spread = (inputs as f64).sqrt().recip();
                values.iter_mut().for_each(|value| *value = ((2.0 * uniform(&mut random) - 1.0) * spread) as f32);
            }
            _ if place.name.ends_with(".bias") => {}
            _ => values.fill(1.0),
        }
    }
    weights
}

/// Trains a head, going on from the latest checkpoint in the run's folder if there is one.
///
/// # Errors
/// I/O errors; [`Error::Diverged`] for a loss, a gradient or a parameter that is no longer a finite
/// number. The last checkpoint then stays intact.
pub fn train(task: &mut HeadTask<'_>, trainer: &mut HeadTrainer, reporter: &mut dyn Reporter) -> Result<Finished> {
    if trainer.state.load_latest(&task.folder)? {
        reporter.note(&format!("resuming after step {}", trainer.state.step));
    }
    let schedule = task.steps.schedule(task.examples.len());
    let mut order = Order::new(task.seed, task.examples.len());
    let mut metrics = Metrics::open(&task.folder, trainer.state.step)?;
    let (mut pace, mut means) = (Pace::new(trainer.state.step), Means::default());
    let mut gradient = vec![0.0; trainer.layout().len()];
    let (per_step, keep) = (task.steps.examples_per_step(), task.steps.save_total_limit);
    while trainer.state.step < schedule.total_steps {
        if task.stop.load(Ordering::Relaxed) {
            trainer.state.save(&task.folder, keep)?;
            return Ok(Finished::Stopped);
        }
        let step = trainer.state.step;
        let places = order.take(step * per_step..(step + 1) * per_step);
        let examples = task.load(&places, Some(step))?;
        let outputs = trainer.model.pass(&trainer.state.parameters, &examples, task.loss(), Some(&mut gradient));
        pace.add(examples.iter().map(|example| example.tokens.len()).sum());
        means.add(&outputs);
        let learning_rate = schedule.rate(step + 1);
        let grad_norm = trainer.update(&mut gradient, task, learning_rate);
        check(task, trainer, grad_norm)?;
        let (step, total) = (trainer.state.step, schedule.total_steps);
        let is_due = |every: usize| every > 0 && step.is_multiple_of(every) || step == total;
        if is_due(task.steps.logging_steps.max(1)) {
            let mut row = stamped(step);
            row.insert("epoch".into(), json!((step * per_step) as f64 / task.examples.len() as f64));
            row.append(&mut std::mem::take(&mut means).values(""));
            row.insert("grad_norm".into(), json!(grad_norm));
            row.insert("learning_rate".into(), json!(learning_rate));
            row.insert("tokens_per_second".into(), json!(pace.tokens_per_second()));
            metrics.add(&row)?;
            reporter.progress(&row, total, pace.seconds_left(step, total));
        }
        let mut stops_early = false;
        if !task.evaluation.is_empty() && is_due(task.steps.eval_steps) {
            let means = task.evaluate(trainer)?;
            let mut row = stamped(step);
            row.append(&mut means.values("eval_"));
            metrics.add(&row)?;
            reporter.progress(&row, total, pace.seconds_left(step, total));
            let loss = means.get("loss").unwrap_or(f64::INFINITY);
            stops_early = trainer.state.stopping.observe(loss, task.steps.early_stopping_patience);
        }
        if is_due(task.steps.save_steps) || stops_early {
            trainer.state.save(&task.folder, keep)?;
        }
        if stops_early && step < total {
            return Ok(Finished::Early);
        }
    }
    Ok(Finished::Completed)
}

/// Refuses numbers that are not finite.
fn check(task: &HeadTask<'_>, trainer: &HeadTrainer, grad_norm: f64) -> Result<()> {
    let is_finite = grad_norm.is_finite() && trainer.state.parameters.iter().all(|value| value.is_finite());
    if is_finite {
        return Ok(());
    }
    let last = saved(&task.folder).ok().and_then(|mut saved| saved.pop());
    let kept = last.map_or("no checkpoint was written yet".into(), |(step, _)| format!("checkpoint-{step} is whole"));
    Err(Error::Diverged { step: trainer.state.step, what: "the norm of the gradient".into(), value: grad_norm, kept })
}

impl<'a> HeadTask<'a> {
    fn loss(&self) -> DraftLoss {
        let HeadTable { feature_weight, token_weight, .. } = self.head;
        DraftLoss { feature_weight: feature_weight as f32, token_weight: token_weight as f32 }
    }

    /// Loads examples by their places among all sequences; those of a step with its noise.
    fn load(&mut self, places: &[usize], step: Option<usize>) -> Result<Vec<DraftExample<'a>>> {
        let load = |(index, &place): (usize, &usize)| {
            let count = self.examples.len();
            let sequence = if place < count { self.examples[place] } else { self.evaluation[place - count] };
            let features = self.features.read(place)?;
            let noise = step.filter(|_| self.head.feature_noise > 0.0);
            let inputs = noise.map_or_else(Vec::new, |step| {
                let spread = self.head.feature_noise as f32 * NOISE_TOKENS / sequence.tokens.len() as f32;
                let mut random = ChaCha8Rng::seed_from_u64(self.seed);
                // The numbers of a step do not depend on those before it.
                random.set_stream(((step as u64) << 20) | (index as u64 + 1));
                features.iter().map(|value| value + (uniform(&mut random) as f32 - 0.5) * spread).collect()
            });
            Ok(DraftExample { tokens: &sequence.tokens, targets: sequence.positions().collect(), features, inputs })
        };
        places.iter().enumerate().map(load).collect()
    }

    /// The means over the evaluation set.
    fn evaluate(&mut self, trainer: &mut HeadTrainer) -> Result<Means> {
        let mut means = Means::default();
        let places: Vec<_> = (self.examples.len()..self.examples.len() + self.evaluation.len()).collect();
        for places in places.chunks(self.steps.batch_size) {
            let examples = self.load(places, None)?;
            means.add(&trainer.model.pass(&trainer.state.parameters, &examples, self.loss(), None));
        }
        Ok(means)
    }
}

/// Writes the folder of a head, whole or not at all.
///
/// # Errors
/// Those of the file system; a format that cannot be written.
pub fn save(to: &Path, config: &DraftConfig, (layout, weights): (&Layout, &[f32]), format: Format) -> Result<()> {
    let tensor = |place: &crate::layout::Place| {
        let bytes = format.quantize(&weights[place.range.clone()])?;
        Ok(Tensor::new(place.name.clone(), format, place.shape.clone(), bytes)?)
    };
    let tensors = layout.places().iter().map(tensor).collect::<Result<Vec<_>>>()?;
    let json = serde_json::to_value(config).and_then(|config: Value| serde_json::to_vec_pretty(&config));
    write_folder(to, |folder| -> Result<()> {
        let json = json.map_err(|error| Error::malformed(&folder.join(CONFIG_FILE), "JSON", error))?;
        write_whole(&folder.join(CONFIG_FILE), &json)?;
        save_tensors(&folder.join(WEIGHTS_FILE), &tensors)
    })
}
