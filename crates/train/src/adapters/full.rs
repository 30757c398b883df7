//! Full fine-tuning: the parameters are the weights.

use wsd_core::Values;

use super::{Adapter, AdapterEntry, Trained};
use crate::error::Result;
use crate::layout::Layout;

pub(super) static ENTRY: AdapterEntry = AdapterEntry {
    name: "full",
    about: "Train all weights",
    peft: None,
    settings: &[],
    defaults: Values::default,
    make,
};

fn make(layout: &Layout, weights: Vec<f32>, _: &Values) -> Result<Box<dyn Adapter>> {
    Ok(Box::new(Full { layout: layout.clone(), weights }))
}

struct Full {
    layout: Layout,
    /// The weights until [`Adapter::start`] gives them away.
    weights: Vec<f32>,
}

impl Adapter for Full {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn start(&mut self, _seed: u64) -> Vec<f32> {
        std::mem::take(&mut self.weights)
    }

    fn trained(&self, _name: &str) -> Trained {
        Trained::Whole
    }

    fn merge<'w>(&'w mut self, parameters: &'w [f32]) -> &'w [f32] {
        parameters
    }

    fn pull_back(&self, _parameters: &[f32], _gradient: &[f32]) -> Option<Vec<f32>> {
        None
    }
}
