//! The GGUF container (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), versions 2 and
//! 3, little-endian.
//!
//! The files are untrusted. Every count, length and offset is checked against the file before use,
//! metadata is read in place, and no allocation exceeds what the file fills: earlier readers of
//! this format have overflowed, read beyond the file and allocated without bound.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::weights::{Tensor, tensor_bytes};
use crate::error::{Error, Result};
use crate::format::Format;

/// The first four bytes of a file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
const MIN_ALIGNMENT: u64 = 8;
const MAX_DIMENSIONS: u32 = 4;
const MAX_NAME_BYTES: usize = 65_535;
/// Completes the message about a file that ends too early.
const CUT: &str = ": the file is cut short or damaged\n  hint: download or copy it again";
/// The smallest metadata entry in bytes: key length, type, value.
const MIN_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// The smallest tensor entry in bytes: name length, dimensions, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;
/// The most bytes of everything before the data. Published files have up to 20 MB of it; a sparse
/// file could have any number, which would be walked.
const MAX_HEADER_BYTES: usize = 256 << 20;

/// A parsed file. Its strings and arrays borrow the bytes of the file for `'a`.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) metadata: BTreeMap<&'a str, Value<'a>>,
    pub(crate) tensors: Vec<Tensor>,
    /// The reasons why other tensors, as of integers, cannot be read, by name.
    pub(crate) unread: BTreeMap<String, String>,
}

/// A value of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
}

/// An array of values of one type, checked to be within the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Array<'a> {
    kind: Kind,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Returns the values. Parsing has checked every string, so the iterator never ends early.
    pub(crate) fn values(self) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = Cursor { file: "", bytes: self.bytes, position: 0 };
        (0..self.count).map_while(move |_| cursor.value(self.kind, "").ok())
    }
}

/// The type of a value, in the order of the numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

use Kind::{
    Array as ArrayKind, Bool as BoolKind, F32, F64, I8, I16, I32, I64, String as StringKind, U8, U16, U32, U64,
};
const KINDS: [Kind; 13] = [U8, I8, U16, I16, U32, I32, F32, BoolKind, StringKind, ArrayKind, U64, I64, F64];

impl Kind {
    /// The bytes of a value, of a type whose values are any bytes of one length.
    fn bytes(self) -> Option<u64> {
        match self {
            U8 | I8 => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            BoolKind | StringKind | ArrayKind => None,
        }
    }
}

/// Parses a file; `file` is its name in messages.
pub(crate) fn parse<'a>(file: &str, bytes: &'a Bytes) -> Result<Container<'a>> {
    let mut cursor = Cursor { file, bytes: &bytes[..bytes.len().min(MAX_HEADER_BYTES)], position: 0 };
    let (tensor_count, entry_count) = cursor.header()?;
    let mut metadata = BTreeMap::new();
    for _ in 0..entry_count {
        let (key, value) = cursor.entry()?;
        if metadata.insert(key, value).is_some() {
            return Err(Error::malformed(file, format!("key `{key}`"), "it is defined twice"));
        }
    }
    let alignment = alignment(file, &metadata)?;
    let tensor_entries = cursor.tensor_entries(tensor_count, alignment)?;
    let data_start = (cursor.position as u64).checked_next_multiple_of(alignment);
    let mut names = BTreeSet::new();
    if let Some(entry) = tensor_entries.iter().find(|entry| !names.insert(entry.name)) {
        return Err(Error::malformed(file, format!("tensor `{}`", entry.name), "it is defined twice"));
    }
    let data_bytes = data_start.and_then(|start| (bytes.len() as u64).checked_sub(start)).unwrap_or(0);
    tile(file, &tensor_entries, alignment, data_bytes)?;
    let (mut tensors, mut unread) = (BTreeMap::new(), BTreeMap::new());
    for entry in tensor_entries {
        let name = entry.name;
        match entry.kind {
            EntryKind::Integers { ref reason, .. } => drop(unread.insert(name.to_owned(), reason.clone())),
            EntryKind::Numbers(format) => {
                let tensor = entry.tensor(format, data_start, bytes);
                let fault = |reason| Error::malformed(file, format!("tensor `{name}`"), reason);
                tensors.insert(name, tensor.map_err(fault)?);
            }
        }
    }
    Ok(Container { metadata, tensors: tensors.into_values().collect(), unread })
}

/// Checks that the tensors fill the data in the order of their entries, each padded to the
/// alignment, as the format requires. A changed type, shape or offset leaves a gap or an overlap.
fn tile(file: &str, entries: &[TensorEntry<'_>], alignment: u64, data_bytes: u64) -> Result<()> {
    let mut end = 0u64;
    for entry in entries {
        let fault = |reason| Error::malformed(file, format!("tensor `{}`", entry.name), reason);
        if entry.offset != end {
            let found = entry.offset;
            return Err(fault(format!("must begin at offset {end}, where the tensor before it ends, got {found}")));
        }
        let next = end.checked_add(entry.bytes().map_err(fault)?);
        end = next
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| fault(format!("its end after offset {end} exceeds any memory")))?;
    }
    // The padding after the last tensor may be absent.
    if data_bytes > end || end - data_bytes >= alignment {
        let cut = if data_bytes < end { CUT } else { "" };
        let reason = format!("the tensors take {end} bytes with padding, the file has {data_bytes} for them{cut}");
        return Err(Error::malformed(file, "data", reason));
    }
    Ok(())
}

fn alignment(file: &str, metadata: &BTreeMap<&str, Value<'_>>) -> Result<u64> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(value)) if value.is_power_of_two() && *value >= MIN_ALIGNMENT => Ok(*value),
        Some(other) => {
            let reason = format!("must be a power of two of at least {MIN_ALIGNMENT}, got {other:?}");
            Err(Error::malformed(file, "key `general.alignment`", reason))
        }
    }
}

/// The names of ggml's types by their numbers, the removed ones included.
const GGML_TYPES: [&str; 41] = [
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
struct TensorEntry<'a> {
    name: &'a str,
    kind: EntryKind,
    shape: Vec<usize>,
    /// The offset from the start of the data, in bytes.
    offset: u64,
}

/// The type of a tensor's values.
enum EntryKind {
    /// Numbers in a format that can be read.
    Numbers(Format),
    /// Values that cannot be read, for this reason, of some bytes each.
    Integers { value_bytes: u64, reason: String },
}

impl TensorEntry<'_> {
    /// Returns the length of the values; the error is a reason without the name.
    fn bytes(&self) -> Result<u64, String> {
        let value_bytes = match self.kind {
            EntryKind::Numbers(format) => return Ok(tensor_bytes(format, &self.shape)? as u64),
            EntryKind::Integers { value_bytes, .. } => value_bytes,
        };
        let product = self.shape.iter().try_fold(value_bytes, |bytes, length| bytes.checked_mul(*length as u64));
        product.ok_or_else(|| format!("has shape {:?}, which exceeds any memory", self.shape))
    }

    fn tensor(self, format: Format, data_start: Option<u64>, bytes: &Bytes) -> Result<Tensor, String> {
        let length = tensor_bytes(format, &self.shape)?;
        let start = data_start.and_then(|start| start.checked_add(self.offset)).and_then(|start| start.try_into().ok());
        let range = start.and_then(|start: usize| Some(start..start.checked_add(length)?));
        let range = range.ok_or_else(|| format!("its offset {} exceeds any memory", self.offset))?;
        Tensor::in_bytes(self.name, format, self.shape, bytes.clone(), range)
    }
}

/// A position in the file; every read is checked.
struct Cursor<'a, 'f> {
    file: &'f str,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a, '_> {
    fn fault(&self, at: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::malformed(self.file, at, reason)
    }

    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    fn take(&mut self, count: u64, at: &str) -> Result<&'a [u8]> {
        if count > self.remaining() {
            let more = if self.bytes.len() < MAX_HEADER_BYTES {
                format!("the file has {} more{CUT}", self.remaining())
            } else {
                format!("metadata may take {MAX_HEADER_BYTES}")
            };
            return Err(self.fault(at, format!("needs {count} bytes at byte {}, {more}", self.position)));
        }
        let end = self.position + count as usize;
        let bytes = &self.bytes[self.position..end];
        self.position = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, at: &str) -> Result<[u8; N]> {
        let bytes = self.take(N as u64, at)?;
        bytes.try_into().map_err(|_| self.fault(at, "truncated"))
    }

    fn u32(&mut self, at: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(&mut self, at: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    fn string(&mut self, at: &str) -> Result<&'a str> {
        let length = self.u64(at)?;
        let bytes = self.take(length, at)?;
        std::str::from_utf8(bytes).map_err(|error| self.fault(at, format!("a string is not UTF-8: {error}")))
    }

    fn name(&mut self, at: &str) -> Result<&'a str> {
        let name = self.string(at)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let reason = format!("a name must have 1 to {MAX_NAME_BYTES} bytes, got {}", name.len());
            return Err(self.fault(at, reason));
        }
        Ok(name)
    }

    /// Reads the header: the counts of tensors and of metadata entries.
    fn header(&mut self) -> Result<(u64, u64)> {
        let magic: [u8; 4] = self.array("header")?;
        if magic != *MAGIC {
            return Err(self.fault("header", format!("a GGUF file must begin with `GGUF`, got {magic:?}")));
        }
        let version = self.u32("header")?;
        if !(2..=3).contains(&version) {
            let found = if (2..=3).contains(&version.swap_bytes()) { "big-endian".into() } else { version.to_string() };
            let (what, supported) = ("GGUF version".into(), "versions 2 and 3, little-endian".into());
            return Err(Error::Unsupported { file: self.file.into(), what, found, supported });
        }
        let (tensors, entries) = (self.u64("tensor count")?, self.u64("metadata count")?);
        let needed = entries.checked_mul(MIN_ENTRY_BYTES);
        let needed = needed.and_then(|bytes| tensors.checked_mul(MIN_TENSOR_BYTES)?.checked_add(bytes));
        if needed.is_none_or(|needed| needed > self.remaining()) {
            let reason = format!(
                "{tensors} tensors and {entries} metadata entries do not fit in {} bytes{CUT}",
                self.remaining()
            );
            return Err(self.fault("header", reason));
        }
        Ok((tensors, entries))
    }

    fn kind(&mut self, at: &str) -> Result<Kind> {
        let number = self.u32(at)?;
        KINDS.get(number as usize).copied().ok_or_else(|| self.fault(at, format!("value type {number} is unknown")))
    }

    fn entry(&mut self) -> Result<(&'a str, Value<'a>)> {
        let key = self.name("metadata key")?;
        let at = format!("key `{key}`");
        let kind = self.kind(&at)?;
        Ok((key, self.value(kind, &at)?))
    }

    fn value(&mut self, kind: Kind, at: &str) -> Result<Value<'a>> {
        Ok(match kind {
            U8 => Value::Unsigned(u8::from_le_bytes(self.array(at)?).into()),
            U16 => Value::Unsigned(u16::from_le_bytes(self.array(at)?).into()),
            U32 => Value::Unsigned(self.u32(at)?.into()),
            U64 => Value::Unsigned(self.u64(at)?),
            I8 => Value::Signed(i8::from_le_bytes(self.array(at)?).into()),
            I16 => Value::Signed(i16::from_le_bytes(self.array(at)?).into()),
            I32 => Value::Signed(i32::from_le_bytes(self.array(at)?).into()),
            I64 => Value::Signed(i64::from_le_bytes(self.array(at)?)),
            F32 => Value::Float(f32::from_le_bytes(self.array(at)?).into()),
            F64 => Value::Float(f64::from_le_bytes(self.array(at)?)),
            BoolKind => match self.array(at)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(self.fault(at, format!("a boolean must be 0 or 1, got {other}"))),
            },
            StringKind => Value::String(self.string(at)?),
            ArrayKind => Value::Array(self.values(at)?),
        })
    }

    fn values(&mut self, at: &str) -> Result<Array<'a>> {
        let kind = self.kind(at)?;
        if kind == ArrayKind {
            return Err(self.fault(at, "an array of arrays is not supported"));
        }
        let count = self.u64(at)?;
        if count > self.remaining() {
            let reason = format!("an array of {count} values does not fit in {} bytes{CUT}", self.remaining());
            return Err(self.fault(at, reason));
        }
        let start = self.position;
        match kind.bytes() {
            // Any bytes are a number, so one step takes all values.
            Some(bytes) => drop(self.take(count.saturating_mul(bytes), at)?),
            None => (0..count).try_for_each(|_| self.value(kind, at).map(drop))?,
        }
        Ok(Array { kind, count: count as usize, bytes: &self.bytes[start..self.position] })
    }

    fn tensor_entries(&mut self, count: u64, alignment: u64) -> Result<Vec<TensorEntry<'a>>> {
        (0..count).map(|_| self.tensor_entry(alignment)).collect()
    }

    fn tensor_entry(&mut self, alignment: u64) -> Result<TensorEntry<'a>> {
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

#[cfg(test)]
mod tests;
