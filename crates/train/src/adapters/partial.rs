//! Tuning of some tensors only; by default the feed-forward parts, the text form of ARBooth's
//! selective layers (arXiv 2504.02612).

use wsd_core::Values;

use super::targets::{self, LAYERS, TARGET_MODULES};
use super::{Adapter, AdapterEntry, Trained};
use crate::error::Result;
use crate::layout::{Layout, Place};

pub(super) static ENTRY: AdapterEntry = AdapterEntry {
    name: "partial",
    about: "Train some tensors, by default the feed-forward parts, and leave the others",
    peft: None,
    settings: &[&TARGET_MODULES, &LAYERS],
    defaults,
    make,
};

fn defaults() -> Values {
    targets::modules(["gate_proj", "up_proj", "gate_up_proj", "down_proj"])
}

struct Partial {
    layout: Layout,
    targets: Vec<Place>,
    weights: Vec<f32>,
}

fn make(layout: &Layout, weights: Vec<f32>, values: &Values) -> Result<Box<dyn Adapter>> {
    let targets = targets::choose(ENTRY.name, layout, &values.clone().or(defaults()), |_| true)?;
    let layout = Layout::of(targets.iter().map(|target| (target.name.clone(), target.shape.clone())).collect());
    Ok(Box::new(Partial { layout, targets, weights }))
}

impl Partial {
    /// Each target's place among the weights and among the parameters.
    fn pairs(&self) -> impl Iterator<Item = (&Place, &Place)> {
        self.targets.iter().zip(self.layout.places())
    }

    /// The targets out of a list of all weights.
    fn gathered(&self, all: &[f32]) -> Vec<f32> {
        self.targets.iter().flat_map(|target| &all[target.range.clone()]).copied().collect()
    }
}

impl Adapter for Partial {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn start(&mut self, _seed: u64) -> Vec<f32> {
        self.gathered(&self.weights)
    }

    fn trained(&self, name: &str) -> Trained {
        Trained::whole_if(self.layout.get(name).is_some())
    }

    fn merge<'w>(&'w mut self, parameters: &'w [f32]) -> &'w [f32] {
        let mut weights = std::mem::take(&mut self.weights);
        for (target, place) in self.pairs() {
            weights[target.range.clone()].copy_from_slice(&parameters[place.range.clone()]);
        }
        self.weights = weights;
        &self.weights
    }

    fn pull_back(&self, _parameters: &[f32], gradient: &[f32]) -> Option<Vec<f32>> {
        Some(self.gathered(gradient))
    }
}
