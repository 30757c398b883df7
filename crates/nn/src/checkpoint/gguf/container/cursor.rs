//! Checked reading of the bytes of a file.

use crate::error::{Error, Result};

/// The first four bytes of a file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Completes the message about a file that ends too early.
pub(super) const CUT: &str = ": the file is cut short or damaged\n  hint: download or copy it again";
/// The most bytes of everything before the data. Published files have up to 20 MB of it; a sparse
/// file could have any number, which would be walked.
pub(super) const MAX_HEADER_BYTES: usize = 256 << 20;
const MAX_NAME_BYTES: usize = 65_535;
/// The smallest metadata entry in bytes: key length, type, value.
const MIN_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// The smallest tensor entry in bytes: name length, dimensions, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// A position in the file; every read is checked.
pub(super) struct Cursor<'a, 'f> {
    pub(super) file: &'f str,
    pub(super) bytes: &'a [u8],
    pub(super) position: usize,
}

impl<'a> Cursor<'a, '_> {
    pub(super) fn fault(&self, at: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::malformed(self.file, at, reason)
    }

    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    pub(super) fn take(&mut self, count: u64, at: &str) -> Result<&'a [u8]> {
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

    pub(super) fn array<const N: usize>(&mut self, at: &str) -> Result<[u8; N]> {
        let bytes = self.take(N as u64, at)?;
        bytes.try_into().map_err(|_| self.fault(at, "truncated"))
    }

    pub(super) fn u32(&mut self, at: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    pub(super) fn u64(&mut self, at: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    pub(super) fn string(&mut self, at: &str) -> Result<&'a str> {
        let length = self.u64(at)?;
        let bytes = self.take(length, at)?;
        std::str::from_utf8(bytes).map_err(|error| self.fault(at, format!("a string is not UTF-8: {error}")))
    }

    pub(super) fn name(&mut self, at: &str) -> Result<&'a str> {
        let name = self.string(at)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let reason = format!("a name must have 1 to {MAX_NAME_BYTES} bytes, got {}", name.len());
            return Err(self.fault(at, reason));
        }
        Ok(name)
    }

    /// Reads the header: the counts of tensors and of metadata entries.
    pub(super) fn header(&mut self) -> Result<(u64, u64)> {
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
}
