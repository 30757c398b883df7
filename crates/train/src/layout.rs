//! The weights of a model as one list of floats.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};
use wsd_nn::arch::{self, Blueprint, Head};
use wsd_nn::{Checkpoint, Spelling};

/// The name of the matrix of a reward head, `(1, hidden)`.
pub const REWARD: &str = "score.weight";

/// The ranges that tensors occupy in a list of floats.
///
/// The projections of queries, keys and values lie side by side, and so do gate and up: each group
/// can be multiplied as one matrix.
///
/// ```
/// let layout = wsd_train::Layout::of(vec![("a.weight".into(), vec![2, 3]), ("a.bias".into(), vec![2])]);
/// assert_eq!(layout.get("a.bias").unwrap().range, 6..8);
/// assert_eq!(layout.len(), 8);
/// ```
#[derive(Clone, Debug)]
pub struct Layout {
    /// The names and forms of the tensors in files.
    pub spelling: Spelling,
    places: Vec<Place>,
    by_name: HashMap<String, usize>,
}

/// The place of one tensor in a list of floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The Hugging Face name.
    pub name: String,
    /// The dimensions; matrices are `(outputs, inputs)`.
    pub shape: Vec<usize>,
    /// The range of its floats.
    pub range: Range<usize>,
}

impl Place {
    /// True for two dimensions. Matrices decay and take adapters; norms and biases do neither.
    #[must_use]
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }
}

impl Layout {
    /// The layout of a blueprint's tensors.
    #[must_use]
    pub fn new(blueprint: &Blueprint) -> Self {
        let mut tensors = arch::tensors(blueprint);
        // Biases go last within the list: between matrices they would keep these apart.
        tensors.sort_by_key(|(name, _)| name.ends_with(".bias"));
        Self { spelling: Spelling::of(blueprint), ..Self::of(tensors) }
    }

    /// The layout of these tensors, one after another.
    #[must_use]
    pub fn of(tensors: Vec<(String, Vec<usize>)>) -> Self {
        let mut end = 0;
        let mut place = |(name, shape): (String, Vec<usize>)| {
            let range = end..end + shape.iter().product::<usize>();
            end = range.end;
            Place { name, shape, range }
        };
        let places: Vec<_> = tensors.into_iter().map(&mut place).collect();
        let by_name = places.iter().enumerate().map(|(index, place)| (place.name.clone(), index)).collect();
        Self { spelling: Spelling::default(), places, by_name }
    }

    /// The tensors in the order of their ranges.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The tensor of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Place> {
        self.by_name.get(name).map(|&index| &self.places[index])
    }

    /// The number of floats.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.last().map_or(0, |place| place.range.end)
    }

    /// True without a tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the weights of a checkpoint. A reward head that the checkpoint lacks is all zeros, so
    /// that it rewards everything with 0.
    ///
    /// # Errors
    /// [`Error::Untrainable`]; [`wsd_nn::Error::Tensors`] names every tensor that is missing or has another shape.
    pub fn read(&self, checkpoint: &Checkpoint) -> Result<Vec<f32>> {
        let is_stored = |place: &&Place| place.name != REWARD || checkpoint.weights.get(REWARD).is_some();
        let stored: Vec<_> = self.places.iter().filter(is_stored).collect();
        let wanted: Vec<_> = stored.iter().map(|place| (place.name.clone(), place.shape.clone())).collect();
        let bias = Head::VOCABULARY.bias();
        if self.get(&bias).is_none() && checkpoint.weights.get(&bias).is_some() {
            return Err(Error::Untrainable { what: "a bias on the vocabulary head" });
        }
        let mut weights = vec![0.0; self.len()];
        for (tensor, place) in checkpoint.weights.require(&wanted)?.iter().zip(stored) {
            let rows = weights[place.range.clone()].chunks_exact_mut(tensor.columns().max(1));
            rows.enumerate().for_each(|(row, out)| tensor.dequantize_row(row, out));
        }
        Ok(weights)
    }
}
