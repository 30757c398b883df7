//! A model, an adapter and an optimizer: the state of training, and the steps that change it.

use std::path::Path;

use wsd_core::Values;
use wsd_nn::arch::Blueprint;

use crate::adapters::{self, Adapter, AdapterEntry};
use crate::error::Result;
use crate::example::Example;
use crate::layout::Layout;
use crate::model::{ModelOptions, Pass, TrainableModel};
use crate::objectives::{Graded, Loss, Objective, Sees, Totals};
use crate::optimizers::{OptimizerEntry, StepInput, clip, norm};
use crate::state::{EarlyStopping, State};
use crate::steps::Steps;

/// An entry of a table with its settings.
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
    pub weight: f64,
    /// The examples to learn from.
    pub examples: Vec<Example>,
    /// The examples to evaluate on.
    pub evaluation: Vec<Example>,
}

impl Term {
    /// An objective of weight 1 without an evaluation set.
    #[must_use]
    pub fn new(choice: &Choice<Objective>, examples: Vec<Example>) -> Self {
        let loss = (choice.entry.make)(&choice.values);
        Self { objective: choice.entry, loss, weight: 1.0, examples, evaluation: Vec::new() }
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
    /// The length of the longest sequence, in tokens.
    pub max_len: usize,
    /// Keep only the inputs of layers for the backward pass, and compute the rest again.
    pub recompute: bool,
    /// Keep a copy of the start model's weights, for objectives that see its rows.
    pub keeps_reference: bool,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            adapter: Choice::of(crate::adapters::ADAPTERS[0]),
            optimizer: Choice::of(crate::optimizers::OPTIMIZERS[0]),
            seed: 0,
            threads: 1,
            max_len: 1024,
            recompute: false,
            keeps_reference: false,
        }
    }
}

/// A model in training.
pub struct Trainer {
    /// The progress.
    pub state: State,
    model: TrainableModel,
    adapter: Box<dyn Adapter>,
    /// The initial parameters, if the optimizer needs them.
    start: Vec<f32>,
    /// The start model's weights, if an objective needs them.
    reference: Vec<f32>,
}

/// The sum of the gradients of a step with respect to the model's weights.
#[derive(Debug, Default)]
pub(crate) struct Gradient {
    sum: Vec<f32>,
    /// The gradient of one batch after the first.
    part: Vec<f32>,
    is_set: bool,
}

impl Trainer {
    /// Prepares to train the model of these weights, in the order of [`Layout::new`].
    ///
    /// # Errors
    /// An adapter that does not fit the model; threads that cannot be started.
    pub fn try_new(blueprint: &Blueprint, weights: Vec<f32>, options: &TrainerOptions) -> Result<Self> {
        let reference = if options.keeps_reference { weights.clone() } else { Vec::new() };
        let Choice { entry, values } = &options.adapter;
        let mut adapter = (entry.make)(&Layout::new(blueprint), weights, values)?;
        let model = ModelOptions {
            threads: options.threads,
            max_len: options.max_len,
            recompute: options.recompute,
            trained: &|name| adapter.changes(name),
        };
        let model = TrainableModel::try_new(blueprint, &model)?;
        let parameters = adapter.start(options.seed);
        let Choice { entry, values } = &options.optimizer;
        let start = if entry.needs_start { parameters.clone() } else { Vec::new() };
        let optimizer = (entry.make)(adapter.layout(), values);
        let state = State { step: 0, parameters, optimizer, stopping: EarlyStopping::default() };
        Ok(Self { state, model, adapter, start, reference })
    }

    /// The model's weights as trained so far.
    pub fn weights(&mut self) -> &[f32] {
        self.adapter.merge(&self.state.parameters)
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
        adapters::save(to, about, self.adapter.layout(), &self.state.parameters, base)
    }

    /// Computes the losses of examples in micro-batches and, if a gradient is given, adds theirs to
    /// it.
    pub(crate) fn grade(
        &mut self,
        term: Weighted<'_>,
        examples: &[&Example],
        batch_size: usize,
        mut gradient: Option<&mut Gradient>,
    ) -> Vec<Graded> {
        let Self { state, model, adapter, reference, .. } = self;
        let weights = adapter.merge(&state.parameters);
        let Weighted { loss, sees, weight } = term;
        let totals = Totals::of(examples);
        let mut graded = Vec::with_capacity(examples.len());
        for examples in examples.chunks(batch_size) {
            let pass = Pass { weights, reference, examples, totals, loss, sees, weight: weight as f32 };
            graded.extend(match &mut gradient {
                Some(gradient) => gradient.add(weights.len(), |to| model.pass(&pass, Some(to))),
                None => model.pass(&pass, None),
            });
        }
        graded
    }

    /// Updates the parameters by the gradient of a step, and returns the gradient's norm before
    /// clipping.
    pub(crate) fn update(&mut self, gradient: &mut Gradient, steps: &Steps, learning_rate: f64) -> f64 {
        let Self { state, adapter, start, .. } = self;
        let mut pulled = adapter.pull_back(&state.parameters, &gradient.sum);
        let parameter_gradient = pulled.as_deref_mut().unwrap_or(&mut gradient.sum);
        let norm = norm(parameter_gradient);
        clip(parameter_gradient, norm, steps.max_grad_norm);
        state.step += 1;
        state.optimizer.step(StepInput {
            parameters: &mut state.parameters,
            gradient: parameter_gradient,
            start,
            layout: adapter.layout(),
            learning_rate,
            step: state.step,
        });
        gradient.is_set = false;
        norm
    }
}

/// A loss, the numbers it needs, and its weight.
#[derive(Clone, Copy)]
pub(crate) struct Weighted<'a> {
    pub(crate) loss: &'a dyn Loss,
    pub(crate) sees: Sees,
    pub(crate) weight: f64,
}

impl<'a> From<&'a Term> for Weighted<'a> {
    fn from(term: &'a Term) -> Self {
        Self { loss: &*term.loss, sees: term.objective.sees, weight: term.weight }
    }
}

impl Gradient {
    /// Lets `fill` set the gradient of a batch, and adds it to the step's. The step's first batch
    /// is set in place.
    fn add<T>(&mut self, len: usize, fill: impl FnOnce(&mut [f32]) -> T) -> T {
        if !self.is_set {
            self.is_set = true;
            self.sum.resize(len, 0.0);
            return fill(&mut self.sum);
        }
        self.part.resize(len, 0.0);
        let filled = fill(&mut self.part);
        self.sum.iter_mut().zip(&self.part).for_each(|(sum, part)| *sum += part);
        filled
    }
}
