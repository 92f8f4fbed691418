//! The number of commits, outside the journal: SQLite takes the first damaged frame of its write-ahead log for the log's end, and
//! forgets in silence what stands behind it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Constant that the check of a mark is made with.
const SALT: u64 = 0x4879_7068_614d_6172;

/// `journal.db-mark`: 16 bytes, the count and its check. It is written behind each commit and not waited for, so after a power
/// failure it may be behind the journal, never before it.
pub(crate) struct Mark(File);

fn path(journal: &Path) -> PathBuf {
    let mut path = journal.as_os_str().to_owned();
    path.push("-mark");
    path.into()
}

impl Mark {
    /// Opens the mark of a journal; what it says, or none where it says nothing that could be believed.
    pub(crate) fn open(journal: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path(journal))?;
        let mut bytes = [0; 16];
        let said = file.read_exact_at(&mut bytes, 0).is_ok().then(|| {
            let [count, check] = [&bytes[..8], &bytes[8..]]
                .map(|half| half.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)));
            (count ^ SALT == check).then_some(count)
        });
        Ok((Self(file), said.flatten()))
    }

    pub(crate) fn set(&self, commits: u64) -> io::Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&commits.to_le_bytes());
        bytes[8..].copy_from_slice(&(commits ^ SALT).to_le_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}

/// An operator accepts that commits are lost: the next start takes the journal as it is.
///
/// # Errors
/// The mark cannot be removed.
pub fn accept_loss(journal: &Path) -> io::Result<()> {
    match std::fs::remove_file(path(journal)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Keeps a copy of a damaged write-ahead log: SQLite drops it with the last connection.
pub(crate) fn keep_log(journal: &Path) -> Option<PathBuf> {
    let with = |suffix: &str| {
        let mut path = journal.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    let kept = with("-wal.damaged");
    let log = with("-wal");
    (log.exists() && std::fs::copy(log, &kept).is_ok()).then_some(kept)
}
