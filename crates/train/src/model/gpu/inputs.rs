//! The numbers of a shard that go to the device: tokens and positions.

use wsd_nn::gpu::{Arithmetic, Array, Places, View};

use crate::error::Result;
use crate::model::decoder::Decoder;
use crate::model::shard::Shard;

/// Lists on the device, one entry per token.
#[derive(Default)]
pub(super) struct Inputs {
    tokens: Array<i32>,
    positions: Array<i32>,
    angles: Array<i32>,
}

/// The lists of a shard.
#[derive(Clone, Copy)]
pub(super) struct InputViews<'a> {
    pub(super) tokens: View<'a, i32>,
    /// The position in its sequence.
    pub(super) positions: View<'a, i32>,
    /// The place of the position's angles among those of a rotary embedding.
    pub(super) angles: View<'a, i32>,
}

impl Inputs {
    /// Copies the lists of a shard to the device.
    pub(super) fn upload(
        &mut self,
        arithmetic: &Arithmetic,
        decoder: &Decoder,
        shard: &Shard,
    ) -> Result<InputViews<'_>> {
        let tokens: Vec<i32> = shard.tokens.iter().map(|token| *token as i32).collect();
        let positions: Vec<i32> = shard.spans.iter().flat_map(|span| 0..span.rows.len() as i32).collect();
        // The angles of long sequences lie behind those of short ones.
        let long = decoder.rotary.first().map_or(0, |[short, _]| short.positions()) as i32;
        let starts = shard.spans.iter().flat_map(|span| span.rows.clone().map(|_| i32::from(span.long) * long));
        let angles: Vec<i32> = starts.zip(&positions).map(|(start, position)| start + position).collect();
        Ok(InputViews {
            tokens: arithmetic.upload(&mut self.tokens, &tokens)?,
            positions: arithmetic.upload(&mut self.positions, &positions)?,
            angles: arithmetic.upload(&mut self.angles, &angles)?,
        })
    }

    /// The lists of the shard that was copied last.
    pub(super) fn views(&self, shard: &Shard) -> InputViews<'_> {
        let all = 0..shard.tokens.len();
        InputViews {
            tokens: self.tokens.view().part(all.clone()),
            positions: self.positions.view().part(all.clone()),
            angles: self.angles.view().part(all),
        }
    }
}

/// Adds rows, times a factor, to the rows of `to` at their places, in the order of the rows.
pub(super) fn add_at(
    arithmetic: &Arithmetic,
    x: View<'_, f32>,
    places: impl Iterator<Item = usize>,
    scale: (usize, f32),
    to: View<'_, f32>,
) -> Result<()> {
    let mut sorted: Vec<(usize, usize)> = places.zip(0..).collect();
    sorted.sort_unstable();
    let rows: Vec<i32> = sorted.iter().map(|(_, row)| *row as i32).collect();
    let (mut first, mut places) = (Vec::new(), Vec::new());
    for (index, (place, _)) in sorted.iter().enumerate() {
        if places.last() != Some(&(*place as i32)) {
            first.push(index as i32);
            places.push(*place as i32);
        }
    }
    first.push(rows.len() as i32);
    let mut arrays = [(); 3].map(|()| Array::default());
    let [rows_at, first_at, places_at] = &mut arrays;
    let places = Places {
        rows: arithmetic.upload(rows_at, &rows)?,
        first: arithmetic.upload(first_at, &first)?,
        places: arithmetic.upload(places_at, &places)?,
    };
    Ok(arithmetic.add_at(x, &places, scale, to)?)
}
