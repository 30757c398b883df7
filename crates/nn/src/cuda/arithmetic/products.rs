//! Products of matrices in the memory of a device.

use super::{Arithmetic, Operand, View};
use crate::cuda::driver::{self, Products};
use crate::error::{Error, Result};

/// Matrices of one shape in a list of operands.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: View<'a, Operand>,
    /// Rows and columns of the product, after an exchange.
    rows: usize,
    columns: usize,
    stride: usize,
    is_transposed: bool,
    /// Values from the matrix of a product to that of the next.
    step: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix of rows of `columns` values that begin `stride` values apart.
    #[must_use]
    pub fn new(values: View<'a, Operand>, rows: usize, columns: usize, stride: usize) -> Self {
        Self { values, rows, columns, stride, is_transposed: false, step: 0 }
    }

    /// A matrix of rows without gaps.
    #[must_use]
    pub fn dense(values: View<'a, Operand>, columns: usize) -> Self {
        Self::new(values, values.len() / columns.max(1), columns, columns)
    }

    /// The same matrix with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, is_transposed: !self.is_transposed, ..self }
    }

    /// A matrix for each of several products, `step` values after the one before.
    #[must_use]
    pub fn every(self, step: usize) -> Self {
        Self { step, ..self }
    }

    fn operand(&self, count: usize) -> Result<driver::Operand> {
        let stored = if self.is_transposed { [self.columns, self.rows] } else { [self.rows, self.columns] };
        let Self { values, stride, is_transposed, step, .. } = *self;
        let address = values.address(extent(stored, stride, (step, count)))?;
        Ok(driver::Operand { address, stride, is_transposed, step })
    }
}

/// The destination of products, which is overwritten or added to.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    values: View<'a, f32>,
    stride: usize,
    adds: bool,
    step: usize,
    count: usize,
}

impl<'a> Output<'a> {
    /// Replaces the floats of rows that begin `stride` floats apart.
    #[must_use]
    pub fn set(values: View<'a, f32>, stride: usize) -> Self {
        Self { values, stride, adds: false, step: 0, count: 1 }
    }

    /// Adds to the floats of rows that begin `stride` floats apart.
    #[must_use]
    pub fn add(values: View<'a, f32>, stride: usize) -> Self {
        Self { adds: true, ..Self::set(values, stride) }
    }

    /// The results of `count` products, each `step` floats after the one before.
    #[must_use]
    pub fn every(self, step: usize, count: usize) -> Self {
        Self { step, count, ..self }
    }
}

/// The number of values from the first element of the first matrix to the last of the last.
fn extent([rows, columns]: [usize; 2], stride: usize, (step, count): (usize, usize)) -> usize {
    if rows == 0 || columns == 0 || count == 0 { 0 } else { (rows - 1) * stride + columns + (count - 1) * step }
}

impl Arithmetic {
    /// Sets or adds `scale * a * b`.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] for shapes that do not fit together or into their lists; those of the device.
    pub fn multiply(&self, scale: f32, a: Matrix<'_>, b: Matrix<'_>, to: Output<'_>) -> Result<()> {
        let (rows, inner, columns) = (a.rows, a.columns, b.columns);
        if inner != b.rows || columns > to.stride {
            let reason = format!("a product of ({rows}, {inner}) and ({}, {columns}) does not fit", b.rows);
            return Err(Error::DeviceFailed { reason });
        }
        let Output { values, stride, adds, step, count } = to;
        if rows == 0 || columns == 0 || count == 0 {
            return Ok(());
        }
        let address = values.address(extent([rows, columns], stride, (step, count)))?;
        self.gpu.multiply(&Products {
            a: a.operand(count)?,
            b: b.operand(count)?,
            out: driver::Operand { address, stride, is_transposed: false, step },
            rows,
            inner,
            columns,
            count,
            scale,
            adds,
            format: self.compute,
        })
    }
}
