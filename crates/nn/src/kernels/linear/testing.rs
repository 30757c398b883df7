//! Matrices for tests.

use crate::checkpoint::Tensor;
use crate::format::Format;

/// Values that look random, from -1 to 1.
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

/// A matrix in any format: written where this crate writes it, else bytes that look random with tame scales.
pub(in crate::kernels) fn matrix(format: Format, rows: usize, columns: usize, seed: u64) -> Tensor {
    let bytes = format.quantize(&noise(rows * columns, seed)).unwrap_or_else(|_| {
        let len = rows * format.bytes_for(columns).unwrap();
        let mut bytes: Vec<u8> = noise(len, seed).iter().map(|value| (value * 127.0) as i8 as u8).collect();
        // High bytes of half-precision scales lie below 0x38, that is 0.5, wherever a block keeps them.
        bytes.iter_mut().for_each(|byte| *byte &= 0x37);
        bytes
    });
    Tensor::new("w", format, vec![rows, columns], bytes).unwrap()
}
