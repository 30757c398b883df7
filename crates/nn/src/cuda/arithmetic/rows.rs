//! Rotations, probabilities of attention, and gates.

use super::args::{GatesArgs, RotateArgs, SoftmaxArgs, SoftmaxBackArgs};
use super::{Arithmetic, Operand, View};
use crate::activation::Activation;
use crate::error::Result;

/// The heads of rows that rotate.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// Cosine and sine of each pair at each place.
    pub angles: View<'a, [f32; 2]>,
    /// The place of each row.
    pub places: View<'a, i32>,
    /// Floats from a row to the next.
    pub stride: usize,
    /// The heads at the beginning of a row.
    pub count: usize,
    /// The width of a head.
    pub size: usize,
    /// Pairs of dimensions that rotate together.
    pub pairs: usize,
    /// Neighbours form a pair, rather than dimensions `pairs` apart.
    pub interleaved: bool,
}

/// Scores of queries of one sequence, `(products, queries, keys)`.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// The heads.
    pub products: usize,
    /// The queries of each.
    pub queries: usize,
    /// The keys of each.
    pub keys: usize,
    /// The position of the first query.
    pub first: usize,
    /// The position of the first key.
    pub first_key: usize,
    /// The keys that a query sees, up to its own.
    pub window: Option<usize>,
    /// The soft limit of scores.
    pub cap: Option<f32>,
}

impl Scores {
    /// The number of all scores.
    #[must_use]
    pub fn area(&self) -> usize {
        self.products * self.queries * self.keys
    }
}

/// The gates of a feed-forward part.
#[derive(Clone, Copy, Debug)]
pub struct Gates {
    /// The width of its inner rows.
    pub width: usize,
    /// The nonlinearity.
    pub activation: Activation,
    /// A row is a gate and then an up, rather than an up alone.
    pub is_gated: bool,
}

impl Arithmetic {
    /// Rotates the heads of rows, or turns them `back`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn rotate(&self, heads: &Heads<'_>, x: View<'_, f32>, back: bool) -> Result<()> {
        let rows = heads.places.len();
        let [stride, count, size, pairs] = [heads.stride, heads.count, heads.size, heads.pairs].map(|size| size as i32);
        let args = RotateArgs {
            x: x.address(rows * heads.stride)?,
            angles: heads.angles.address(0)?,
            place: heads.places.address(rows)?,
            stride,
            heads: count,
            size,
            pairs,
            interleaved: i32::from(heads.interleaved),
            back: i32::from(back),
        };
        self.launch(self.kernels.rotate_rows, [rows, 1], &args)
    }

    /// Sets `out` to the probabilities of scores.
    ///
    /// # Errors
    /// Those of the device.
    pub fn softmax(&self, scores: Scores, x: View<'_, f32>, out: View<'_, Operand>) -> Result<()> {
        let Scores { products, queries, keys, first, first_key, window, cap } = scores;
        let all = first + queries;
        let window = window.map_or(all, |window| window.min(all));
        let args = SoftmaxArgs {
            scores: x.address(scores.area())?,
            out: out.address(scores.area())?,
            queries: queries as i32,
            keys: keys as i32,
            first: first as i32,
            first_key: first_key as i32,
            window: window as i32,
            cap: cap.unwrap_or(0.0),
        };
        self.launch(self.kernels.softmax_rows, [queries, products], &args)
    }

    /// Sets `out` to the gradient of scores `x`, given that of their `probabilities`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn softmax_backward(
        &self,
        scores: Scores,
        (x, probabilities): (View<'_, f32>, View<'_, Operand>),
        gradient: View<'_, f32>,
        out: View<'_, Operand>,
    ) -> Result<()> {
        let area = scores.area();
        let args = SoftmaxBackArgs {
            scores: x.address(area)?,
            y: gradient.address(area)?,
            p: probabilities.address(area)?,
            out: out.address(area)?,
            keys: scores.keys as i32,
            cap: scores.cap.unwrap_or(0.0),
        };
        self.launch(self.kernels.softmax_rows_backward, [scores.products * scores.queries, 1], &args)
    }

    /// Sets `out`, `(rows, width)`, to the gated product of `gates`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn gate(&self, plan: Gates, gates: View<'_, f32>, out: View<'_, f32>) -> Result<()> {
        let args = GatesArgs { out: out.address(out.len())?, ..plan.args(gates, out.len())? };
        self.launch_over(self.kernels.gate_rows, out.len(), &args)
    }

    /// Replaces `gates` by their gradients, given that of the gated product.
    ///
    /// # Errors
    /// Those of the device.
    pub fn gate_backward(&self, plan: Gates, gates: View<'_, f32>, gradient: View<'_, f32>) -> Result<()> {
        let args = plan.args(gates, gradient.len())?;
        let args = GatesArgs { y: gradient.address(gradient.len())?, out: args.gates, ..args };
        self.launch_over(self.kernels.gate_rows_backward, gradient.len(), &args)
    }
}

impl Gates {
    fn args(self, gates: View<'_, f32>, count: usize) -> Result<GatesArgs> {
        let activation = match self.activation {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            Activation::Gelu => 2,
            Activation::ClampedSilu => 3,
        };
        Ok(GatesArgs {
            gates: gates.address(if self.is_gated { 2 * count } else { count })?,
            count: count as u64,
            width: self.width as i32,
            activation,
            is_gated: i32::from(self.is_gated),
            ..GatesArgs::default()
        })
    }
}
