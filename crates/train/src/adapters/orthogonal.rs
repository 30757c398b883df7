//! LoRA in the space that a matrix uses least: `W + lora_alpha / r * B * A * (I - V^T * V)` with `V` the
//! right singular vectors of the largest singular values of `W`. Inputs in the space of `V` pass as
//! before. OoPk (arXiv 2506.19022) tunes in a projected space orthogonal to the source; this form of
//! it is a reconstruction.

use nalgebra::DMatrix;
use wsd_core::{Setting, Values};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use super::lora::{self, Factors, Lora};
use super::targets::{LAYERS, TARGET_MODULES};
use super::{Adapter, AdapterEntry, Trained};
use crate::error::{Error, Result};
use crate::layout::{Layout, Place};
use crate::svd::truncated_svd;

static SOURCE_SHARE: Setting = Setting::number(
    "source_share",
    "Share of the singular directions of a matrix, the largest first, in which it stays as it was",
    0.0..=0.99,
)
.with_default_number(0.5);

pub(super) static ENTRY: AdapterEntry = AdapterEntry {
    name: "orthogonal",
    about: "Train low-rank changes orthogonal to the main directions of some matrices",
    peft: None,
    settings: &[lora::SETTINGS[0], lora::SETTINGS[1], &TARGET_MODULES, &LAYERS, &SOURCE_SHARE],
    defaults: lora::defaults,
    make,
};

/// The space of a matrix that stays.
struct Source {
    /// The place of `A`, `(rank, inputs)`, among the parameters.
    a: Place,
    /// Orthonormal rows, `(directions, inputs)`.
    directions: Vec<f32>,
}

impl Source {
    /// Takes the part within the space out of the rows of `A`, or of its gradient.
    fn project(&self, parameters: &mut [f32]) {
        let inputs = self.a.shape[1];
        let count = self.directions.len() / inputs;
        if count == 0 {
            return;
        }
        let (rows, directions) = (&mut parameters[self.a.range.clone()], Matrix::dense(&self.directions, inputs));
        let mut within = vec![0.0; self.a.shape[0] * count];
        multiply(1.0, Matrix::dense(rows, inputs), directions.transposed(), Output::set(&mut within, count));
        multiply(-1.0, Matrix::dense(&within, count), directions, Output::add(rows, inputs));
    }
}

struct Orthogonal {
    lora: Lora,
    sources: Vec<Source>,
    projected: Vec<f32>,
}

fn make(layout: &Layout, weights: Vec<f32>, values: &Values) -> Result<Box<dyn Adapter>> {
    let factors = Factors::try_new(ENTRY.name, layout, values)?;
    let share: f64 = values.get(&SOURCE_SHARE);
    let of_targets = factors.targets.iter().map(|target| {
        let [outputs, inputs] = [target.shape[0], target.shape[1]];
        let count = (share * outputs.min(inputs) as f64) as usize;
        let matrix = DMatrix::from_row_slice(outputs, inputs, &weights[target.range.clone()]);
        let directions = truncated_svd(&matrix, count).v.transpose().as_slice().to_vec();
        (inputs - count, directions)
    });
    let of_targets: Vec<_> = of_targets.collect();
    let lora = Lora::new(factors, weights);
    let places = lora.layout().places().iter().step_by(2);
    let sources = places.zip(of_targets).map(|(a, (free, directions))| {
        if a.shape[0] > free {
            let limit = format!("at most {free}, the directions that `source_share` leaves `{}`", a.name);
            return Err(Error::setting("orthogonal.r", limit, a.shape[0]));
        }
        Ok(Source { a: a.clone(), directions })
    });
    let sources = sources.collect::<Result<Vec<_>>>()?;
    Ok(Box::new(Orthogonal { lora, sources, projected: Vec::new() }))
}

impl Orthogonal {
    fn projected(&self, parameters: &[f32]) -> Vec<f32> {
        let mut projected = parameters.to_vec();
        self.sources.iter().for_each(|source| source.project(&mut projected));
        projected
    }
}

impl Adapter for Orthogonal {
    fn layout(&self) -> &Layout {
        self.lora.layout()
    }

    fn start(&mut self, seed: u64) -> Vec<f32> {
        self.lora.start(seed)
    }

    fn trained(&self, name: &str) -> Trained {
        Trained::whole_if(self.lora.changes(name))
    }

    fn merge<'w>(&'w mut self, parameters: &'w [f32]) -> &'w [f32] {
        self.projected = self.projected(parameters);
        self.lora.merge(&self.projected)
    }

    fn pull_back(&self, parameters: &[f32], gradient: &[f32]) -> Option<Vec<f32>> {
        let mut pulled = self.lora.gradient(&self.projected(parameters), gradient);
        self.sources.iter().for_each(|source| source.project(&mut pulled));
        Some(pulled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The change of a matrix is zero on its main directions, and not on others.
    #[test]
    fn main_directions_stay() {
        let layout = Layout::of(vec![("model.layers.0.mlp.up_proj.weight".into(), vec![6, 8])]);
        let weights: Vec<f32> = (0..48).map(|at| ((at * at) as f32 * 0.37 + 0.2).cos()).collect();
        let values = Values::default().with(lora::SETTINGS[0], 2usize).unwrap().with(&SOURCE_SHARE, 0.5).unwrap();
        let mut adapter = make(&layout, weights.clone(), &values).unwrap();
        let mut parameters = adapter.start(1);
        assert_eq!(adapter.merge(&parameters), weights);
        parameters.iter_mut().enumerate().for_each(|(at, value)| *value += (at as f32).sin());
        let merged = adapter.merge(&parameters).to_vec();
        let change: Vec<f32> = merged.iter().zip(&weights).map(|(a, b)| a - b).collect();
        let svd = DMatrix::from_row_slice(6, 8, &weights).svd(false, true);
        let directions = svd.v_t.unwrap();
        let mut order: Vec<usize> = (0..6).collect();
        order.sort_by(|a, b| svd.singular_values[*b].total_cmp(&svd.singular_values[*a]));
        let effect = |direction: usize| {
            let row = directions.row(order[direction]);
            let moved = change.chunks(8).map(|change| change.iter().zip(row.iter()).map(|(a, b)| a * b).sum::<f32>());
            moved.map(|value| value * value).sum::<f32>().sqrt()
        };
        assert!((0..3).all(|direction| effect(direction) < 1e-4), "{}", effect(0));
        assert!(effect(4) > 0.1, "{}", effect(4));
        for (rank, limit) in [(6usize, "at most 5, the directions that"), (7, "at most 6, the width of")] {
            let narrow = values.clone().with(lora::SETTINGS[0], rank).unwrap();
            let error = make(&layout, weights.clone(), &narrow).err().unwrap().to_string();
            assert!(error.starts_with(&format!("`orthogonal.r` must be {limit}")), "{error}");
        }
    }
}
