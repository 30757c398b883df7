//! Matrices for tests of products.

use crate::checkpoint::Tensor;
use crate::format::Format;

/// Returns pseudo-random values from -1 to 1.
pub(in crate::kernels) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Returns a matrix in any format: quantized if this crate can, else pseudo-random bytes with small
/// scales.
pub(in crate::kernels) fn matrix(format: Format, rows: usize, columns: usize, seed: u64) -> Tensor {
    let bytes = format.quantize(&noise(rows * columns, seed)).unwrap_or_else(|_| {
        let len = rows * format.bytes_for(columns).unwrap();
        let mut bytes: Vec<u8> = noise(len, seed).iter().map(|value| (value * 128.0) as i8 as u8).collect();
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            // High bytes of half-precision scales lie below 0x38, that is 0.5.
            block[halves(format)].chunks_exact_mut(2).for_each(|half| half[1] &= 0x37);
        }
        bytes
    });
    Tensor::new("w", format, vec![rows, columns], bytes).unwrap()
}

/// Returns the range of a block that holds its half-precision scales.
fn halves(format: Format) -> std::ops::Range<usize> {
    match format {
        Format::IQ1_M => 54..56,
        Format::TQ1_0 => 52..54,
        Format::TQ2_0 => 64..66,
        Format::Q2_K => 80..84,
        Format::Q3_K => 108..110,
        Format::Q6_K => 208..210,
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => 0..4,
        _ => 0..2,
    }
}
