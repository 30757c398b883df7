//! The loop of a run of a draft head.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::{Map, Value};
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
use crate::metrics::Means;
use crate::model::{DraftBase, DraftExample, DraftLoss, DraftModel};
use crate::optimizers::OptimizerEntry;
use crate::order::Order;
use crate::run::{Finished, Learner, Reporter, Step, TrainingLoop, broken, diverged};
use crate::state::{EarlyStopping, State};
use crate::steps::Steps;
use crate::trainer::Choice;
use crate::update::Update;

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
    let HeadTask { folder, examples, evaluation, features, head, steps, seed, stop } = task;
    let training = TrainingLoop { folder, steps, stop };
    let mut learner = HeadLearner {
        folder,
        examples,
        evaluation,
        features,
        head,
        steps,
        seed: *seed,
        order: Order::new(*seed, examples.len()),
        means: Means::default(),
        gradient: vec![0.0; trainer.layout().len()],
        trainer,
    };
    training.run(&mut learner, reporter)
}

/// A draft head with its data.
struct HeadLearner<'a> {
    folder: &'a Path,
    examples: &'a [&'a Sequence],
    evaluation: &'a [&'a Sequence],
    features: &'a mut Features,
    head: &'a HeadTable,
    steps: &'a Steps,
    seed: u64,
    trainer: &'a mut HeadTrainer,
    /// The shuffled order of examples.
    order: Order,
    /// The running averages since the last logged row.
    means: Means,
    gradient: Vec<f32>,
}

impl<'a> HeadLearner<'a> {
    fn loss(&self) -> DraftLoss {
        let HeadTable { feature_weight, token_weight, .. } = *self.head;
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
}

impl Learner for HeadLearner<'_> {
    fn state(&mut self) -> &mut State {
        &mut self.trainer.state
    }

    fn examples(&self) -> usize {
        self.examples.len()
    }

    fn has_evaluation(&self) -> bool {
        !self.evaluation.is_empty()
    }

    fn step(&mut self, learning_rate: f64) -> Result<Step> {
        let (step, per_step) = (self.trainer.state.step, self.steps.examples_per_step());
        let places = self.order.take(step * per_step..(step + 1) * per_step);
        let (examples, loss) = (self.load(&places, Some(step))?, self.loss());
        let HeadTrainer { state, model } = &mut *self.trainer;
        let outputs = model.pass(&state.parameters, &examples, loss, Some(&mut self.gradient));
        if let Some((value, place)) = broken(&outputs, &places) {
            return Err(diverged(self.folder, step + 1, format!("the loss on example {}", place + 1), value));
        }
        self.means.add(&outputs);
        let updated = state.update(Update {
            gradient: &mut self.gradient,
            layout: model.layout(),
            start: &[],
            learning_rate,
            max_value: self.head.max_grad_value,
            max_norm: self.steps.max_grad_norm,
            optimizer_start: 0,
        });
        let grad_norm = updated.map_err(|what| diverged(self.folder, step + 1, what, f64::NAN))?;
        Ok(Step { grad_norm, tokens: examples.iter().map(|example| example.tokens.len()).sum() })
    }

    fn means(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.means).values("")
    }

    fn evaluate(&mut self) -> Result<(Map<String, Value>, f64)> {
        let (mut means, loss) = (Means::default(), self.loss());
        let places: Vec<_> = (self.examples.len()..self.examples.len() + self.evaluation.len()).collect();
        for places in places.chunks(self.steps.batch_size) {
            let examples = self.load(places, None)?;
            let HeadTrainer { state, model } = &mut *self.trainer;
            means.add(&model.pass(&state.parameters, &examples, loss, None));
        }
        Ok((means.values("eval_"), means.get("loss").unwrap_or(f64::INFINITY)))
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
    let json = serde_json::to_vec_pretty(config);
    write_folder(to, |folder| -> Result<()> {
        let json = json.map_err(|error| Error::malformed(&folder.join(CONFIG_FILE), "JSON", error))?;
        write_whole(&folder.join(CONFIG_FILE), &json)?;
        save_tensors(&folder.join(WEIGHTS_FILE), &tensors)
    })
}
