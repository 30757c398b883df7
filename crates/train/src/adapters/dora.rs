//! DoRA: a row of a matrix as its length times a direction, which LoRA changes (Liu et al. 2024,
//! arXiv 2402.09353, equation 5).
//!
//! The gradient is that of the whole expression. PEFT takes the length of the changed row for a
//! constant in it (section 4.3 of the paper).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use wsd_core::Values;

use super::lora::{Factors, SETTINGS, defaults};
use super::targets::module;
use super::{Adapter, AdapterEntry, Peft, Trained};
use crate::error::Result;
use crate::layout::{Layout, Place};

pub(super) static ENTRY: AdapterEntry = AdapterEntry {
    name: "dora",
    about: "Train the lengths of rows, and low-rank changes of their directions",
    peft: Some(Peft { kind: "LORA", flags: &[("use_dora", true)] }),
    settings: SETTINGS,
    defaults,
    make,
};

/// The end of the name of the lengths of a matrix's rows.
const MAGNITUDE: &str = ".lora_magnitude_vector";

struct Dora {
    /// `A`, `B` and the lengths of rows of each target in turn.
    layout: Layout,
    factors: Factors,
    weights: Vec<f32>,
    merged: Vec<f32>,
}

fn make(layout: &Layout, weights: Vec<f32>, values: &Values) -> Result<Box<dyn Adapter>> {
    let factors = Factors::try_new(ENTRY.name, layout, values)?;
    let tensors = |target: &Place| {
        let [a, b] = factors.tensors(target);
        [a, b, (format!("{}{MAGNITUDE}", module(&target.name)), vec![target.shape[0]])]
    };
    let layout = Layout::of(factors.targets.iter().flat_map(tensors).collect());
    Ok(Box::new(Dora { layout, factors, merged: weights.clone(), weights }))
}

/// The length of a row.
fn length(row: &[f32]) -> f32 {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32
}

impl Dora {
    /// Each target with the places of `A`, `B` and the lengths.
    fn targets(&self) -> impl Iterator<Item = (&Place, &[Place])> {
        self.factors.targets.iter().zip(self.layout.places().chunks_exact(3))
    }

    /// A target with LoRA's change, before its rows are scaled.
    fn changed(&self, target: &Place, places: &[Place], parameters: &[f32]) -> Vec<f32> {
        let mut changed = self.weights[target.range.clone()].to_vec();
        let [a, b] = [0, 1].map(|part| &parameters[places[part].range.clone()]);
        self.factors.add(target, (a, b), &mut changed);
        changed
    }
}

impl Adapter for Dora {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    /// `B` is zero, and the lengths are those of the rows.
    fn start(&mut self, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut parameters = vec![0.0; self.layout.len()];
        for (target, places) in self.targets() {
            Factors::start(&places[0], &mut parameters, &mut random);
            let rows = self.weights[target.range.clone()].chunks_exact(target.shape[1]);
            let lengths = parameters[places[2].range.clone()].iter_mut();
            lengths.zip(rows).for_each(|(to, row)| *to = length(row));
        }
        parameters
    }

    fn trained(&self, name: &str) -> Trained {
        Trained::whole_if(self.factors.has(name))
    }

    fn merge<'w>(&'w mut self, parameters: &'w [f32]) -> &'w [f32] {
        let mut merged = std::mem::take(&mut self.merged);
        for (target, places) in self.targets() {
            let mut changed = self.changed(target, places, parameters);
            let rows = changed.chunks_exact_mut(target.shape[1]);
            for (row, wanted) in rows.zip(&parameters[places[2].range.clone()]) {
                let length = length(row);
                let factor = if length > 0.0 { wanted / length } else { 1.0 };
                row.iter_mut().for_each(|value| *value *= factor);
            }
            merged[target.range.clone()].copy_from_slice(&changed);
        }
        self.merged = merged;
        &self.merged
    }

    /// For a row `m * v / |v|` with gradient `g`: `g . v / |v|` for `m`, and for `v`
    /// `m / |v| * (g - (g . v / |v|^2) v)`, which LoRA takes on.
    fn pull_back(&self, parameters: &[f32], gradient: &[f32]) -> Option<Vec<f32>> {
        let mut pulled = vec![0.0; self.layout.len()];
        for (target, places) in self.targets() {
            let inputs = target.shape[1];
            let changed = self.changed(target, places, parameters);
            let mut rows = gradient[target.range.clone()].to_vec();
            let wanted = &parameters[places[2].range.clone()];
            let lengths = &mut pulled[places[2].range.clone()];
            for ((row, v), (m, to)) in
                rows.chunks_exact_mut(inputs).zip(changed.chunks_exact(inputs)).zip(wanted.iter().zip(lengths))
            {
                let length = length(v);
                if length == 0.0 {
                    continue;
                }
                let along: f64 = row.iter().zip(v).map(|(g, v)| f64::from(*g) * f64::from(*v)).sum();
                *to = (along / f64::from(length)) as f32;
                let (factor, share) = (m / length, (along / f64::from(length).powi(2)) as f32);
                row.iter_mut().zip(v).for_each(|(g, v)| *g = factor * (*g - share * v));
            }
            let [a, b] = [0, 1].map(|part| places[part].range.clone());
            let factors = (&parameters[a.clone()], &parameters[b.clone()]);
            let (to_a, to_b) = pulled[a.start..b.end].split_at_mut(a.len());
            self.factors.pull_back(inputs, factors, &rows, (to_a, to_b));
        }
        Some(pulled)
    }
}
