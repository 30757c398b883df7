//! What of a model learns: all weights, or adapters beside matrices that stay.

use std::borrow::Cow;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::layout::{Layout, Place};
use super::settings::Lora;
use super::start::uniform;
use crate::error::{Error, Result};
use wsd_nn::kernels::dense::{Matrix, multiply};

/// How the numbers that learn make the weights of the model.
pub enum Tuning {
    /// They are the weights.
    Full,
    /// They are adapters.
    Lora(Box<Adapters>),
}

/// For some matrices `W` a change of low rank: `W + lora_alpha / r * B * A` (Hu et al. 2021, arXiv 2106.09685).
pub struct Adapters {
    layout: Layout,
    targets: Vec<Place>,
    rank: usize,
    scale: f32,
    weights: Vec<f32>,
    merged: Vec<f32>,
}

impl Tuning {
    /// Tune the model of these weights; returns also the numbers that learn, as they are at the start, and their layout.
    ///
    /// # Errors
    /// [`Error::Setting`] for adapters without a target.
    pub fn new(layout: &Layout, weights: Vec<f32>, lora: Option<&Lora>, seed: u64) -> Result<(Self, Vec<f32>, Layout)> {
        let Some(lora) = lora else { return Ok((Self::Full, weights, layout.clone())) };
        let adapters = Adapters::new(layout, weights, lora)?;
        let (learnt, layout) = (adapters.start(seed), adapters.layout.clone());
        Ok((Self::Lora(Box::new(adapters)), learnt, layout))
    }

    /// Whether the tensor of this name changes.
    #[must_use]
    pub fn changes(&self, name: &str) -> bool {
        match self {
            Self::Full => true,
            Self::Lora(adapters) => adapters.targets.iter().any(|target| target.name == name),
        }
    }

    /// The weights that come of what was learnt.
    pub fn weights<'w>(&'w mut self, learnt: &'w [f32]) -> &'w [f32] {
        match self {
            Self::Full => learnt,
            Self::Lora(adapters) => adapters.merge(learnt),
        }
    }

    /// The gradient of what learns, given that of the weights.
    #[must_use]
    pub fn gradient<'g>(&self, learnt: &[f32], weights: &'g [f32]) -> Cow<'g, [f32]> {
        match self {
            Self::Full => Cow::Borrowed(weights),
            Self::Lora(adapters) => Cow::Owned(adapters.pull(learnt, weights)),
        }
    }
}

impl Adapters {
    fn new(layout: &Layout, weights: Vec<f32>, lora: &Lora) -> Result<Self> {
        let wanted = |place: &&Place| {
            let module = place.name.strip_suffix(".weight").and_then(|name| name.rsplit('.').next());
            place.is_matrix() && module.is_some_and(|module| lora.target_modules.iter().any(|name| name == module))
        };
        let targets: Vec<_> = layout.places().iter().filter(wanted).cloned().collect();
        if targets.is_empty() || lora.r == 0 {
            let modules = lora.target_modules.join(", ");
            let known: std::collections::BTreeSet<_> = layout
                .places()
                .iter()
                .filter(|place| place.is_matrix())
                .collect::<Vec<_>>()
                .iter()
                .filter_map(|place| place.name.strip_suffix(".weight")?.rsplit('.').next())
                .collect();
            return Err(Error::setting(
                "lora.target_modules",
                format!("at a rank above 0, some of {}", known.into_iter().collect::<Vec<_>>().join(", ")),
                format!("{modules} at rank {}", lora.r),
            ));
        }
        let pair = |target: &Place| {
            let name = target.name.trim_end_matches(".weight");
            let (a, b) = (vec![lora.r, target.shape[1]], vec![target.shape[0], lora.r]);
            [(format!("{name}.lora_A.weight"), a), (format!("{name}.lora_B.weight"), b)]
        };
        let layout = Layout::of(targets.iter().flat_map(pair).collect());
        let scale = (lora.lora_alpha / lora.r as f64) as f32;
        Ok(Self { layout, rank: lora.r, scale, merged: weights.clone(), weights, targets })
    }

    /// `A` uniform as PEFT has it, `B` zero: at first nothing changes.
    fn start(&self, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut learnt = vec![0.0; self.layout.len()];
        for place in self.layout.places().iter().step_by(2) {
            let bound = 1.0 / (place.shape[1] as f64).sqrt();
            let values = &mut learnt[place.range.clone()];
            values.iter_mut().for_each(|value| *value = ((2.0 * uniform(&mut random) - 1.0) * bound) as f32);
        }
        learnt
    }

    /// Each target with the places of its `A` and `B`.
    fn triples(&self) -> impl Iterator<Item = (&Place, [std::ops::Range<usize>; 2])> {
        let pairs = self.layout.places().chunks_exact(2).map(|pair| [pair[0].range.clone(), pair[1].range.clone()]);
        self.targets.iter().zip(pairs)
    }

    fn merge(&mut self, learnt: &[f32]) -> &[f32] {
        let mut merged = std::mem::take(&mut self.merged);
        for (target, [a, b]) in self.triples() {
            let to = &mut merged[target.range.clone()];
            to.copy_from_slice(&self.weights[target.range.clone()]);
            let (inputs, b) = (target.shape[1], Matrix::dense(&learnt[b], self.rank));
            multiply(self.scale, b, Matrix::dense(&learnt[a], inputs), 1.0, to, inputs);
        }
        self.merged = merged;
        &self.merged
    }

    fn pull(&self, learnt: &[f32], gradient: &[f32]) -> Vec<f32> {
        let mut pulled = vec![0.0; self.layout.len()];
        for (target, [a, b]) in self.triples() {
            let inputs = target.shape[1];
            let whole = Matrix::dense(&gradient[target.range.clone()], inputs);
            let b_matrix = Matrix::dense(&learnt[b.clone()], self.rank);
            multiply(self.scale, b_matrix.transposed(), whole, 0.0, &mut pulled[a.clone()], inputs);
            let a_matrix = Matrix::dense(&learnt[a], inputs);
            multiply(self.scale, whole, a_matrix.transposed(), 0.0, &mut pulled[b], self.rank);
        }
        pulled
    }
}
