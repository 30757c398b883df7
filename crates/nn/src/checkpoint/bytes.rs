//! The bytes of a file, shared between tensors and never copied.

use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use wsd_core::Input;

use crate::error::Result;

/// Bytes shared by several tensors; cloning copies a reference.
#[derive(Clone)]
pub(crate) struct Bytes(Arc<Source>);

enum Source {
    Map(Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a file into memory.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let file = Input::WEIGHTS.open(path)?;
        // SAFETY: the map is read-only. If another process shortens the file, an access ends this process with a bus
        // error: every engine that maps its weights accepts that. No length read from the file is trusted after
        // mapping.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(file.file())? };
        Ok(Self(Arc::new(Source::Map(map))))
    }

    /// Drops the whole pages of a mapped file in `range` from the resident set.
    pub(crate) fn leave_memory(&self, range: Range<usize>) {
        const PAGE: usize = 4096;
        let (first, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        #[cfg(unix)]
        if let (Source::Map(map), true) = (&*self.0, first < end) {
            // SAFETY: a read-only map has no changes to lose, so the next access reads the same bytes from the file.
            // The call is advice: if the system ignores it, the pages stay.
            #[allow(unsafe_code)]
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, first, end - first) };
        }
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Arc::new(Source::Static(bytes)))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Source::Owned(bytes)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &*self.0 {
            Source::Map(map) => map,
            Source::Static(bytes) => bytes,
            Source::Owned(bytes) => bytes,
        }
    }
}
