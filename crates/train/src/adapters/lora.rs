//! LoRA: `W + lora_alpha / r * B * A` with `A` of `r` rows and `B` of `r` columns for some matrices
//! `W` (Hu et al. 2021, arXiv 2106.09685).

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use wsd_core::{Setting, Values};
use wsd_nn::adapter::{LORA_A, LORA_B};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use super::targets::{self, LAYERS, LINEAR, TARGET_MODULES};
use super::{Adapter, AdapterEntry, LowRank, Peft, Trained};
use crate::error::{Error, Result};
use crate::initialization::uniform;
use crate::layout::{Layout, Place};

pub(super) static R: Setting = Setting::integer("r", "Rank of the change", 1..=65536).with_default_integer(16);
pub(super) static LORA_ALPHA: Setting =
    Setting::number("lora_alpha", "The change is scaled by lora_alpha / r", 0.0..=1e9).with_default_number(32.0);

/// The settings of LoRA and of those that build on it.
pub(super) static SETTINGS: &[&Setting] = &[&R, &LORA_ALPHA, &TARGET_MODULES, &LAYERS];

pub(super) static ENTRY: AdapterEntry = AdapterEntry {
    name: "lora",
    about: "Train low-rank changes of some matrices",
    peft: Some(Peft { kind: "LORA", flags: &[("use_dora", false)] }),
    settings: SETTINGS,
    defaults,
    make,
};

pub(super) fn defaults() -> Values {
    targets::modules(LINEAR)
}

pub(super) struct Lora {
    /// `A` and `B` of each target in turn.
    layout: Layout,
    factors: Factors,
    /// All targets are matrices of layers.
    is_low_rank: bool,
    weights: Vec<f32>,
    merged: Vec<f32>,
}

fn make(layout: &Layout, weights: Vec<f32>, values: &Values) -> Result<Box<dyn Adapter>> {
    Ok(Box::new(Lora::new(Factors::try_new(ENTRY.name, layout, values)?, weights)))
}

/// The targets of low-rank changes, and their rank and scale.
pub(super) struct Factors {
    pub(super) targets: Vec<Place>,
    rank: usize,
    scale: f32,
}

impl Factors {
    /// Finds the targets; `section` is the table in a run file.
    pub(super) fn try_new(section: &str, layout: &Layout, values: &Values) -> Result<Self> {
        let targets = targets::matrices(section, layout, &values.clone().or(defaults()))?;
        let rank: usize = values.get(&R);
        let width = |target: &Place| target.shape.iter().copied().min().unwrap_or(0);
        if let Some(narrow) = targets.iter().find(|target| width(target) < rank) {
            let limit = format!("at most {}, the width of `{}`", width(narrow), narrow.name);
            return Err(Error::setting(format!("{section}.r"), limit, rank));
        }
        Ok(Self { targets, rank, scale: (values.get::<f64>(&LORA_ALPHA) / rank as f64) as f32 })
    }

    /// Tells whether the tensor of this name is a target.
    pub(super) fn has(&self, name: &str) -> bool {
        self.targets.iter().any(|target| target.name == name)
    }

    /// The names and shapes of `A` and `B` of a target.
    pub(super) fn tensors(&self, target: &Place) -> [(String, Vec<usize>); 2] {
        let name = targets::module(&target.name);
        let (a, b) = (vec![self.rank, target.shape[1]], vec![target.shape[0], self.rank]);
        [(format!("{name}{LORA_A}"), a), (format!("{name}{LORA_B}"), b)]
    }

    /// Sets `A` to uniform values within `1 / sqrt(inputs)`, as PEFT initializes it.
    pub(super) fn start(a: &Place, parameters: &mut [f32], random: &mut ChaCha8Rng) {
        let bound = 1.0 / (a.shape[1] as f64).sqrt();
        let values = parameters[a.range.clone()].iter_mut();
        values.for_each(|value| *value = ((2.0 * uniform(random) - 1.0) * bound) as f32);
    }

    /// Adds the change of a target to `to`.
    pub(super) fn add(&self, target: &Place, (a, b): (&[f32], &[f32]), to: &mut [f32]) {
        let inputs = target.shape[1];
        multiply(self.scale, Matrix::dense(b, self.rank), Matrix::dense(a, inputs), Output::add(to, inputs));
    }

    /// Sets the gradients of `A` and `B`, given that of the target: with `s` the scale and `G` the
    /// gradient, `s * B^T * G` and `s * G * A^T`.
    pub(super) fn pull_back(
        &self,
        inputs: usize,
        (a, b): (&[f32], &[f32]),
        gradient: &[f32],
        (to_a, to_b): (&mut [f32], &mut [f32]),
    ) {
        let whole = Matrix::dense(gradient, inputs);
        let (a, b) = (Matrix::dense(a, inputs), Matrix::dense(b, self.rank));
        multiply(self.scale, b.transposed(), whole, Output::set(to_a, inputs));
        multiply(self.scale, whole, a.transposed(), Output::set(to_b, self.rank));
    }
}

impl Lora {
    pub(super) fn new(factors: Factors, weights: Vec<f32>) -> Self {
        let tensors = factors.targets.iter().flat_map(|target| factors.tensors(target));
        let layout = Layout::of(tensors.collect());
        let is_low_rank = factors.targets.iter().all(|target| targets::layer(&target.name).is_some());
        Self { layout, factors, is_low_rank, merged: weights.clone(), weights }
    }

    /// Each target with the ranges of its `A` and `B` among the parameters.
    fn triples(&self) -> impl Iterator<Item = (&Place, Range<usize>, Range<usize>)> {
        let pairs = self.layout.places().chunks_exact(2);
        self.factors
            .targets
            .iter()
            .zip(pairs)
            .map(|(target, pair)| (target, pair[0].range.clone(), pair[1].range.clone()))
    }

    /// The gradient with respect to the parameters, given that with respect to the weights.
    pub(super) fn gradient(&self, parameters: &[f32], gradient: &[f32]) -> Vec<f32> {
        let mut pulled = vec![0.0; self.layout.len()];
        for (target, a, b) in self.triples() {
            // `A` and `B` lie side by side.
            let (to_a, to_b) = pulled[a.start..b.end].split_at_mut(a.len());
            let factors = (&parameters[a], &parameters[b]);
            self.factors.pull_back(target.shape[1], factors, &gradient[target.range.clone()], (to_a, to_b));
        }
        pulled
    }
}

impl Adapter for Lora {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    /// `B` is zero.
    fn start(&mut self, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut parameters = vec![0.0; self.layout.len()];
        let places = self.layout.places().iter().step_by(2);
        places.for_each(|a| Factors::start(a, &mut parameters, &mut random));
        parameters
    }

    fn trained(&self, name: &str) -> Trained {
        let factor = |end: &str| self.layout.get(&format!("{}{end}", name.strip_suffix(".weight")?));
        let Some((a, b)) = factor(LORA_A).zip(factor(LORA_B)) else { return Trained::Frozen };
        let Factors { rank, scale, .. } = self.factors;
        let (a, b) = (a.range.clone(), b.range.clone());
        if self.is_low_rank { Trained::LowRank(LowRank { a, b, rank, scale }) } else { Trained::Whole }
    }

    /// The model computes gradients of factors for the matrices of layers alone.
    fn is_low_rank(&self) -> bool {
        self.is_low_rank
    }

    fn unchanged(&self) -> &[f32] {
        &self.weights
    }

    fn merge<'w>(&'w mut self, parameters: &'w [f32]) -> &'w [f32] {
        let mut merged = std::mem::take(&mut self.merged);
        for (target, a, b) in self.triples() {
            let to = &mut merged[target.range.clone()];
            to.copy_from_slice(&self.weights[target.range.clone()]);
            self.factors.add(target, (&parameters[a], &parameters[b]), to);
        }
        self.merged = merged;
        &self.merged
    }

    fn pull_back(&self, parameters: &[f32], gradient: &[f32]) -> Option<Vec<f32>> {
        (!self.is_low_rank()).then(|| self.gradient(parameters, gradient))
    }
}
