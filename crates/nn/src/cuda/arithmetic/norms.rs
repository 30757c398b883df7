//! Norms, and sums of columns.

use std::sync::{Mutex, PoisonError};

use super::args::{ColumnsArgs, MomentsArgs, NormsArgs, NormsBackArgs, RowsArgs};
use super::{Arithmetic, Array, View, address_or_null};
use crate::error::Result;

/// Rows that are summed by one block.
const PART: usize = 128;

/// Rows of `width` floats: `parts` of them side by side in each of `count` rows of a matrix, which
/// begin `stride` floats apart.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The rows of the matrix.
    pub count: usize,
    /// Floats from one to the next.
    pub stride: usize,
    /// Rows within each of them.
    pub parts: usize,
    /// Floats of each of those.
    pub width: usize,
}

impl Rows {
    /// The rows of a list without gaps.
    #[must_use]
    pub fn dense(len: usize, width: usize) -> Self {
        Self { count: len / width.max(1), stride: width, parts: 1, width }
    }

    fn args(&self) -> RowsArgs {
        let [count, stride, parts, width] = [self.count, self.stride, self.parts, self.width].map(|size| size as i32);
        RowsArgs { count, stride, parts, width }
    }

    fn len(&self) -> usize {
        self.count * self.parts
    }

    /// Floats from the first to the last.
    fn extent(&self) -> usize {
        self.count.saturating_sub(1) * self.stride + self.parts * self.width
    }
}

/// A norm with its weights.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// The weight.
    pub weight: View<'a, f32>,
    /// The bias.
    pub bias: Option<View<'a, f32>>,
    /// A constant added to the weight.
    pub offset: f32,
    /// A constant added to the mean square.
    pub eps: f32,
    /// The mean is subtracted first (LayerNorm); otherwise the norm is an RMS norm.
    pub is_centered: bool,
}

/// The gradients that [`Arithmetic::norm_backward`] reads and writes.
pub struct NormGradients<'a> {
    /// The gradient of the output.
    pub output: View<'a, f32>,
    /// The gradient of the input, which may be that of the output.
    pub x: View<'a, f32>,
    /// The gradient of the input is added to `x`, rather than set.
    pub adds: bool,
    /// The gradient of the weight, to be added to.
    pub weight: Option<View<'a, f32>>,
    /// The gradient of the bias, to be added to.
    pub bias: Option<View<'a, f32>>,
}

/// Buffers that are reused from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    moments: Mutex<Array<[f32; 2]>>,
    /// Sums of parts of the rows.
    partial: Mutex<Array<f32>>,
}

impl Arithmetic {
    /// Sets rows of `out` to the normed rows of `x`; both have the same places.
    ///
    /// # Errors
    /// Those of the device.
    pub fn norm(&self, norm: Norm<'_>, rows: Rows, x: View<'_, f32>, out: View<'_, f32>) -> Result<()> {
        let args = NormsArgs {
            x: x.address(rows.extent())?,
            weight: norm.weight.address(rows.width)?,
            bias: address_or_null(norm.bias, rows.width)?,
            out: out.address(rows.extent())?,
            rows: rows.args(),
            offset: norm.offset,
            epsilon: norm.eps,
            is_centered: i32::from(norm.is_centered),
            padding: 0,
        };
        self.launch(self.kernels.norm_rows, [rows.len(), 1], &args)
    }

    /// From the gradient of a norm's output to those of its input `x` and its weights.
    ///
    /// # Errors
    /// Those of the device.
    pub fn norm_backward(
        &self,
        norm: Norm<'_>,
        rows: Rows,
        x: View<'_, f32>,
        gradients: &NormGradients<'_>,
    ) -> Result<()> {
        let mut moments = self.scratch.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let moments = self.sized(&mut moments, rows.len())?;
        let args = MomentsArgs {
            x: x.address(rows.extent())?,
            out: moments.address(rows.len())?,
            rows: rows.args(),
            epsilon: norm.eps,
            is_centered: i32::from(norm.is_centered),
        };
        self.launch(self.kernels.moments, [rows.len(), 1], &args)?;
        let NormGradients { output, x: to, adds, weight, bias } = *gradients;
        if let Some(weight) = weight {
            self.sum_columns(rows, output, Some((x, moments)), weight)?;
        }
        if let Some(bias) = bias {
            self.sum_columns(rows, output, None, bias)?;
        }
        let args = NormsBackArgs {
            x: args.x,
            y: output.address(rows.extent())?,
            weight: norm.weight.address(rows.width)?,
            moments: args.out,
            to: to.address(rows.extent())?,
            rows: rows.args(),
            offset: norm.offset,
            is_centered: args.is_centered,
            adds: i32::from(adds),
            padding: 0,
        };
        self.launch(self.kernels.norm_rows_backward, [rows.len(), 1], &args)
    }

    /// Adds the sum of all rows, times the normed rows of `x` where that is given, to a vector.
    ///
    /// # Errors
    /// Those of the device.
    pub fn sum_columns(
        &self,
        rows: Rows,
        y: View<'_, f32>,
        x: Option<(View<'_, f32>, View<'_, [f32; 2]>)>,
        to: View<'_, f32>,
    ) -> Result<()> {
        let parts = rows.len().div_ceil(PART);
        let mut partial = self.scratch.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let partial = self.sized(&mut partial, parts * rows.width)?;
        let args = ColumnsArgs {
            y: y.address(rows.extent())?,
            x: address_or_null(x.map(|(x, _)| x), rows.extent())?,
            moments: address_or_null(x.map(|(_, moments)| moments), rows.len())?,
            to: partial.address(parts * rows.width)?,
            rows: rows.args(),
            part: PART as i32,
            adds: 0,
        };
        let columns = rows.width.div_ceil(32);
        self.launch(self.kernels.sum_columns, [columns, parts], &args)?;
        let sums = Rows::dense(partial.len(), rows.width);
        let (y, to) = (args.to, to.address(rows.width)?);
        let args = ColumnsArgs { y, to, rows: sums.args(), part: parts as i32, adds: 1, ..ColumnsArgs::default() };
        self.launch(self.kernels.sum_columns, [columns, 1], &args)
    }
}
