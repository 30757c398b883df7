//! A model's weights on the device.

use std::collections::HashMap;
use std::ops::Range;

use wsd_nn::arch::POSITIONS;
use wsd_nn::gpu::{Arithmetic, Array, Operand, View};

use crate::error::Result;
use crate::layout::Place;
use crate::model::decoder::Model;

/// A copy of weights, and the tables that follow from the blueprint.
#[derive(Default)]
pub(super) struct Mirror {
    /// A place for every weight, as in the list on the host; those of vectors are not used.
    matrices: Array<Operand>,
    /// Vectors, one after another.
    vectors: Array<f32>,
    /// The place in `vectors` of each vector, by the first of its weights.
    starts: HashMap<usize, usize>,
    /// Per rotary embedding, the angles of all positions of short sequences, then those of long ones.
    angles: Vec<Array<[f32; 2]>>,
}

/// True for tensors that are added, rather than multiplied with.
fn is_vector(place: &Place) -> bool {
    !place.is_matrix() || place.name == POSITIONS
}

impl Mirror {
    pub(super) fn is_loaded(&self) -> bool {
        !self.matrices.is_empty()
    }

    /// Copies the weights that change; the first time all of them.
    pub(super) fn load(&mut self, arithmetic: &Arithmetic, model: &Model, weights: &[f32]) -> Result<()> {
        let places = model.layout.places();
        if self.is_loaded() {
            return model.changing.iter().try_for_each(|index| self.write(arithmetic, &places[*index], weights));
        }
        let mut len = 0;
        for place in places.iter().filter(|place| is_vector(place)) {
            self.starts.insert(place.range.start, len);
            len += place.range.len();
        }
        arithmetic.sized(&mut self.vectors, len)?;
        for tables in &model.decoder.rotary {
            let angles: Vec<[f32; 2]> = tables.iter().flat_map(|table| table.angles()).collect();
            let mut array = Array::default();
            arithmetic.upload(&mut array, &angles)?;
            self.angles.push(array);
        }
        arithmetic.sized(&mut self.matrices, weights.len())?;
        places.iter().try_for_each(|place| self.write(arithmetic, place, weights))
    }

    fn write(&self, arithmetic: &Arithmetic, place: &Place, weights: &[f32]) -> Result<()> {
        let values = &weights[place.range.clone()];
        match self.starts.get(&place.range.start).filter(|_| is_vector(place)) {
            Some(start) => arithmetic.write(self.vectors.view().skip(*start), values)?,
            None => arithmetic.write_operands(self.matrices.view().part(place.range.clone()), values)?,
        }
        Ok(())
    }

    /// The weights of matrices.
    pub(super) fn matrix(&self, range: &Range<usize>) -> View<'_, Operand> {
        self.matrices.view().part(range.clone())
    }

    /// The weights of vectors.
    pub(super) fn vector(&self, range: &Range<usize>) -> View<'_, f32> {
        let start = self.starts.get(&range.start).copied().unwrap_or_default();
        self.vectors.view().part(start..start + range.len())
    }

    /// The angles of a rotary embedding.
    pub(super) fn angles(&self, rope: usize) -> View<'_, [f32; 2]> {
        self.angles[rope].view()
    }
}
