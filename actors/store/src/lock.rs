//! One node per data directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Held while the node runs; the system lets go of it however the process ends.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another node runs with the data directory {0}; stop it, or choose another with --data")]
    Held(PathBuf),
    #[error("cannot lock the data directory {0}: {1}")]
    Io(PathBuf, io::Error),
}

impl DataLock {
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let io = |e| LockError::Io(dir.to_owned(), e);
        let path = dir.join("hypha.lock");
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(dir.to_owned())),
            Err(TryLockError::Error(e)) => Err(io(e)),
        }
    }
}
