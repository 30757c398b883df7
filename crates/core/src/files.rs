//! Atomic writes of files and folders.
//!
//! Each function writes to a temporary name in the same folder, flushes it to the disk, renames it,
//! and flushes the folder. A reader sees the old content or the new, also after a crash in between.
//! When writing fails, the temporary is removed and the old content stays. The errors of the file
//! system name the path.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Writes a file whole.
///
/// # Errors
/// Those of the file system, a full disk among them; the file is then as it was before.
///
/// # Examples
/// ```
/// let path = std::env::temp_dir().join(format!("wsd-files-{}", std::process::id()));
/// wsd_core::files::write_whole(&path, b"all of it")?;
/// assert_eq!(std::fs::read(&path)?, b"all of it");
/// # std::fs::remove_file(&path)?;
/// # Ok::<_, std::io::Error>(())
/// ```
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole_with(path, |file| file.write_all(bytes))
}

/// Writes a file whole with the content that `fill` streams into it, however large.
///
/// # Errors
/// Those of the file system and of `fill`; the file is then as it was before.
pub fn write_whole_with<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut fs_err::File) -> Result<(), E>,
) -> Result<(), E> {
    put(path, &temporary(path), |temporary| {
        let mut file = fs_err::File::create(temporary)?;
        fill(&mut file)?;
        Ok(file.sync_all()?)
    })
}

/// Writes a folder whole: `fill` gets the path of an empty folder and writes files into it. An
/// older folder at `path` is removed first, which is the one step that is not atomic.
///
/// # Errors
/// Those of the file system and of `fill`; an older folder is then as it was before.
pub fn write_folder<E: From<io::Error>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    put(path, &temporary(path), |temporary| {
        fs_err::create_dir_all(temporary)?;
        fill(temporary)?;
        for entry in fs_err::read_dir(temporary)? {
            fs_err::File::open(entry?.path())?.sync_all()?;
        }
        sync_folder(temporary)?;
        if path.exists() {
            fs_err::remove_dir_all(path)?;
        }
        Ok(())
    })
}

/// Replaces a file or a link by what `make` creates at the path it is given. Several processes and
/// threads may replace the same path at once: each has a temporary of its own, and the last rename
/// stays.
///
/// # Errors
/// Those of the file system and of `make`; the old file is then as it was before.
pub fn replace<E: From<io::Error>>(path: &Path, make: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let own = format!(".{}.{:?}.tmp", std::process::id(), std::thread::current().id());
    put(path, &path.with_file_name(own), |temporary| {
        make(temporary)?;
        if fs_err::symlink_metadata(temporary)?.is_file() {
            fs_err::File::open(temporary)?.sync_all()?;
        }
        Ok(())
    })
}

/// Lets `make` create `temporary`, then gives it the name `path`.
fn put<E: From<io::Error>>(path: &Path, temporary: &Path, make: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    remove(temporary);
    let result = make(temporary).and_then(|()| Ok(fs_err::rename(temporary, path)?));
    if result.is_err() {
        remove(temporary);
    }
    result?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(sync_folder(parent.unwrap_or(Path::new(".")))?)
}

/// Removes the remains of an interrupted write, if there are any.
fn remove(temporary: &Path) {
    if std::fs::remove_file(temporary).is_err() {
        let _ = std::fs::remove_dir_all(temporary);
    }
}

/// Returns a hidden name beside `path`. It is always the same, so that the next write removes the
/// remains of an interrupted one.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// Flushes the entries of a folder. Only Unix opens folders as files.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs_err::File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs_err::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_whole(&path, b"old").unwrap();
        let failed = write_whole_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!((fs_err::read(&path).unwrap(), names(folder.path())), (b"old".to_vec(), vec!["a".to_owned()]));
    }

    #[test]
    fn a_folder_is_replaced_whole_and_leftovers_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step-1");
        fs_err::create_dir(folder.path().join(".step-1.tmp")).unwrap();
        fs_err::write(folder.path().join(".step-1.tmp/stale"), "").unwrap();
        for name in ["one", "two"] {
            write_folder(&path, |folder| fs_err::write(folder.join(name), name)).unwrap();
            assert_eq!(names(&path), [name]);
        }
        let failed = write_folder(&path, |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!((names(&path), names(folder.path())), (vec!["two".to_owned()], vec!["step-1".to_owned()]));
    }

    #[test]
    fn several_writers_of_one_path_do_not_interfere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        replace(path, |temporary| fs_err::write(temporary, [writer; 999])).unwrap();
                    }
                });
            }
        });
        let bytes = fs_err::read(&path).unwrap();
        assert!(bytes.len() == 999 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn errors_name_the_path() {
        let error = write_whole(Path::new("/no/such/folder/file"), b"").unwrap_err().to_string();
        assert!(error.contains("/no/such/folder"), "{error}");
    }
}
