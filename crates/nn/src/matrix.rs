//! A borrowed matrix in the storage format of its file: the input of the kernels.

use crate::format::Format;

/// A matrix `(rows, columns)` in any storage format, row after row.
///
/// # Examples
/// ```
/// use wsd_nn::{Format, MatrixView};
///
/// let bytes = Format::BF16.quantize(&[1.0, 2.0, 3.0, 4.0])?;
/// let matrix = MatrixView { format: Format::BF16, rows: 2, columns: 2, bytes: &bytes };
/// let mut row = [0.0; 2];
/// matrix.dequantize_row(1, &mut row);
/// assert_eq!(row, [3.0, 4.0]);
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    /// The storage format of the values.
    pub format: Format,
    /// The number of rows: the outputs of a linear layer.
    pub rows: usize,
    /// The number of columns, a multiple of the format's block: the inputs of a linear layer.
    pub columns: usize,
    /// All rows: `rows * format.bytes_for(columns)` bytes.
    pub bytes: &'a [u8],
}

impl<'a> MatrixView<'a> {
    /// Returns the bytes of one row.
    #[inline]
    #[must_use]
    pub fn row(&self, index: usize) -> &'a [u8] {
        let length = self.columns / self.format.block_values() * self.format.block_bytes();
        &self.bytes[index * length..(index + 1) * length]
    }

    /// Decodes one row into `out`, which holds `columns` values.
    pub fn dequantize_row(&self, index: usize, out: &mut [f32]) {
        self.format.dequantize(self.row(index), out);
    }
}
