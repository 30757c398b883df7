//! Weights from their file to the device.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::wide::WIDE;
use crate::checkpoint;
use crate::error::Result;
use crate::format::Format;

/// Chooses the format that products are computed in on a device.
pub(super) fn compute_format(tensors: &[checkpoint::Tensor], device: &Device) -> Format {
    // candle's CPU converts other formats at every call.
    if device.is_cpu() {
        return Format::F32;
    }
    let mut values = HashMap::new();
    for tensor in tensors {
        *values.entry(tensor.format).or_insert(0) += tensor.rows() * tensor.columns();
    }
    match values.into_iter().max_by_key(|(_, values)| *values) {
        Some((format @ (Format::F32 | Format::F16), _)) => format,
        // Also for block formats: their values are no finer than BF16, and activations may exceed the range of F16.
        _ => Format::BF16,
    }
}

/// Uploads a matrix in `format`, or a vector as floats, since only elementwise operations read it.
/// The host holds no more than this one tensor beside the file.
pub(super) fn upload(tensor: &checkpoint::Tensor, format: Format, device: &Device) -> Result<Tensor> {
    let (format, dtype) = match format {
        _ if tensor.shape.len() < 2 => (Format::F32, WIDE),
        Format::F16 => (format, DType::F16),
        Format::BF16 => (format, DType::BF16),
        _ => (Format::F32, DType::F32),
    };
    let tensor = tensor.clone().in_format(format)?;
    Ok(Tensor::from_raw_buffer(tensor.bytes(), dtype, &tensor.shape, device)?)
}
