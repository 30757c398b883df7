//! Cosines and sines of rotary embeddings.

use wsd_nn::arch::RopePlan;
use wsd_nn::kernels::Rotation;

/// Cosines and sines for all positions, `(positions, pairs)`.
pub(super) struct RotaryTable {
    pub(super) pairs: usize,
    pub(super) interleaved: bool,
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Sines of the negated angles, for the backward pass.
    back: Vec<f32>,
}

impl RotaryTable {
    pub(super) fn new(rope: &RopePlan, positions: usize, long: bool) -> Self {
        let (frequencies, factor) = (rope.frequencies(long), rope.attention_factor());
        let angles = (0..positions).flat_map(|position| {
            // The reference implementations compute this product in single precision.
            frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency))
        });
        let (cos, sin): (Vec<_>, Vec<_>) =
            angles.map(|angle| (angle.cos() as f32 * factor, angle.sin() as f32 * factor)).unzip();
        let back = sin.iter().map(|sin| -sin).collect();
        Self { pairs: rope.dims / 2, interleaved: rope.interleaved, cos, sin, back }
    }

    /// The number of positions.
    pub(super) fn positions(&self) -> usize {
        self.cos.len() / self.pairs.max(1)
    }

    /// Cosine and sine of all pairs, position after position.
    pub(super) fn angles(&self) -> impl Iterator<Item = [f32; 2]> {
        self.cos.iter().zip(&self.sin).map(|(cos, sin)| [*cos, *sin])
    }

    /// The rotation of a position; `back` for its inverse.
    pub(super) fn at(&self, position: usize, back: bool) -> Rotation<'_> {
        let range = position * self.pairs..(position + 1) * self.pairs;
        let sin = if back { &self.back } else { &self.sin };
        Rotation { cos: &self.cos[range.clone()], sin: &sin[range], interleaved: self.interleaved }
    }
}
