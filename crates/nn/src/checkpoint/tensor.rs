//! A tensor: values of one format in a shape.

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;

use rayon::prelude::*;

use super::bytes::Bytes;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::matrix::MatrixView;

/// A tensor whose bytes are part of a mapped file or of shared memory. Cloning it copies no
/// weights.
#[derive(Clone)]
pub struct Tensor {
    /// The Hugging Face name, as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// The storage format of the values.
    pub format: Format,
    /// The dimensions, outermost first as in PyTorch: a linear layer has `[outputs, inputs]`.
    pub shape: Vec<usize>,
    bytes: Bytes,
    range: Range<usize>,
}

impl Tensor {
    /// Makes a tensor that owns its bytes.
    ///
    /// # Errors
    /// [`Error::Tensors`] if the number of bytes is not that of the shape, or a row is not a
    /// multiple of the block.
    pub fn new(name: impl Into<String>, format: Format, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self> {
        let range = 0..bytes.len();
        let name = name.into();
        Self::in_bytes(&name, format, shape, bytes.into(), range)
            .map_err(|reason| Error::Tensors { file: "memory".into(), problems: vec![format!("`{name}` {reason}")] })
    }

    /// Makes a tensor of a range of `bytes`; the error is a reason without the name.
    pub(crate) fn in_bytes(
        name: &str,
        format: Format,
        shape: Vec<usize>,
        bytes: Bytes,
        range: Range<usize>,
    ) -> Result<Self, String> {
        let needed = tensor_bytes(format, &shape)?;
        if bytes.get(range.clone()).is_none_or(|bytes| bytes.len() != needed) {
            let length = bytes.len();
            return Err(format!("needs {needed} bytes, its range is {range:?} in a file of {length} bytes"));
        }
        Ok(Self { name: name.into(), format, shape, bytes, range })
    }

    /// Copies the values into memory of their own.
    pub(super) fn in_memory(self) -> Self {
        let bytes = self.bytes().to_vec();
        Self { range: 0..bytes.len(), bytes: bytes.into(), ..self }
    }

    /// Returns the tensor under another name.
    pub(crate) fn renamed(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Converts the values to another format, in new memory, unless they have it already.
    ///
    /// # Errors
    /// [`Error::Quantize`] for a format that can be read but not written, or rows that are not a
    /// multiple of its block.
    pub fn in_format(self, format: Format) -> Result<Self> {
        if self.format == format {
            return Ok(self);
        }
        let written = |row: usize| {
            let mut values = vec![0.0; self.columns()];
            self.dequantize_row(row, &mut values);
            format.quantize(&values)
        };
        let rows = (0..self.rows()).into_par_iter().map(written).collect::<Result<Vec<_>>>()?;
        Self::new(self.name, format, self.shape, rows.concat())
    }

    /// Divides the tensor along its first dimension, without a copy.
    pub(crate) fn divided(&self) -> Vec<Self> {
        let Some((count, shape)) = self.shape.split_first() else { return vec![self.clone()] };
        let length = self.range.len() / count.max(&1);
        let part = |index: usize| {
            let first = self.range.start + index * length;
            Self { shape: shape.to_vec(), range: first..first + length, ..self.clone() }
        };
        (0..*count).map(part).collect()
    }

    /// Divides the first dimension into two halves, without a copy.
    pub(crate) fn halved(&self) -> [Self; 2] {
        let (rows, middle) = (self.shape.first().map_or(0, |rows| rows / 2), self.range.len() / 2);
        let half = |range| Self {
            shape: [rows].into_iter().chain(self.shape.iter().skip(1).copied()).collect(),
            range,
            ..self.clone()
        };
        let Range { start, end } = self.range;
        [half(start..start + middle), half(start + middle..end)]
    }

    /// Reorders the rows, in new memory: row `i` is row `place(i)` of this tensor. The values of a
    /// vector are its rows.
    pub(crate) fn permuted(&self, place: impl Fn(usize) -> usize) -> Result<Self> {
        let rows = self.shape.first().copied().unwrap_or(1);
        let row_bytes = self.bytes().len() / rows.max(1);
        let bytes = (0..rows).flat_map(|row| &self.bytes()[place(row) * row_bytes..][..row_bytes]).copied().collect();
        Self::new(&*self.name, self.format, self.shape.clone(), bytes)
    }

    /// Transposes a matrix, in new memory; one of blocks becomes F32.
    pub(crate) fn transposed(self) -> Result<Self> {
        let tensor = if self.format.block_values() == 1 { self } else { self.in_format(Format::F32)? };
        let (rows, columns) = (tensor.rows(), tensor.columns());
        let size = tensor.format.block_bytes();
        let mut bytes = Vec::with_capacity(tensor.bytes().len());
        for column in 0..columns {
            for row in 0..rows {
                bytes.extend_from_slice(&tensor.bytes()[(row * columns + column) * size..][..size]);
            }
        }
        Self::new(&*tensor.name, tensor.format, vec![columns, rows], bytes)
    }

    /// Returns the bytes, row after row.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    /// Drops its pages from the resident set; the next access reads them from the file again.
    pub(crate) fn leave_memory(&self) {
        self.bytes.leave_memory(self.range.clone());
    }

    /// Returns the product of all dimensions but the last; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Returns the last dimension; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    pub(super) fn is_matrix(&self) -> bool {
        self.shape.len() >= 2
    }

    /// Returns true if a row is a multiple of the block of `format`.
    pub fn fits(&self, format: Format) -> bool {
        self.columns().is_multiple_of(format.block_values())
    }

    fn bytes_per_row(&self) -> usize {
        self.columns() / self.format.block_values() * self.format.block_bytes()
    }

    /// Returns the bytes of one row.
    pub fn row_bytes(&self, row: usize) -> &[u8] {
        let length = self.bytes_per_row();
        &self.bytes()[row * length..(row + 1) * length]
    }

    /// Returns the tensor as a matrix of [`Tensor::rows`] by [`Tensor::columns`].
    pub fn view(&self) -> MatrixView<'_> {
        MatrixView { format: self.format, rows: self.rows(), columns: self.columns(), bytes: self.bytes() }
    }

    /// Decodes one row into `out`, which holds [`Tensor::columns`] values.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        self.format.dequantize(self.row_bytes(row), out);
    }

    /// Decodes all values, row after row.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows() * self.columns()];
        self.format.dequantize(self.bytes(), &mut values);
        values
    }

    /// Returns rows `start..start + count` as a matrix, without a copy: a part of a fused
    /// projection.
    ///
    /// # Panics
    /// If the rows are out of range, as slicing does.
    ///
    /// # Examples
    /// ```
    /// use wsd_nn::{Format, Tensor};
    ///
    /// let bytes = Format::F32.quantize(&[1.0, 2.0, 3.0, 4.0])?;
    /// let fused = Tensor::new("gate_up", Format::F32, vec![4, 1], bytes)?;
    /// assert_eq!(fused.narrow_rows(2, 2).to_f32(), [3.0, 4.0]);
    /// # Ok::<_, wsd_nn::Error>(())
    /// ```
    pub fn narrow_rows(&self, start: usize, count: usize) -> Self {
        assert!(start.checked_add(count).is_some_and(|end| end <= self.rows()), "rows of `{}`", self.name);
        let length = self.bytes_per_row();
        let first = self.range.start + start * length;
        let range = first..first + count * length;
        Self { shape: vec![count, self.columns()], range, ..self.clone() }
    }
}

/// Returns the size of a tensor in bytes.
pub(super) fn tensor_bytes(format: Format, shape: &[usize]) -> Result<usize, String> {
    let columns = shape.last().copied().unwrap_or(1);
    let row = format.bytes_for(columns).ok_or_else(|| {
        format!("has rows of {columns} values, which is not a multiple of {format} blocks of {}", format.block_values())
    })?;
    let outer = &shape[..shape.len().saturating_sub(1)];
    outer
        .iter()
        .try_fold(row, |bytes, dimension| bytes.checked_mul(*dimension))
        .ok_or_else(|| format!("has shape {shape:?}, which exceeds any memory"))
}

impl Debug for Tensor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.format, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Tensor {
        let bytes = Format::F32.quantize(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        Tensor::new("m", Format::F32, vec![3, 2], bytes).unwrap()
    }

    #[test]
    fn rows_are_decoded_and_narrowed_without_a_copy() {
        let tensor = matrix();
        let mut row = [0.0; 2];
        tensor.dequantize_row(1, &mut row);
        assert_eq!(row, [3.0, 4.0]);
        let narrow = tensor.narrow_rows(1, 2);
        assert_eq!((narrow.shape.as_slice(), narrow.to_f32()), ([2, 2].as_slice(), vec![3.0, 4.0, 5.0, 6.0]));
        assert_eq!(narrow.bytes().as_ptr(), tensor.row_bytes(1).as_ptr());
    }

    #[test]
    fn a_vector_is_one_row() {
        let tensor = Tensor::new("v", Format::F16, vec![4], vec![0; 8]).unwrap();
        assert_eq!((tensor.rows(), tensor.columns()), (1, 4));
    }

    #[test]
    fn wrong_shapes_are_errors() {
        assert!(Tensor::new("t", Format::F32, vec![2, 2], vec![0; 15]).is_err());
        assert!(Tensor::new("t", Format::Q8_0, vec![2, 16], vec![0; 34]).is_err());
        assert!(Tensor::new("t", Format::F32, vec![usize::MAX, usize::MAX], vec![]).is_err());
    }
}
