//! MXFP4 in safetensors files, as gpt-oss has it: a tensor of nibbles and one of scales.

use super::tensor::Tensor;
use crate::error::{Error, Result};
use crate::format::Format;

/// The end of the name of a tensor of nibbles, `(..., rows, blocks, 16)` bytes.
pub(super) const BLOCKS: &str = "_blocks";
/// The end of the name of a tensor of scales, `(..., rows, blocks)` bytes.
pub(super) const SCALES: &str = "_scales";

/// Bytes of nibbles in a block of 32 values.
const NIBBLE_BYTES: usize = 16;

/// A tensor of bytes: its shape, and the bytes.
type Octets<'a> = (&'a [usize], &'a [u8]);

/// Makes a tensor of ggml's blocks, in new memory. In a safetensors file a byte holds two adjacent
/// values, the first in its low half; in ggml's blocks the values of its halves are 16 apart.
pub(super) fn tensor(file: &str, name: &str, (shape, nibbles): Octets<'_>, scales: Octets<'_>) -> Result<Tensor> {
    let (scales_shape, scales) = scales;
    let fits = shape.split_last().is_some_and(|(last, outer)| *last == NIBBLE_BYTES && outer == scales_shape);
    let Some((blocks, outer)) = scales_shape.split_last().filter(|_| fits) else {
        let problem = format!("`{name}` has shape {shape:?}, which does not fit scales of {scales_shape:?}");
        return Err(Error::Tensors { file: file.into(), problems: vec![problem] });
    };
    let mut bytes = Vec::with_capacity(nibbles.len() + scales.len());
    for (nibbles, scale) in nibbles.as_chunks::<NIBBLE_BYTES>().0.iter().zip(scales) {
        let value = |index: usize| nibbles[index / 2] >> (4 * (index % 2)) & 0x0F;
        bytes.push(*scale);
        bytes.extend((0..NIBBLE_BYTES).map(|index| value(index) | value(index + NIBBLE_BYTES) << 4));
    }
    let columns = blocks * Format::MXFP4.block_values();
    Tensor::new(name, Format::MXFP4, outer.iter().copied().chain([columns]).collect(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_pairs() {
        // E2M1 codes of 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
        let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let codes: Vec<u8> = (0..32).map(|index| (index * 5 + 3) % 16).collect();
        let nibbles: Vec<u8> = codes.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect();
        let found = tensor("f", "a_blocks", (&[1, 1, 16], &nibbles), (&[1, 1], &[128])).unwrap();
        let value = |code: &u8| 2.0 * magnitudes[usize::from(code % 8)] * if *code < 8 { 1.0 } else { -1.0 };
        assert_eq!((found.shape.as_slice(), found.to_f32()), (&[1, 32][..], codes.iter().map(value).collect()));
        let error = tensor("f", "a_blocks", (&[1, 2, 16], &[0; 32]), (&[1, 1], &[128])).unwrap_err().to_string();
        assert!(error.contains("`a_blocks` has shape [1, 2, 16]"), "{error}");
    }
}
