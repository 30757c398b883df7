//! Safetensors files: a JSON header with names, shapes and ranges, then the data.

use std::collections::BTreeMap;

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use serde_json::{Map, Value};

use super::bytes::Bytes;
use super::mxfp4;
use super::tensor::Tensor;
use crate::error::{Error, Result};
use crate::format::Format;

/// The largest header accepted, the limit of the reference implementation.
const MAX_HEADER_BYTES: usize = 100_000_000;

/// The tensors of a file.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// The tensors of numbers, in the order of their data.
    pub(super) tensors: Vec<Tensor>,
    /// The reasons why other tensors, as of integers, cannot be read, by name.
    pub(super) unread: BTreeMap<String, String>,
}

impl Stored {
    /// Returns the tensors of a file that must have no others.
    pub(super) fn all(self, file: &str) -> Result<Vec<Tensor>> {
        let problems: Vec<_> = self.unread.iter().map(|(name, reason)| format!("`{name}` {reason}")).collect();
        if problems.is_empty() { Ok(self.tensors) } else { Err(Error::Tensors { file: file.into(), problems }) }
    }
}

/// Reads all tensors of a file.
pub(super) fn read(file: &str, bytes: &Bytes) -> Result<Stored> {
    let malformed = |reason: String| Error::malformed(file, "header", reason);
    let (length, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| malformed(format!("a safetensors file must have at least 8 bytes, got {}", bytes.len())))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_HEADER_BYTES {
        return Err(malformed(format!("its length must be at most {MAX_HEADER_BYTES} bytes, got {length}")));
    }
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| {
        malformed(format!("it has {length} bytes, but the file ends after {} of them: is it truncated?", rest.len()))
    })?;
    // `Metadata` checks shapes against ranges, and that the ranges follow one another from 0.
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| match faults(header).as_slice() {
        [] => malformed(error.to_string()),
        faults => Error::Tensors { file: file.into(), problems: faults.to_vec() },
    })?;
    if metadata.data_len() != data.len() {
        let (needed, found) = (metadata.data_len(), data.len());
        return Err(malformed(format!(
            "the tensors take {needed} bytes, the file has {found} for them: is it truncated?"
        )));
    }
    let start = bytes.len() - data.len();
    let (mut stored, mut problems) = (Stored::default(), Vec::new());
    let octets = |name: &str| {
        let info = metadata.info(name).filter(|info| info.dtype == Dtype::U8)?;
        Some((info.shape.as_slice(), &data[info.data_offsets.0..info.data_offsets.1]))
    };
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).ok_or_else(|| malformed(format!("no tensor `{name}`")))?;
        let scales = name.strip_suffix(mxfp4::BLOCKS).map(|name| format!("{name}{}", mxfp4::SCALES));
        if let (Some(blocks), Some(scales)) = (octets(&name), scales.and_then(|scales| octets(&scales))) {
            stored.tensors.push(mxfp4::tensor(file, &name, blocks, scales)?);
            continue;
        }
        let Some(format) = format_of(info.dtype) else {
            stored.unread.insert(name, format!("has dtype {:?}, supported are F32, F16, BF16", info.dtype));
            continue;
        };
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        match Tensor::in_bytes(&name, format, info.shape.clone(), bytes.clone(), range) {
            Ok(tensor) => stored.tensors.push(tensor),
            Err(reason) => problems.push(format!("`{name}` {reason}")),
        }
    }
    if problems.is_empty() { Ok(stored) } else { Err(Error::Tensors { file: file.into(), problems }) }
}

/// Lists the entries of a header that are not tensors, or whose range has another length than their
/// data.
fn faults(header: &[u8]) -> Vec<String> {
    let entries: Map<String, Value> = serde_json::from_slice(header).unwrap_or_default();
    let fault = |(name, entry): (String, Value)| match serde_json::from_value::<TensorInfo>(entry) {
        Err(error) => Some(format!("`{name}` is not a tensor: {error}")),
        Ok(info) => {
            let (start, end) = info.data_offsets;
            let values = info.shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
            let needed = values.and_then(|values| values.checked_mul(info.dtype.bitsize()));
            (needed != end.checked_sub(start).and_then(|bytes| bytes.checked_mul(8))).then(|| {
                let (dtype, shape) = (info.dtype, info.shape);
                format!("`{name}`, {dtype:?} of shape {shape:?}, does not fill its range from byte {start} to {end}")
            })
        }
    };
    entries.into_iter().filter(|(name, _)| name != "__metadata__").filter_map(fault).collect()
}

fn format_of(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::BF16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn small() -> Vec<u8> {
        let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},
            "b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"__metadata__":{"format":"pt"}}"#;
        file(header, 22)
    }

    fn message(bytes: Vec<u8>) -> String {
        read("model.safetensors", &bytes.into()).unwrap_err().to_string()
    }

    #[test]
    fn tensors_keep_their_range() {
        let tensors = read("x", &small().into()).unwrap().tensors;
        assert_eq!(format!("{tensors:?}"), "[a F32 [2, 2], b BF16 [3]]");
        assert_eq!(tensors[1].bytes().len(), 6);
    }

    #[test]
    fn errors_name_the_fault() {
        let mut short = small();
        short.pop();
        assert!(message(short).contains("take 22 bytes, the file has 21"));
        assert!(message(vec![1, 2]).contains("at least 8 bytes"));
        assert!(message(vec![0xff; 16]).contains("at most 100000000"));
        assert!(message(file("{}", 3)).contains("take 0 bytes, the file has 3"));
        let strange = r#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},
            "flags":{"dtype":"BOOL","shape":[2],"data_offsets":[8,10]}}"#;
        let stored = read("model.safetensors", &file(strange, 10).into()).unwrap();
        let expected = "model.safetensors: the weights do not fit the model:\n  \
            `flags` has dtype BOOL, supported are F32, F16, BF16\n  `ids` has dtype I64, supported are F32, F16, BF16";
        assert_eq!(stored.all("model.safetensors").unwrap_err().to_string(), expected);
        let wrong = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]},
            "b":{"dtype":"F99","shape":[],"data_offsets":[4,8]}}"#;
        let error = message(file(wrong, 8));
        assert!(error.contains("`a`, F32 of shape [2], does not fill its range from byte 0 to 4"), "{error}");
        assert!(error.contains("`b` is not a tensor: unknown variant `F99`"), "{error}");
    }

    #[test]
    fn ranges_beyond_all_memory_are_errors() {
        let end = u64::MAX / 8;
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{end}]}}}}"#, end / 4);
        assert!(read("x", &file(&header, 0).into()).is_err());
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = small();
            for (place, value) in changes {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            let length = bytes.len();
            let _ = read("x", &bytes.clone().into());
            bytes.truncate(cut.index(length));
            prop_assert!(read("x", &bytes.into()).is_err());
        }
    }
}
