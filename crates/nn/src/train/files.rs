//! Files that are whole or not there.

use std::io::Write as _;
use std::path::Path;

use crate::error::Result;

/// Write a file under another name, see it onto the disk, and give it its name.
///
/// # Errors
/// Those of the file system, a full disk among them: what had the name before is then untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole_with(path, |file| Ok(file.write_all(bytes)?))
}

/// As [`write_whole`], of what `fill` writes.
pub(crate) fn write_whole_with(path: &Path, fill: impl FnOnce(&mut fs_err::File) -> Result<()>) -> Result<()> {
    let temporary = temporary(path);
    let written: Result<()> = (|| {
        let mut file = fs_err::File::create(&temporary)?;
        fill(&mut file)?;
        file.sync_all()?;
        Ok(fs_err::rename(&temporary, path)?)
    })();
    if written.is_err() {
        let _ = fs_err::remove_file(&temporary);
    }
    written?;
    sync_parent(path)
}

/// Make a folder of several files under another name, see it onto the disk, and give it its name, in the place of what had
/// the name before.
///
/// # Errors
/// As [`write_whole`], and those of `fill`.
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = temporary(path);
    let _ = fs_err::remove_dir_all(&temporary);
    let written: Result<()> = (|| {
        fs_err::create_dir_all(&temporary)?;
        fill(&temporary)?;
        for entry in fs_err::read_dir(&temporary)? {
            fs_err::File::open(entry?.path())?.sync_all()?;
        }
        fs_err::File::open(&temporary)?.sync_all()?;
        if path.exists() {
            fs_err::remove_dir_all(path)?;
        }
        fs_err::rename(&temporary, path)?;
        Ok(())
    })();
    if written.is_err() {
        let _ = fs_err::remove_dir_all(&temporary);
    }
    written?;
    sync_parent(path)
}

/// The same place with a name that nothing else has.
fn temporary(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// See the name itself onto the disk.
fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs_err::File::open(parent)?.sync_all()?)
}
