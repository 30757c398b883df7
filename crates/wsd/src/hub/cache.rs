//! One repository's folder in the cache, in the layout of `huggingface_hub`.
//!
//! ```text
//! models--org--name/blobs/<etag>                      the contents
//! models--org--name/refs/<revision>                   the commit of a branch or tag
//! models--org--name/snapshots/<commit>/<file>         a relative link to the blob
//! .locks/models--org--name/<etag>.lock                held while the blob is written
//! ```

use std::fs::TryLockError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fs_err as fs;
use wsd_core::files;

use super::error::HubError;
use super::name::check_inside;

/// A repository's part of the cache.
pub(super) struct RepoCache {
    /// `models--org--name`.
    pub(super) folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self { locks: cache.join(".locks").join(&name), folder: cache.join(name) }
    }

    /// The commit that the cache has for `revision`; `None` if it was never fetched.
    pub(super) fn commit(&self, revision: &str) -> Result<Option<String>, HubError> {
        if is_commit(revision) {
            return Ok(Some(revision.to_owned()));
        }
        match fs::read_to_string(self.reference(revision)) {
            // A damaged reference, as a full disk may leave it, counts as missing and is rewritten.
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|commit| is_commit(commit))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Records the commit of `revision`. A commit needs no record.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit || matches!(self.commit(revision), Ok(Some(old)) if old == commit) {
            return Ok(());
        }
        replace(&self.reference(revision), |temporary| fs::write(temporary, commit))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Locks the blob against other writers, `huggingface_hub` included, until the returned file is
    /// dropped. Calls `waiting` once if another process holds the lock.
    pub(super) fn lock(&self, etag: &str, waiting: impl FnOnce()) -> Result<fs::File, HubError> {
        fs::create_dir_all(&self.locks)?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let locked = match file.file().try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.file().lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
        };
        match locked {
            // Some network file systems have no locks; there only the digest protects the blob.
            Err(error) if error.kind() != ErrorKind::Unsupported => Err(error.into()),
            _ => Ok(file),
        }
    }

    /// Links `file` of the snapshot to the blob. The link is relative, so that the cache can be
    /// moved; where the system allows no links, the blob is copied.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let up = "../".repeat(file.matches('/').count() + 2);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        let blob = self.blob(etag);
        replace(&self.snapshot(commit).join(file), |temporary| match symlink(&target, temporary) {
            Ok(()) => Ok(()),
            Err(_) => fs::copy(&blob, temporary).map(drop),
        })
    }
}

/// Replaces a file below the cache folder, and creates the folders above it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), HubError> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    Ok(files::replace(path, make)?)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// True for a full commit of 40 hexadecimal digits, which needs no reference.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name of a blob from the value of an etag header, without `W/` and quotes; `None` where it is
/// not safe as a file name.
pub(super) fn etag_name(header: &str) -> Option<&str> {
    let etag = header.trim();
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let plain = etag.len() <= 200 && !etag.contains(['/', '"', '<', '>', '|', '?', '*']) && check_inside(etag).is_ok();
    plain.then_some(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_become_file_names() {
        assert_eq!(etag_name("\"ab-1\""), Some("ab-1"));
        assert_eq!(etag_name("W/\"ab\""), Some("ab"));
        assert_eq!(etag_name(" ab "), Some("ab"));
        for hostile in ["\"../x\"", "\"/x\"", "\"\"", "", "a/b", ".."] {
            assert_eq!(etag_name(hostile), None, "{hostile}");
        }
    }

    #[test]
    fn a_reference_is_read_back_and_a_damaged_one_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), "org/name");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(cache.commit(commit).unwrap().as_deref(), Some(commit));
        assert_eq!(cache.commit("refs/pr/1").unwrap(), None);
        cache.set_commit("refs/pr/1", commit).unwrap();
        assert_eq!(cache.commit("refs/pr/1").unwrap().as_deref(), Some(commit));
        assert_eq!(fs::read_to_string(folder.path().join("models--org--name/refs/refs/pr/1")).unwrap(), commit);
        assert_eq!(cache.commit("refs").unwrap(), None);
        fs::write(folder.path().join("models--org--name/refs/bad"), "../../etc").unwrap();
        assert_eq!(cache.commit("bad").unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_relative_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), "org/name");
        fs::create_dir_all(cache.folder.join("blobs")).unwrap();
        fs::write(cache.blob("e"), "bytes").unwrap();
        for file in ["a", "sub/folder/b"] {
            cache.link("c", file, "e").unwrap();
            cache.link("c", file, "e").unwrap();
            let path = cache.snapshot("c").join(file);
            assert!(fs::read_link(&path).unwrap().is_relative());
            assert_eq!(fs::read_to_string(&path).unwrap(), "bytes");
        }
    }
}
