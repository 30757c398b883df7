//! Decoders of ggml blocks of 32 values with one scale: `value = scale * integer (+ minimum)`.

use half::f16;

/// Decodes a little-endian half-precision number.
pub(super) fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// Decodes blocks of a scale and 32 signed bytes.
pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    for ([d0, d1, quants @ ..], out) in bytes.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = half([*d0, *d1]);
        for (quant, out) in quants.iter().zip(out) {
            *out = scale * f32::from(*quant as i8);
        }
    }
}

/// Decodes blocks of a scale and 16 bytes: value `i` in the low half of byte `i`, value `i + 16` in
/// the high half. The integer 8 stands for zero.
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for ([d0, d1, quants @ ..], out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = half([*d0, *d1]);
        let (low, high) = out.split_at_mut(16);
        for ((quant, low), high) in quants.iter().zip(low).zip(high) {
            *low = scale * f32::from((quant & 15) as i8 - 8);
            *high = scale * f32::from((quant >> 4) as i8 - 8);
        }
    }
}

/// Decodes blocks of a scale, a minimum and 16 bytes as in [`q4_0`]; the integer 0 stands for the
/// minimum.
pub(super) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    for ([d0, d1, m0, m1, quants @ ..], out) in bytes.as_chunks::<20>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let (scale, minimum) = (half([*d0, *d1]), half([*m0, *m1]));
        let (low, high) = out.split_at_mut(16);
        for ((quant, low), high) in quants.iter().zip(low).zip(high) {
            *low = scale * f32::from(quant & 15) + minimum;
            *high = scale * f32::from(quant >> 4) + minimum;
        }
    }
}

/// Unpacks the two five-bit integers at `place` (0 to 15): four bits of each in `quant`, the fifth
/// in bits `place` and `place + 16` of `fifth`.
fn five_bits(quant: u8, fifth: u32, place: usize) -> (u8, u8) {
    let low = (quant & 15) | (((fifth >> place) & 1) << 4) as u8;
    let high = (quant >> 4) | (((fifth >> (place + 16)) & 1) << 4) as u8;
    (low, high)
}

/// Decodes blocks of a scale, 32 fifth bits and 16 bytes as in [`q4_0`]. The integer 16 stands for
/// zero.
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<22>().0.iter().zip(out.as_chunks_mut::<32>().0);
    for ([d0, d1, h0, h1, h2, h3, quants @ ..], out) in blocks {
        let (scale, fifth) = (half([*d0, *d1]), u32::from_le_bytes([*h0, *h1, *h2, *h3]));
        for (place, quant) in quants.iter().enumerate() {
            let (low, high) = five_bits(*quant, fifth, place);
            out[place] = scale * f32::from(low as i8 - 16);
            out[place + 16] = scale * f32::from(high as i8 - 16);
        }
    }
}

/// Decodes blocks of a scale, a minimum, 32 fifth bits and 16 bytes; the integer 0 stands for the
/// minimum.
pub(super) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<24>().0.iter().zip(out.as_chunks_mut::<32>().0);
    for ([d0, d1, m0, m1, h0, h1, h2, h3, quants @ ..], out) in blocks {
        let (scale, minimum) = (half([*d0, *d1]), half([*m0, *m1]));
        let fifth = u32::from_le_bytes([*h0, *h1, *h2, *h3]);
        for (place, quant) in quants.iter().enumerate() {
            let (low, high) = five_bits(*quant, fifth, place);
            out[place] = scale * f32::from(low) + minimum;
            out[place + 16] = scale * f32::from(high) + minimum;
        }
    }
}
