//! A model with an adapter and an optimizer, and the computation of a training step.

use std::path::Path;

use wsd_core::Values;
use wsd_nn::arch::Blueprint;
use wsd_nn::gpu::Arithmetic;
use wsd_nn::kernels::dense::Precision;

use crate::adapters::{self, Adapter, AdapterEntry};
use crate::error::{Error, Result};
use crate::example::Example;
use crate::layout::{Layout, REWARD};
use crate::metrics::Means;
use crate::model::{ModelOptions, Pass, TrainableModel};
use crate::objectives::{Loss, LossInput, LossOutput, Measure, Needs, Objective, Totals, Weight};
use crate::optimizers::OptimizerEntry;
use crate::state::{EarlyStopping, State};
use crate::steps::Steps;
use crate::update::Update;

/// An entry of a table (objective, optimizer or adapter) with its settings.
#[derive(Debug)]
pub struct Choice<E: 'static> {
    /// The entry.
    pub entry: &'static E,
    /// The settings; those that are not set have their defaults.
    pub values: Values,
}

impl<E> Choice<E> {
    /// An entry with default settings.
    #[must_use]
    pub fn of(entry: &'static E) -> Self {
        Self { entry, values: Values::default() }
    }
}

impl<E> Clone for Choice<E> {
    fn clone(&self) -> Self {
        Self { entry: self.entry, values: self.values.clone() }
    }
}

/// An objective of a run, its weight, and its data.
pub struct Term {
    /// The objective.
    pub objective: &'static Objective,
    /// The loss with its settings.
    pub loss: Box<dyn Loss>,
    /// The factor on the loss in the sum over all objectives.
    pub weight: Weight,
    /// The examples to train on.
    pub examples: Vec<Example>,
    /// The examples to evaluate on.
    pub evaluation: Vec<Example>,
}

impl Term {
    /// An objective of its default weight without an evaluation set.
    #[must_use]
    pub fn new(choice: &Choice<Objective>, examples: Vec<Example>) -> Self {
        let (objective, loss) = (choice.entry, (choice.entry.make)(&choice.values));
        Self { objective, loss, weight: objective.weight, examples, evaluation: Vec::new() }
    }

    /// The loss after a share `progress` of the steps.
    pub(crate) fn at(&self, progress: f64) -> Weighted<'_> {
        Weighted { loss: &*self.loss, needs: self.objective.needs, weight: self.weight.at(progress) }
    }
}

/// The options of a [`Trainer`].
pub struct TrainerOptions {
    /// The adapter.
    pub adapter: Choice<AdapterEntry>,
    /// The optimizer.
    pub optimizer: Choice<OptimizerEntry>,
    /// The seed of the adapter's initial parameters.
    pub seed: u64,
    /// The number of threads; the last bits of results depend on it.
    pub threads: usize,
    /// The GPU that computes passes; the CPU without one.
    pub gpu: Option<Arithmetic>,
    /// The length of the longest sequence, in tokens.
    pub max_len: usize,
    /// True to keep only the inputs of layers for the backward pass and recompute their activations
    /// (gradient checkpointing): less memory, more time.
    pub recompute: bool,
    /// The precision of products with the matrices of layers and heads.
    pub precision: Precision,
    /// True to keep a copy of the initial weights, for objectives that need
    /// [`Needs::RowsAndReference`].
    pub keeps_reference: bool,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            adapter: Choice::of(crate::adapters::ADAPTERS[0]),
            optimizer: Choice::of(crate::optimizers::OPTIMIZERS[0]),
            seed: 0,
            threads: 1,
            gpu: None,
            max_len: 1024,
            recompute: false,
            precision: Precision::F32,
            keeps_reference: false,
        }
    }
}

/// A model in training.
pub struct Trainer {
    /// The parameters, the optimizer's state and the number of steps done, as in a checkpoint.
    pub state: State,
    model: TrainableModel,
    adapter: Box<dyn Adapter>,
    /// The step after which the optimizer began; it counts its steps from there.
    pub(crate) optimizer_start: usize,
    /// The initial parameters; empty unless the optimizer needs them.
    start: Vec<f32>,
    /// The weights of the reference model: the initial ones or a teacher's; empty where none needs it.
    reference: Vec<f32>,
}

/// The gradient of a step as the model computes it, accumulated over micro-batches.
#[derive(Debug, Default)]
pub(crate) struct Gradient {
    sum: Vec<f32>,
    /// A buffer for the gradient of one micro-batch after the first.
    micro_batch: Vec<f32>,
    /// True if `sum` holds the gradient of at least one micro-batch of this step.
    is_set: bool,
}

impl Trainer {
    /// Makes a trainer of the model with these weights, which are in the order of [`Layout::new`].
    ///
    /// # Errors
    /// An adapter that does not fit the model; threads that cannot be started; a model that the GPU does
    /// not differentiate.
    pub fn try_new(blueprint: &Blueprint, weights: Vec<f32>, options: &TrainerOptions) -> Result<Self> {
        let reference = if options.keeps_reference { weights.clone() } else { Vec::new() };
        let Choice { entry, values } = &options.adapter;
        let mut adapter = (entry.make)(&Layout::new(blueprint), weights, values)?;
        let model = ModelOptions {
            threads: options.threads,
            max_len: options.max_len,
            recompute: options.recompute,
            precision: options.precision,
            trained: &|name| adapter.trained(name),
        };
        let mut model = TrainableModel::try_new(blueprint, &model)?;
        if let Some(gpu) = &options.gpu {
            model = model.on_gpu(gpu.clone())?;
        }
        let parameters = adapter.start(options.seed);
        let Choice { entry, values } = &options.optimizer;
        let start = if entry.needs_start { parameters.clone() } else { Vec::new() };
        let optimizer = (entry.make)(adapter.layout(), values);
        let state = State { step: 0, parameters, average: Vec::new(), optimizer, stopping: EarlyStopping::default() };
        Ok(Self { state, model, adapter, optimizer_start: 0, start, reference })
    }

    /// Lets a model of this blueprint, with these weights in the order of [`Layout::new`], be the
    /// reference model in place of the model at the start.
    ///
    /// # Errors
    /// A model of another vocabulary, or one that cannot be trained.
    pub fn with_teacher(mut self, blueprint: &Blueprint, weights: Vec<f32>) -> Result<Self> {
        self.model = self.model.with_teacher(blueprint)?;
        self.reference = weights;
        Ok(self)
    }

    /// Returns the model's present weights, with the adapter merged.
    pub fn weights(&mut self) -> &[f32] {
        self.adapter.merge(&self.state.parameters)
    }

    /// Starts a teacher that follows the model, [`State::average`], at the present parameters.
    pub fn start_teacher(&mut self) {
        self.state.average.clone_from(&self.state.parameters);
    }

    /// Returns the weights of the teacher of [`Trainer::start_teacher`].
    pub fn teacher_weights(&mut self) -> &[f32] {
        self.adapter.merge(&self.state.average)
    }

    /// Lets the teacher of [`Trainer::start_teacher`] be the reference model of the next steps.
    pub(crate) fn follow_teacher(&mut self) {
        self.reference.clear();
        self.reference.extend_from_slice(self.adapter.merge(&self.state.average));
        self.model.forget_reference();
    }

    /// The mean loss of an objective over examples, under the teacher's weights.
    ///
    /// # Errors
    /// Those of [`run()`](crate::run()) for an objective that the trainer has not the numbers for.
    pub fn teacher_loss(&mut self, term: &Term, batch_size: usize) -> Result<f64> {
        self.check(std::slice::from_ref(term))?;
        std::mem::swap(&mut self.state.parameters, &mut self.state.average);
        let examples: Vec<_> = term.examples.iter().collect();
        let mut means = Means::default();
        let outputs = self.compute_losses(term.at(0.0), &examples, batch_size, None);
        std::mem::swap(&mut self.state.parameters, &mut self.state.average);
        means.add(&outputs?);
        Ok(means.get("loss").unwrap_or(f64::NAN))
    }

    /// The places of tensors in the model's weights.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        self.model.layout()
    }

    /// The places of tensors in the parameters.
    #[must_use]
    pub fn parameter_layout(&self) -> &Layout {
        self.adapter.layout()
    }

    /// Writes the adapter as a folder in PEFT's layout; returns false for an adapter that PEFT has
    /// no layout for. `choice` is the one of [`TrainerOptions`], `base` the name of the start
    /// model.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save_adapter(&self, to: &Path, choice: &Choice<AdapterEntry>, base: &str) -> Result<bool> {
        let about = (choice.entry, &choice.values);
        let layouts = (self.layout(), self.adapter.layout());
        adapters::save(to, about, layouts, &self.state.parameters, base)
    }

    /// Computes the losses of examples in micro-batches of `batch_size`; one output per example. If
    /// `gradient` is given, adds the gradient of their weighted sum.
    ///
    /// # Errors
    /// Those of a GPU.
    pub(crate) fn compute_losses(
        &mut self,
        term: Weighted<'_>,
        examples: &[&Example],
        batch_size: usize,
        gradient: Option<&mut Gradient>,
    ) -> Result<Vec<LossOutput>> {
        let totals = Totals { divergence: self.divergence(examples, batch_size)?, ..Totals::of(examples) };
        self.passes(term, (examples, totals), batch_size, gradient)
    }

    /// Computes as [`Trainer::compute_losses`] does, with the totals at hand.
    fn passes(
        &mut self,
        term: Weighted<'_>,
        (examples, totals): (&[&Example], Totals),
        batch_size: usize,
        mut gradient: Option<&mut Gradient>,
    ) -> Result<Vec<LossOutput>> {
        let Self { state, model, adapter, reference, .. } = self;
        let is_low_rank = adapter.is_low_rank();
        let weights = match model.adds_changes() && is_low_rank {
            true => adapter.unchanged(),
            false => adapter.merge(&state.parameters),
        };
        let parameters: &[f32] = if is_low_rank { &state.parameters } else { &[] };
        let len = if is_low_rank { parameters.len() } else { weights.len() };
        let Weighted { loss, needs, weight } = term;
        let mut outputs = Vec::with_capacity(examples.len());
        for examples in examples.chunks(model.batch(batch_size, examples.len())) {
            let weight = weight as f32;
            let pass = Pass { weights, parameters, reference, examples, totals, loss, needs, weight };
            outputs.extend(match &mut gradient {
                Some(gradient) => gradient.add(len, |to| model.pass(&pass, Some(to))),
                None => model.pass(&pass, None),
            }?);
        }
        Ok(outputs)
    }

    /// Computes the sums of the targets' log-probabilities of all sequences of all examples, in
    /// order, under the present parameters.
    pub(crate) fn sums(&mut self, examples: &[&Example], batch_size: usize) -> Result<Vec<f64>> {
        if examples.is_empty() {
            return Ok(Vec::new());
        }
        let sums = Weighted { loss: &SequenceSums, needs: Needs::Targets, weight: 1.0 };
        let outputs = self.passes(sums, (examples, Totals::of(examples)), batch_size, None)?;
        Ok(outputs.iter().flat_map(|output| &output.measures).map(|measure| measure.sum).collect())
    }

    /// Estimates the divergence from the reference model by the baselines of examples.
    fn divergence(&mut self, examples: &[&Example], batch_size: usize) -> Result<f64> {
        let baselines: Vec<&Example> = examples.iter().filter_map(|example| example.baseline.as_deref()).collect();
        let sums = self.sums(&baselines, batch_size)?;
        let references = baselines.iter().flat_map(|example| &example.reference);
        let ratios: f64 = sums.iter().zip(references).map(|(sum, reference)| sum - reference).sum();
        Ok((ratios / baselines.len().max(1) as f64).max(0.0))
    }

    /// Checks that the trainer has the numbers that objectives need.
    ///
    /// # Errors
    /// [`Error::Setting`] for a reference model that was not kept, for a model without the head
    /// that the objective is about, and for an adapter that leaves a reward head as it is.
    pub(crate) fn check(&self, terms: &[Term]) -> Result<()> {
        for Term { objective: Objective { name, needs, .. }, .. } in terms {
            if *needs == Needs::RowsAndReference && self.reference.is_empty() {
                return Err(Error::setting("keeps_reference", format!("true for {name}"), false));
            }
            let has_head = self.layout().get(REWARD).is_some();
            if *needs == Needs::Rewards && !(has_head && self.adapter.changes(REWARD)) {
                let limit = format!("one that trains `{REWARD}`, such as full, for {name}");
                return Err(Error::setting("adapter.name", limit, if has_head { "another" } else { "no such tensor" }));
            }
            if *needs != Needs::Rewards && !self.model.writes() {
                let limit = format!("one with a vocabulary head for {name}");
                return Err(Error::setting("model.from", limit, "a reward model alone"));
            }
        }
        Ok(())
    }

    /// Checks that a GPU has the memory for objectives. Returns the GPU's name and the bytes; `None` on
    /// the CPU.
    ///
    /// # Errors
    /// [`wsd_nn::Error::DeviceMemory`] with the bytes that are needed and those that are free.
    pub fn require_memory(&self, terms: &[Term]) -> Result<Option<(String, usize)>> {
        let needs: Vec<_> = terms.iter().map(|term| term.objective.needs).collect();
        let examples = terms.iter().flat_map(|term| term.examples.iter().chain(&term.evaluation));
        self.model.require_memory(&needs, examples.map(Example::tokens).max().unwrap_or(0))
    }

    /// Updates the parameters by the gradient of a step, clipped to `steps.max_grad_norm`, and clears
    /// it. Returns the norm before clipping, with respect to the parameters; or else the name of what
    /// is no longer a number. The parameters are then as before unless they themselves are named.
    pub(crate) fn update(
        &mut self,
        gradient: &mut Gradient,
        steps: &Steps,
        learning_rate: f64,
    ) -> std::result::Result<f64, String> {
        let Self { state, adapter, optimizer_start, start, .. } = self;
        // No adapter gradient means that the model computed that of the parameters.
        let mut adapter_gradient = adapter.pull_back(&state.parameters, &gradient.sum);
        let parameter_gradient = adapter_gradient.as_deref_mut().unwrap_or(&mut gradient.sum);
        let norm = state.update(Update {
            gradient: parameter_gradient,
            layout: adapter.layout(),
            start,
            learning_rate,
            max_value: 0.0,
            max_norm: steps.max_grad_norm,
            optimizer_start: *optimizer_start,
        })?;
        gradient.is_set = false;
        Ok(norm)
    }
}

/// A pseudo-loss that measures the sum of the targets' log-probabilities of each sequence.
struct SequenceSums;

impl Loss for SequenceSums {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let measure = |sum| Measure { name: "sum", sum, weight: 1.0 };
        LossOutput { measures: input.sums().into_iter().map(measure).collect(), logprob_gradients: Vec::new() }
    }
}

/// A loss, the numbers it needs, and its weight.
#[derive(Clone, Copy)]
pub(crate) struct Weighted<'a> {
    pub(crate) loss: &'a dyn Loss,
    pub(crate) needs: Needs,
    pub(crate) weight: f64,
}

impl Gradient {
    /// Adds the gradient of a micro-batch, which `compute` writes into the given slice of `len`
    /// numbers, and returns the result of `compute`. The first one of a step is written into the sum
    /// directly.
    fn add<T>(&mut self, len: usize, compute: impl FnOnce(&mut [f32]) -> T) -> T {
        if !self.is_set {
            self.is_set = true;
            self.sum.resize(len, 0.0);
            return compute(&mut self.sum);
        }
        self.micro_batch.resize(len, 0.0);
        let result = compute(&mut self.micro_batch);
        self.sum.iter_mut().zip(&self.micro_batch).for_each(|(sum, value)| *sum += value);
        result
    }
}
