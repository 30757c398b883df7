//! The lock of a run's folder.

use std::fs::TryLockError;
use std::path::Path;

use crate::error::{Error, Result};

const FILE: &str = ".lock";

/// The right to write into a run's folder, which one process has at a time. Dropping it, or the end
/// of the process, gives it back.
#[derive(Debug)]
pub struct RunLock {
    _file: fs_err::File,
}

impl RunLock {
    /// Locks a folder, which must exist.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has it; those of the file system.
    ///
    /// # Examples
    /// ```
    /// let folder = tempfile::tempdir()?;
    /// let lock = wsd_train::RunLock::acquire(folder.path())?;
    /// assert!(wsd_train::RunLock::acquire(folder.path()).is_err());
    /// drop(lock);
    /// assert!(wsd_train::RunLock::acquire(folder.path()).is_ok());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn acquire(run: &Path) -> Result<Self> {
        let file = fs_err::OpenOptions::new().write(true).create(true).truncate(false).open(run.join(FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { folder: run.display().to_string() }),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}
