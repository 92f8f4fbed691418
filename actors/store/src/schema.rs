//! The file's schema and how older files are brought up to it.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use kit::{SealError, Sealed, Secret, Vault};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::mark::{Mark, keep_log};

/// `HYPH`: tells a journal from any other SQLite file.
const APPLICATION_ID: i64 = 0x4859_5048;

/// Step n brings a file from schema n to n + 1. Steps are never changed, only added.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE events (
        seq     INTEGER PRIMARY KEY,
        stream  TEXT NOT NULL,
        version INTEGER NOT NULL,
        at      TEXT NOT NULL,
        who     TEXT NOT NULL,
        origin  TEXT NOT NULL,
        kind    TEXT NOT NULL,
        body    TEXT NOT NULL,
        UNIQUE (stream, version)
    ) STRICT;
    CREATE TABLE snapshots (
        stream  TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        state   TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES ('commits', 0);
",
    "
    CREATE TABLE seals (name TEXT PRIMARY KEY, sealed TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
];

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} has schema {found}, this program knows schemas up to {known}: it was written by a newer version. \
         Install that version, or start with another --data directory"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{0} is an SQLite file, but not a journal of this program")]
    Foreign(PathBuf),
    #[error("{0} is read-only: the node cannot keep its journal there. Check its owner, mode and mount")]
    ReadOnly(PathBuf),
    #[error("the disk with {0} is full; free some space and start again")]
    DiskFull(PathBuf),
    #[error("{0} is damaged or not a journal: {1}")]
    Damaged(PathBuf, String),
    #[error(
        "{path} has lost {lost} commits that were acknowledged, of {all}: its write-ahead log is damaged, or it is an older copy. \
         {kept}Put the newest backup back, or go on without them: hypha run --accept-loss"
    )]
    Lost { path: PathBuf, lost: u64, all: u64, kept: String },
    #[error(
        "{0} was sealed with another key: the key beside it is damaged, or of another node. Put the key back that belongs to it \
         (a backup holds both)"
    )]
    Key(PathBuf),
    #[error("cannot open {0}: {1}")]
    Other(PathBuf, String),
}

/// Purpose, and content, of what shows whether a key is the one that a journal's secrets were sealed with.
const KEY: &str = "journal/key";

/// Whether `vault` holds the key that the secrets of the journal at `path` are sealed with; a journal that was never asked takes it
/// for its own.
pub(crate) fn prove(path: &Path, vault: &dyn Vault) -> Result<(), OpenError> {
    let sqlite = |e: rusqlite::Error| OpenError::from_sqlite(path, &e);
    let other = |e: SealError| OpenError::Other(path.to_owned(), e.to_string());
    let db = Connection::open(path).map_err(sqlite)?;
    db.busy_timeout(std::time::Duration::from_secs(5)).map_err(sqlite)?;
    let known = db.query_row("SELECT sealed FROM seals WHERE name = ?1", [KEY], |r| r.get::<_, String>(0));
    match known.optional().map_err(sqlite)? {
        Some(sealed) => match vault.open(KEY, &Sealed(sealed)) {
            Ok(opened) if opened.expose() == KEY => Ok(()),
            _ => Err(OpenError::Key(path.to_owned())),
        },
        None => {
            let sealed = vault.seal(KEY, &Secret::new(KEY.to_owned())).map_err(other)?;
            db.execute("INSERT INTO seals VALUES (?1, ?2)", [KEY, &sealed.0]).map_err(sqlite)?;
            Ok(())
        }
    }
}

impl OpenError {
    fn from_sqlite(path: &Path, e: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as C;
        let path = path.to_owned();
        match e.sqlite_error_code() {
            Some(C::ReadOnly) => Self::ReadOnly(path),
            Some(C::CannotOpen) if path.exists() => Self::ReadOnly(path),
            Some(C::DiskFull) => Self::DiskFull(path),
            Some(C::NotADatabase | C::DatabaseCorrupt) => Self::Damaged(path, e.to_string()),
            _ => Self::Other(path, e.to_string()),
        }
    }
}

/// Opens for writing, durable to the last commit, with the newest schema; with the number of commits so far.
pub(crate) fn open_writer(path: &Path) -> Result<(Connection, Mark, u64), OpenError> {
    let other = |e: std::io::Error| match e.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => OpenError::ReadOnly(path.to_owned()),
        ErrorKind::StorageFull => OpenError::DiskFull(path.to_owned()),
        _ => OpenError::Other(path.to_owned(), e.to_string()),
    };
    let (mark, marked) = Mark::open(path).map_err(other)?;
    let sqlite = |e: rusqlite::Error| OpenError::from_sqlite(path, &e);
    let mut db = Connection::open(path).map_err(sqlite)?;
    db.busy_timeout(std::time::Duration::from_secs(5)).map_err(sqlite)?;
    let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(sqlite)?;
    let application: i64 = db.pragma_query_value(None, "application_id", |r| r.get(0)).map_err(sqlite)?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0)).map_err(sqlite)?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known });
    }
    let commits = match version {
        2.. => {
            db.query_row("SELECT value FROM meta WHERE name = 'commits'", [], |r| r.get(0)).map_err(sqlite)?
        }
        _ => 0,
    };
    if let Some(all) = marked.filter(|marked| *marked > commits) {
        let kept = keep_log(path).map(|k| format!("A copy of the log is in {}. ", k.display()));
        let (path, kept) = (path.to_owned(), kept.unwrap_or_default());
        return Err(OpenError::Lost { path, lost: all - commits, all, kept });
    }
    db.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
    db.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
    // A reader that stays long, such as a backup, lets the log grow; afterwards it is cut to this.
    db.pragma_update(None, "journal_size_limit", 64 << 20).map_err(sqlite)?;
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(version.max(0) as usize) {
        let tx = db.transaction().map_err(sqlite)?;
        tx.execute_batch(sql).map_err(sqlite)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
        tx.pragma_update(None, "user_version", step as i64 + 1).map_err(sqlite)?;
        tx.commit().map_err(sqlite)?;
    }
    // A file that cannot be written is refused now, not at the first event.
    db.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(sqlite)?;
    mark.set(commits).map_err(other)?;
    Ok((db, mark, commits))
}

/// Opens for reading beside the writer.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = |e: rusqlite::Error| OpenError::from_sqlite(path, &e);
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    db.busy_timeout(std::time::Duration::from_secs(5)).map_err(sqlite)?;
    Ok(db)
}
