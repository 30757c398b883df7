//! Atomic file writes.

use std::io;
use std::io::Write as _;
use std::path::Path;

/// Writes a file atomically: writes it under another name, syncs it to disk and renames it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = fs_err::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs_err::rename(new, path)
}
