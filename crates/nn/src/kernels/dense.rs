//! Products of dense float matrices that lie in slices, for training.

mod bf16;

use super::Simd;

/// A matrix in a slice. Element `(i, j)` lies at `i * strides[0] + j * strides[1]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// A matrix of rows of `columns` floats that begin `stride` floats apart.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        Self { data, rows, columns, strides: [stride, 1] }
    }

    /// A matrix of rows without gaps.
    #[must_use]
    pub fn dense(data: &'a [f32], columns: usize) -> Self {
        Self::new(data, data.len() / columns.max(1), columns, columns)
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(self) -> usize {
        self.rows
    }

    /// The same matrix with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, strides: [self.strides[1], self.strides[0]], ..self }
    }

    fn fits(&self) -> bool {
        extent(self.rows, self.columns, self.strides) <= self.data.len()
    }
}

/// The destination of a product, which is overwritten or added to.
pub struct Output<'a> {
    data: &'a mut [f32],
    stride: usize,
    /// The factor on the old values (BLAS `beta`).
    beta: f32,
}

impl<'a> Output<'a> {
    /// Replaces the floats of rows that begin `stride` floats apart.
    #[must_use]
    pub fn set(data: &'a mut [f32], stride: usize) -> Self {
        Self { data, stride, beta: 0.0 }
    }

    /// Adds to the floats of rows that begin `stride` floats apart.
    #[must_use]
    pub fn add(data: &'a mut [f32], stride: usize) -> Self {
        Self { data, stride, beta: 1.0 }
    }
}

/// The number of floats from the first element to the last.
fn extent(rows: usize, columns: usize, strides: [usize; 2]) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * strides[0] + (columns - 1) * strides[1] + 1 }
}

/// The precision that the factors of products are rounded to. Sums are of float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Float32: nothing is rounded.
    #[default]
    F32,
    /// Bfloat16, which AMX multiplies several times faster; other processors are no faster by it.
    Bf16,
}

impl Precision {
    /// Sets or adds `alpha * a * b`. The order of every sum depends on the shapes and on the
    /// processor alone.
    ///
    /// # Panics
    /// If the shapes do not fit together or into their slices.
    pub fn multiply(self, alpha: f32, a: Matrix<'_>, b: Matrix<'_>, to: Output<'_>) {
        match self {
            Self::F32 => multiply(alpha, a, b, to),
            Self::Bf16 => {
                check(a, b, &to);
                bf16::multiply(Simd::detect(), alpha, [a, b], to);
            }
        }
    }
}

/// Checks that the shapes of a product fit.
fn check(a: Matrix<'_>, b: Matrix<'_>, to: &Output<'_>) {
    assert_eq!(a.columns, b.rows, "inner dimensions of a product");
    assert!(a.fits() && b.fits() && to.stride >= b.columns, "shapes of a product");
    assert!(extent(a.rows, b.columns, [to.stride, 1]) <= to.data.len(), "shape of a result");
}

/// Sets or adds `alpha * a * b`. The order of every sum depends on the shapes alone.
///
/// ```
/// use wsd_nn::kernels::dense::{Matrix, Output, multiply};
/// let mut out = [0.0; 2];
/// multiply(2.0, Matrix::dense(&[1.0, 2.0], 2), Matrix::dense(&[1.0, 0.0, 0.0, 1.0], 2), Output::set(&mut out, 2));
/// assert_eq!(out, [2.0, 4.0]);
/// ```
///
/// # Panics
/// If the shapes do not fit together or into their slices.
#[allow(unsafe_code)]
pub fn multiply(alpha: f32, a: Matrix<'_>, b: Matrix<'_>, to: Output<'_>) {
    check(a, b, &to);
    let Output { data: out, stride, beta } = to;
    let (rows, inner, columns) = (a.rows, a.columns, b.columns);
    let step = |stride: usize| isize::try_from(stride).expect("invariant: a stride lies within a slice");
    // SAFETY: the extents of all three were just found to lie within their slices; `out` is
    // borrowed alone, and its rows do not overlap.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            inner,
            columns,
            alpha,
            a.data.as_ptr(),
            step(a.strides[0]),
            step(a.strides[1]),
            b.data.as_ptr(),
            step(b.strides[0]),
            step(b.strides[1]),
            beta,
            out.as_mut_ptr(),
            step(stride),
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_and_transposes_meet_the_formula() {
        let (rows, inner, columns) = (5, 7, 3);
        let a: Vec<f32> = (0..rows * 9).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = (0..columns * inner).map(|i| (i as f32 * 0.3).cos()).collect();
        let mut out = vec![1.0; rows * 4];
        let b_matrix = Matrix::dense(&b, inner).transposed();
        multiply(2.0, Matrix::new(&a, rows, inner, 9), b_matrix, Output::add(&mut out, 4));
        for i in 0..rows {
            for j in 0..columns {
                let sum: f32 = (0..inner).map(|k| a[i * 9 + k] * b[j * inner + k]).sum();
                assert!((out[i * 4 + j] - (2.0 * sum + 1.0)).abs() < 1e-5);
            }
            assert_eq!(out[i * 4 + 3], 1.0);
        }
    }
}
