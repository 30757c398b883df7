//! LoRA: `W + lora_alpha / r * B * A` with `A` of `r` rows and `B` of `r` columns for some matrices
//! `W` (Hu et al. 2021, arXiv 2106.09685).

use std::collections::BTreeSet;
use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use wsd_core::{Setting, Values};
use wsd_nn::adapter::{LORA_A, LORA_B};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use super::{Adapter, AdapterEntry};
use crate::error::{Error, Result};
use crate::initialization::uniform;
use crate::layout::{Layout, Place};

static R: Setting = Setting::integer("r", "Rank of the change", 1..=65536).with_default_integer(16);
static LORA_ALPHA: Setting =
    Setting::number("lora_alpha", "The change is scaled by lora_alpha / r", 0.0..=1e9).with_default_number(32.0);
static TARGET_MODULES: Setting = Setting::texts("target_modules", "Last parts of the names of the matrices to change")
    .with_default_about("all matrices of a layer");

pub(super) static ENTRY: AdapterEntry = AdapterEntry {
    name: "lora",
    about: "Train low-rank changes of some matrices",
    peft_type: Some("LORA"),
    settings: &[&R, &LORA_ALPHA, &TARGET_MODULES],
    defaults,
    make,
};

/// All matrices of a decoder layer.
fn defaults() -> Values {
    let modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    Values::default().with(&TARGET_MODULES, modules.map(str::to_owned).to_vec()).unwrap_or_default()
}

struct Lora {
    /// `A` and `B` of each target in turn.
    layout: Layout,
    targets: Vec<Place>,
    rank: usize,
    scale: f32,
    weights: Vec<f32>,
    merged: Vec<f32>,
}

fn make(layout: &Layout, weights: Vec<f32>, values: &Values) -> Result<Box<dyn Adapter>> {
    let rank: usize = values.get(&R);
    let modules: Vec<String> = values.clone().or(defaults()).get(&TARGET_MODULES);
    let is_target = |place: &&Place| module(place).is_some_and(|module| modules.iter().any(|name| name == module));
    let targets: Vec<_> = layout.places().iter().filter(is_target).cloned().collect();
    if targets.is_empty() {
        let known: BTreeSet<_> = layout.places().iter().filter_map(module).collect();
        let limit = format!("some of {}", known.into_iter().collect::<Vec<_>>().join(", "));
        return Err(Error::setting("lora.target_modules", limit, modules.join(", ")));
    }
    let tensors = |target: &Place| {
        let name = target.name.trim_end_matches(".weight");
        let (a, b) = (vec![rank, target.shape[1]], vec![target.shape[0], rank]);
        [(format!("{name}{LORA_A}"), a), (format!("{name}{LORA_B}"), b)]
    };
    let layout = Layout::of(targets.iter().flat_map(tensors).collect());
    let scale = (values.get::<f64>(&LORA_ALPHA) / rank as f64) as f32;
    Ok(Box::new(Lora { layout, rank, scale, merged: weights.clone(), weights, targets }))
}

/// The last part of a matrix's name, without `.weight`; `None` for norms and biases.
fn module(place: &Place) -> Option<&str> {
    place.name.strip_suffix(".weight").filter(|_| place.is_matrix())?.rsplit('.').next()
}

impl Lora {
    /// Each target with the ranges of its `A` and `B` among the parameters.
    fn triples(&self) -> impl Iterator<Item = (&Place, Range<usize>, Range<usize>)> {
        let pairs = self.layout.places().chunks_exact(2);
        self.targets.iter().zip(pairs).map(|(target, pair)| (target, pair[0].range.clone(), pair[1].range.clone()))
    }
}

impl Adapter for Lora {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    /// `A` is uniform within `1 / sqrt(inputs)`, as PEFT initializes it, and `B` is zero.
    fn start(&mut self, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut parameters = vec![0.0; self.layout.len()];
        for place in self.layout.places().iter().step_by(2) {
            let bound = 1.0 / (place.shape[1] as f64).sqrt();
            let values = &mut parameters[place.range.clone()];
            values.iter_mut().for_each(|value| *value = ((2.0 * uniform(&mut random) - 1.0) * bound) as f32);
        }
        parameters
    }

    fn changes(&self, name: &str) -> bool {
        self.targets.iter().any(|target| target.name == name)
    }

    fn merge<'w>(&'w mut self, parameters: &'w [f32]) -> &'w [f32] {
        let mut merged = std::mem::take(&mut self.merged);
        for (target, a, b) in self.triples() {
            let to = &mut merged[target.range.clone()];
            to.copy_from_slice(&self.weights[target.range.clone()]);
            let (inputs, b) = (target.shape[1], Matrix::dense(&parameters[b], self.rank));
            multiply(self.scale, b, Matrix::dense(&parameters[a], inputs), Output::add(to, inputs));
        }
        self.merged = merged;
        &self.merged
    }

    /// With `s` the scale and `G` the gradient of `W`: `s * B^T * G` for `A` and `s * G * A^T` for
    /// `B`.
    fn pull_back(&self, parameters: &[f32], gradient: &[f32]) -> Option<Vec<f32>> {
        let mut pulled = vec![0.0; self.layout.len()];
        for (target, a, b) in self.triples() {
            let inputs = target.shape[1];
            let whole = Matrix::dense(&gradient[target.range.clone()], inputs);
            let b_matrix = Matrix::dense(&parameters[b.clone()], self.rank);
            multiply(self.scale, b_matrix.transposed(), whole, Output::set(&mut pulled[a.clone()], inputs));
            let a_matrix = Matrix::dense(&parameters[a], inputs);
            multiply(self.scale, whole, a_matrix.transposed(), Output::set(&mut pulled[b], self.rank));
        }
        Some(pulled)
    }
}
