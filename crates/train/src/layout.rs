//! All weights of a model in one list of floats.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::Result;
use wsd_nn::Checkpoint;
use wsd_nn::arch::{self, Blueprint};

/// Where each tensor of a blueprint lies.
///
/// Queries, keys and values lie side by side, and so do gate and up: each can be read as one matrix, as some files
/// stack them.
#[derive(Clone, Debug)]
pub struct Layout {
    places: Vec<Place>,
    by_name: HashMap<String, usize>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its Hugging Face name.
    pub name: String,
    /// Its dimensions, matrices as `(outputs, inputs)`.
    pub shape: Vec<usize>,
    /// Its floats.
    pub range: Range<usize>,
}

impl Place {
    /// Whether it has two dimensions: a matrix decays and takes adapters, a norm or a bias does neither.
    #[must_use]
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }
}

impl Layout {
    /// The tensors of a blueprint.
    #[must_use]
    pub fn new(plan: &Blueprint) -> Self {
        let mut tensors = arch::tensors(plan);
        // Biases would part the matrices that are to lie side by side.
        tensors.sort_by_key(|(name, _)| name.ends_with(".bias"));
        Self::of(tensors)
    }

    /// These tensors, one after another.
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
        Self { places, by_name }
    }

    /// The tensors in order.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The tensor of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Place> {
        self.by_name.get(name).map(|&index| &self.places[index])
    }

    /// Floats in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.last().map_or(0, |place| place.range.end)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weights of a checkpoint as floats.
    ///
    /// # Errors
    /// [`wsd_nn::Error::Tensors`] naming all that are missing or misshapen.
    pub fn read(&self, checkpoint: &Checkpoint) -> Result<Vec<f32>> {
        let wanted: Vec<_> = self.places.iter().map(|place| (place.name.clone(), place.shape.clone())).collect();
        let mut weights = vec![0.0; self.len()];
        for (tensor, place) in checkpoint.weights.require(&wanted)?.iter().zip(&self.places) {
            let rows = weights[place.range.clone()].chunks_exact_mut(tensor.columns().max(1));
            rows.enumerate().for_each(|(row, out)| tensor.dequantize_row(row, out));
        }
        Ok(weights)
    }
}
