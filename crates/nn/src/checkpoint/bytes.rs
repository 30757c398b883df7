//! The bytes of a file, shared and never copied.

use std::{
    ops::{Deref, Range},
    path::Path,
    sync::Arc,
};

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::Result;

/// Bytes that several tensors share.
#[derive(Clone)]
pub(crate) struct Bytes(Arc<Source>);

enum Source {
    Map(Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a file.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let file = fs_err::File::open(path)?;
        // SAFETY: the map is read only. A file that another process shortens meanwhile ends this one with a bus error, the
        // price every engine pays that does not copy its weights; no length read from the file is trusted after mapping.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(file.file())? };
        Ok(Self(Arc::new(Source::Map(map))))
    }

    /// Let go of the whole pages of a mapped file in `range`.
    pub(crate) fn leave_memory(&self, range: Range<usize>) {
        const PAGE: usize = 4096;
        let (first, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        #[cfg(unix)]
        if let (Source::Map(map), true) = (&*self.0, first < end) {
            // SAFETY: nothing was written into a map that can only be read, so what is read again is the same. It is
            // advice: where the system does not take it, the pages stay.
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
