//! Entries of tensors: name, type, shape and place in the file.

use super::cursor::Cursor;
use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::tensor::{Tensor, tensor_bytes};
use crate::error::{Error, Result};
use crate::format::Format;

const MAX_DIMENSIONS: u32 = 4;
/// The names of ggml's types by their numbers, the removed ones included.
pub(super) const GGML_TYPES: [&str; 41] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M",
    "BF16",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL_4_4",
    "IQ4_NL_4_8",
    "IQ4_NL_8_8",
    "MXFP4",
    "NVFP4",
];

/// The types of tensors that no model multiplies with (I8, I16, I32, I64, F64), by number, with the
/// bytes of a value.
const BUFFER_TYPES: [(u32, u64); 5] = [(24, 1), (25, 2), (26, 4), (27, 8), (28, 8)];

/// Returns the name of a ggml type, or its number if it has none here.
fn type_name(ggml_type: u32) -> String {
    GGML_TYPES.get(ggml_type as usize).map_or_else(|| format!("ggml type {ggml_type}"), |name| (*name).to_owned())
}

/// The entry of a tensor.
pub(super) struct TensorEntry<'a> {
    pub(super) name: &'a str,
    pub(super) kind: EntryKind,
    shape: Vec<usize>,
    /// The offset from the start of the data, in bytes.
    pub(super) offset: u64,
}

/// The type of a tensor's values.
pub(super) enum EntryKind {
    /// Numbers in a format that can be read.
    Numbers(Format),
    /// Values that cannot be read, for this reason, of some bytes each.
    Integers { value_bytes: u64, reason: String },
}

impl TensorEntry<'_> {
    /// Returns the length of the values; the error is a reason without the name.
    pub(super) fn bytes(&self) -> Result<u64, String> {
        let value_bytes = match self.kind {
            EntryKind::Numbers(format) => return Ok(tensor_bytes(format, &self.shape)? as u64),
            EntryKind::Integers { value_bytes, .. } => value_bytes,
        };
        let product = self.shape.iter().try_fold(value_bytes, |bytes, length| bytes.checked_mul(*length as u64));
        product.ok_or_else(|| format!("has shape {:?}, which exceeds any memory", self.shape))
    }

    pub(super) fn tensor(self, format: Format, data_start: Option<u64>, bytes: &Bytes) -> Result<Tensor, String> {
        let length = tensor_bytes(format, &self.shape)?;
        let start = data_start.and_then(|start| start.checked_add(self.offset)).and_then(|start| start.try_into().ok());
        let range = start.and_then(|start: usize| Some(start..start.checked_add(length)?));
        let range = range.ok_or_else(|| format!("its offset {} exceeds any memory", self.offset))?;
        Tensor::in_bytes(self.name, format, self.shape, bytes.clone(), range)
    }
}

impl<'a> Cursor<'a, '_> {
    pub(super) fn tensor_entries(&mut self, count: u64, alignment: u64) -> Result<Vec<TensorEntry<'a>>> {
        (0..count).map(|_| self.tensor_entry(alignment)).collect()
    }

    pub(super) fn tensor_entry(&mut self, alignment: u64) -> Result<TensorEntry<'a>> {
        let name = self.name("tensor name")?;
        let at = format!("tensor `{name}`");
        let dimensions = self.u32(&at)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.fault(at, format!("must have 1 to {MAX_DIMENSIONS} dimensions, got {dimensions}")));
        }
        let mut shape = (0..dimensions)
            .map(|_| match usize::try_from(self.u64(&at)?) {
                Ok(dimension) if dimension > 0 => Ok(dimension),
                _ => Err(self.fault(&at, "a dimension is 0 or exceeds any memory")),
            })
            .collect::<Result<Vec<_>>>()?;
        shape.reverse(); // GGUF counts dimensions from the innermost.
        let ggml_type = self.u32(&at)?;
        let offset = self.u64(&at)?;
        if !offset.is_multiple_of(alignment) {
            return Err(self.fault(at, format!("its offset {offset} is not a multiple of the alignment {alignment}")));
        }
        let buffer = BUFFER_TYPES.iter().find(|(number, _)| *number == ggml_type);
        let kind = match (Format::from_ggml_type(ggml_type), buffer) {
            (Some(format), _) => EntryKind::Numbers(format),
            (None, Some((_, value_bytes))) => {
                let reason = format!("has type {}, supported are {}", type_name(ggml_type), Format::names());
                EntryKind::Integers { value_bytes: *value_bytes, reason }
            }
            (None, None) => {
                return Err(Error::Unsupported {
                    file: self.file.into(),
                    what: format!("type of tensor `{name}`:"),
                    found: type_name(ggml_type),
                    supported: Format::names(),
                });
            }
        };
        Ok(TensorEntry { name, kind, shape, offset })
    }
}
