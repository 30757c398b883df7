//! Encoders of values: Q8_0, Q4_0 and Q4_K with the rounding of ggml's reference implementation,
//! other blocks by [`super::encode`].

use half::{bf16, f16};

use super::{Format, encode, quantize_k};
use crate::error::{Error, Result};

/// Encodes values in `format`.
pub(super) fn quantize(format: Format, values: &[f32]) -> Result<Vec<u8>> {
    let refuse = |reason: String| Error::Quantize { format: format.name(), values: values.len(), reason };
    let size = format
        .bytes_for(values.len())
        .ok_or_else(|| refuse(format!("their number must be a multiple of {}", format.block_values())))?;
    if !format.is_writable() {
        return Err(refuse("this format is only read".into()));
    }
    let mut bytes = Vec::with_capacity(size);
    match format {
        Format::F32 => values.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
        Format::F16 => values.iter().for_each(|value| bytes.extend(f16::from_f32(*value).to_le_bytes())),
        Format::BF16 => values.iter().for_each(|value| bytes.extend(bf16::from_f32(*value).to_le_bytes())),
        Format::Q8_0 => values.as_chunks::<32>().0.iter().for_each(|block| write_q8_0(block, &mut bytes)),
        Format::Q4_0 => values.as_chunks::<32>().0.iter().for_each(|block| write_q4_0(block, &mut bytes)),
        Format::Q4_K => values.as_chunks().0.iter().for_each(|block| quantize_k::write_q4_k(block, &mut bytes)),
        _ => {
            bytes = format
                .visit_block(encode::Values(values))
                .expect("invariant: plain numbers and formats that are only read are above")
        }
    }
    Ok(bytes)
}

fn reciprocal(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { scale.recip() }
}

fn write_q8_0(block: &[f32; 32], bytes: &mut Vec<u8>) {
    let scale = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0;
    let inverse = reciprocal(scale);
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    bytes.extend(block.iter().map(|value| (value * inverse).round() as i8 as u8));
}

fn write_q4_0(block: &[f32; 32], bytes: &mut Vec<u8>) {
    // The value farthest from zero becomes -8, the end of the range -8 to 7 that has no counterpart.
    let farthest = block.iter().fold(0.0f32, |far, value| if value.abs() > far.abs() { *value } else { far });
    let scale = farthest / -8.0;
    let inverse = reciprocal(scale);
    let quant = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    bytes.extend((0..16).map(|place| quant(block[place]) | (quant(block[place + 16]) << 4)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_within_half_a_step() {
        let values: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.0) / 9.0).collect();
        for (format, tolerance) in
            [(Format::F32, 0.0), (Format::BF16, 0.02), (Format::Q8_0, 0.02), (Format::Q4_0, 0.45)]
        {
            let mut out = vec![0.0; 64];
            format.dequantize(&quantize(format, &values).unwrap(), &mut out);
            for (value, out) in values.iter().zip(&out) {
                assert!((value - out).abs() <= tolerance, "{format}: {value} became {out}");
            }
        }
    }

    #[test]
    fn every_format_is_written_within_its_step() {
        let values: Vec<f32> = (0..512).map(|i| ((i * 37 % 512) as f32 - 255.0) / 64.0).collect();
        for format in Format::writable() {
            let mut out = vec![0.0; 512];
            format.dequantize(&quantize(format, &values).unwrap(), &mut out);
            let error = values.iter().zip(&out).map(|(value, out)| (value - out).powi(2)).sum::<f32>() / 512.0;
            // A step of the range -4 to 4 in two bits is 2.7, of which an error is at most half.
            let bits = format.block_bytes() as f32 * 8.0 / format.block_values() as f32;
            assert!(error.sqrt() <= 8.0 / (bits - 0.4).exp2(), "{format}: {}", error.sqrt());
        }
    }

    #[test]
    fn a_block_of_zeros_stays_zero() {
        for format in Format::writable() {
            let mut out = [1.0; 256];
            format.dequantize(&quantize(format, &[0.0; 256]).unwrap(), &mut out);
            assert_eq!(out, [0.0; 256], "{format}");
        }
    }

    #[test]
    fn refusals_state_the_reason() {
        let error = quantize(Format::IQ2_XXS, &[0.0; 256]).unwrap_err().to_string();
        assert_eq!(error, "256 values cannot be written as IQ2_XXS: this format is only read");
        let error = quantize(Format::Q8_0, &[0.0; 33]).unwrap_err().to_string();
        assert_eq!(error, "33 values cannot be written as Q8_0: their number must be a multiple of 32");
    }
}
