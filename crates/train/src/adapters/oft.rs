//! Orthogonal fine-tuning: `W * R^T` with `R` a block-diagonal rotation of the inputs (Qiu et al.
//! 2023, arXiv 2306.07280), as PEFT has it; the adapter of OrthSR (arXiv 2407.08374).
//!
//! A block is the Cayley transform `R = (I - Q) (I + Q)^-1` of a skew-symmetric `Q`, whose part
//! above the diagonal is trained. Lengths and angles of the rows of `W` stay as they are, and so do
//! its singular values.

use wsd_core::{Setting, Values};
use wsd_nn::kernels::dense::{Matrix, Output, multiply};

use super::targets::{self, LAYERS, LINEAR, TARGET_MODULES};
use super::{Adapter, AdapterEntry, Peft, Trained};
use crate::error::{Error, Result};
use crate::layout::{Layout, Place};

static BLOCK_SIZE: Setting =
    Setting::integer("oft_block_size", "Inputs that a block rotates together; a divisor of the inputs", 2..=4096)
        .with_default_integer(32);

pub(super) static ENTRY: AdapterEntry = AdapterEntry {
    name: "oft",
    about: "Train rotations of the inputs of some matrices",
    peft: Some(Peft { kind: "OFT", flags: &[("use_cayley_neumann", false)] }),
    settings: &[&BLOCK_SIZE, &TARGET_MODULES, &LAYERS],
    defaults,
    make,
};

/// The end of the name of the rotations of a matrix.
const ROTATIONS: &str = ".oft_R.weight";

fn defaults() -> Values {
    targets::modules(LINEAR)
}

struct Oft {
    /// `(blocks, size * (size - 1) / 2)` of each target in turn.
    layout: Layout,
    targets: Vec<Place>,
    size: usize,
    weights: Vec<f32>,
    merged: Vec<f32>,
}

fn make(layout: &Layout, weights: Vec<f32>, values: &Values) -> Result<Box<dyn Adapter>> {
    let targets = targets::matrices(ENTRY.name, layout, &values.clone().or(defaults()))?;
    let size: usize = values.get(&BLOCK_SIZE);
    if let Some(odd) = targets.iter().find(|target| !target.shape[1].is_multiple_of(size)) {
        let limit = format!("a divisor of {}, the inputs of `{}`", odd.shape[1], odd.name);
        return Err(Error::setting("oft.oft_block_size", limit, size));
    }
    let tensor = |target: &Place| {
        (format!("{}{ROTATIONS}", targets::module(&target.name)), vec![target.shape[1] / size, size * (size - 1) / 2])
    };
    let layout = Layout::of(targets.iter().map(tensor).collect());
    Ok(Box::new(Oft { layout, size, merged: weights.clone(), weights, targets }))
}

/// A square matrix in double precision, by rows.
struct Square {
    size: usize,
    data: Vec<f64>,
}

impl Square {
    /// The skew-symmetric matrix with these values above its diagonal, by rows, plus the identity
    /// times `diagonal`; the values are multiplied with `sign`.
    fn skew(size: usize, above: &[f32], sign: f64, diagonal: f64) -> Self {
        let mut data = vec![0.0; size * size];
        let mut values = above.iter();
        for row in 0..size {
            data[row * size + row] = diagonal;
            for column in row + 1..size {
                let value = sign * values.next().copied().map_or(0.0, f64::from);
                data[row * size + column] = value;
                data[column * size + row] = -value;
            }
        }
        Self { size, data }
    }

    /// The inverse by elimination. `I + Q` is regular for every skew-symmetric `Q`, and needs no
    /// exchange of rows: its symmetric part is the identity, so that no pivot is below 1.
    fn inverse(mut self) -> Self {
        let size = self.size;
        let mut inverse = Self::skew(size, &[], 1.0, 1.0);
        for pivot in 0..size {
            let factor = 1.0 / self.data[pivot * size + pivot];
            for data in [&mut self.data, &mut inverse.data] {
                data[pivot * size..(pivot + 1) * size].iter_mut().for_each(|value| *value *= factor);
            }
            for row in (0..size).filter(|row| *row != pivot) {
                let factor = self.data[row * size + pivot];
                for data in [&mut self.data, &mut inverse.data] {
                    for column in 0..size {
                        data[row * size + column] -= factor * data[pivot * size + column];
                    }
                }
            }
        }
        inverse
    }

    fn times(&self, other: &Self) -> Self {
        let size = self.size;
        let mut data = vec![0.0; size * size];
        for (to, from) in data.chunks_exact_mut(size).zip(self.data.chunks_exact(size)) {
            for (factor, row) in from.iter().zip(other.data.chunks_exact(size)) {
                to.iter_mut().zip(row).for_each(|(to, value)| *to += factor * value);
            }
        }
        Self { size, data }
    }

    fn transposed(&self) -> Self {
        let size = self.size;
        let data = (0..size * size).map(|at| self.data[at % size * size + at / size]).collect();
        Self { size, data }
    }
}

/// A rotation and the inverse of `I + Q`.
fn cayley(size: usize, above: &[f32]) -> (Square, Square) {
    let inverse = Square::skew(size, above, 1.0, 1.0).inverse();
    (Square::skew(size, above, -1.0, 1.0).times(&inverse), inverse)
}

impl Oft {
    /// Each target with the place of its rotations.
    fn pairs(&self) -> impl Iterator<Item = (&Place, &Place)> {
        self.targets.iter().zip(self.layout.places())
    }

    /// The columns of a matrix that a block rotates.
    fn columns<'m>(&self, matrix: &'m [f32], target: &Place, block: usize) -> Matrix<'m> {
        Matrix::new(
            &matrix[target.range.start + block * self.size..target.range.end],
            target.shape[0],
            self.size,
            target.shape[1],
        )
    }
}

impl Adapter for Oft {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All rotations are the identity.
    fn start(&mut self, _seed: u64) -> Vec<f32> {
        vec![0.0; self.layout.len()]
    }

    fn trained(&self, name: &str) -> Trained {
        Trained::whole_if(self.targets.iter().any(|target| target.name == name))
    }

    fn merge<'w>(&'w mut self, parameters: &'w [f32]) -> &'w [f32] {
        let mut merged = std::mem::take(&mut self.merged);
        for (target, place) in self.pairs() {
            let blocks = parameters[place.range.clone()].chunks_exact(place.shape[1]);
            for (block, above) in blocks.enumerate() {
                let (rotation, _) = cayley(self.size, above);
                let rotation: Vec<f32> = rotation.data.iter().map(|value| *value as f32).collect();
                let to = &mut merged[target.range.start + block * self.size..target.range.end];
                let from = self.columns(&self.weights, target, block);
                multiply(1.0, from, Matrix::dense(&rotation, self.size).transposed(), Output::set(to, target.shape[1]));
            }
        }
        self.merged = merged;
        &self.merged
    }

    /// With `H = G^T W` the gradient of `R` and `M = (I + Q)^-1`, that of `Q` is
    /// `-(I + R)^T H M^T`, of which an entry above the diagonal takes the difference to its mirror.
    fn pull_back(&self, parameters: &[f32], gradient: &[f32]) -> Option<Vec<f32>> {
        let (size, mut pulled) = (self.size, vec![0.0; self.layout.len()]);
        let mut product = vec![0.0f32; size * size];
        for (target, place) in self.pairs() {
            let blocks = parameters[place.range.clone()].chunks_exact(place.shape[1]);
            let to = pulled[place.range.clone()].chunks_exact_mut(place.shape[1]);
            for (block, (above, to)) in blocks.zip(to).enumerate() {
                let (from, weights) =
                    (self.columns(gradient, target, block), self.columns(&self.weights, target, block));
                multiply(1.0, from.transposed(), weights, Output::set(&mut product, size));
                let of_rotation = Square { size, data: product.iter().copied().map(f64::from).collect() };
                let (mut sum, inverse) = cayley(size, above);
                (0..size).for_each(|at| sum.data[at * size + at] += 1.0);
                let of_skew = sum.transposed().times(&of_rotation).times(&inverse.transposed()).data;
                let places = (0..size).flat_map(|row| (row + 1..size).map(move |column| (row, column)));
                for (to, (row, column)) in to.iter_mut().zip(places) {
                    *to = (of_skew[column * size + row] - of_skew[row * size + column]) as f32;
                }
            }
        }
        Some(pulled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(size: usize) -> Vec<f32> {
        (0..size * (size - 1) / 2).map(|at| (at as f32 * 1.7 + 1.0).sin() * 0.8).collect()
    }

    #[test]
    fn rotations_are_orthogonal() {
        for size in [2, 3, 8, 32] {
            let (rotation, _) = cayley(size, &above(size));
            let product = rotation.transposed().times(&rotation);
            for (at, value) in product.data.iter().enumerate() {
                let identity = f64::from(u8::from(at % size == at / size));
                assert!((value - identity).abs() < 1e-10, "{size}: {value}");
            }
            assert!((rotation.data[1]).abs() > 1e-3);
        }
    }

    /// The products of rows determine the singular values.
    #[test]
    fn products_of_rows_stay() {
        let layout = Layout::of(vec![("model.layers.0.mlp.up_proj.weight".into(), vec![5, 8])]);
        let weights: Vec<f32> = (0..40).map(|at| (at as f32 * 0.9).cos()).collect();
        let values = Values::default().with(&BLOCK_SIZE, 4usize).unwrap();
        let mut adapter = make(&layout, weights.clone(), &values).unwrap();
        let start = adapter.start(1);
        assert_eq!(adapter.merge(&start), weights);
        let parameters: Vec<f32> = (0..12).map(|at| (at as f32).sin()).collect();
        let merged = adapter.merge(&parameters).to_vec();
        assert!(merged.iter().zip(&weights).any(|(a, b)| (a - b).abs() > 0.1));
        let products = |rows: &[f32]| -> Vec<f64> {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            rows.chunks(8).flat_map(|a| rows.chunks(8).map(|b| dot(a, b)).collect::<Vec<_>>()).collect()
        };
        for (found, expected) in products(&merged).iter().zip(products(&weights)) {
            assert!((found - expected).abs() < 1e-5, "{found}, expected {expected}");
        }
        let odd = Values::default().with(&BLOCK_SIZE, 3usize).unwrap();
        let error = make(&layout, weights, &odd).err().unwrap().to_string();
        assert!(error.contains("`oft.oft_block_size` must be a divisor of 8"), "{error}");
    }
}
