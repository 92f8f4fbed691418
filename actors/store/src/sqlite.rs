//! The journal in SQLite: one thread writes in groups, one reads.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use crossbeam::channel::{Receiver, bounded};
use futures::future::{BoxFuture, FutureExt};
use kit::{
    Queue, Refused,
    journal::{Batch, Entry, Filter, Journal, JournalError, Origin, Snapshot},
};
use parking_lot::Mutex;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::{
    mark::Mark,
    schema::{OpenError, open_reader, open_writer},
};

/// Appends in one transaction at most.
const GROUP: usize = 512;
/// Requests that may wait for each thread.
const QUEUE: usize = 16 * 1024;

type Answer<T> = oneshot::Sender<Result<T, JournalError>>;

enum Write {
    Append(Batch, Answer<u64>),
    Snapshot(String, Snapshot, Answer<()>),
    Forget(String, u64, Answer<()>),
    ForgetOld(String, DateTime<Utc>, u32, Answer<u64>),
    #[cfg(test)]
    Crash,
}

enum Read {
    Stream(String, u64, Answer<Vec<Entry>>),
    Snapshot(String, Answer<Option<Snapshot>>),
    Browse(Filter, Answer<Vec<Entry>>),
}

/// What the journal has done since it was opened.
#[derive(Debug, Default)]
pub struct JournalStats {
    pub events: AtomicU64,
    pub commits: AtomicU64,
    pub refused: AtomicU64,
    /// Whether nothing of it may be counted where anybody looks.
    pub quiet: bool,
}

/// The journal; clones share it. Its two threads end with the last clone.
#[derive(Clone)]
pub struct SqliteJournal {
    path: PathBuf,
    threads: Arc<ArcSwap<Threads>>,
    stats: Arc<JournalStats>,
    /// Device and inode of the file, and whether it is still at its path.
    file: Arc<(Mutex<(u64, u64)>, AtomicBool)>,
}

struct Threads {
    writer: Queue<Write>,
    reader: Queue<Read>,
    /// Closed when the writer's thread has ended; nothing is ever sent.
    ended: Receiver<()>,
}

impl SqliteJournal {
    /// Opens, or makes, the journal at `path`.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, false)
    }

    /// One that metrics and inspection say nothing of: when it is written to is nobody's to know.
    pub fn open_quiet(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, true)
    }

    fn open_as(path: &Path, quiet: bool) -> Result<Self, OpenError> {
        let stats = Arc::new(JournalStats { quiet, ..JournalStats::default() });
        let threads = Threads::start(path, stats.clone())?;
        let file = Arc::new((Mutex::new(identity(path)), AtomicBool::new(true)));
        Ok(Self { path: path.to_owned(), threads: Arc::new(ArcSwap::from_pointee(threads)), stats, file })
    }

    /// Opens the file again, after its writer has ended; all clones use it from then on.
    pub fn reopen(&self) -> Result<(), OpenError> {
        self.threads.store(Arc::new(Threads::start(&self.path, self.stats.clone())?));
        *self.file.0.lock() = identity(&self.path);
        self.file.1.store(true, Relaxed);
        Ok(())
    }

    /// Whether this vault holds the key that its secrets are sealed with: a wrong one is found at the start, not at each secret.
    ///
    /// # Errors
    /// [`OpenError::Key`] where it is another key.
    pub fn prove(&self, vault: &dyn kit::Vault) -> Result<(), OpenError> {
        crate::schema::prove(&self.path, vault)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn stats(&self) -> &JournalStats {
        &self.stats
    }

    /// Looks whether the file is still at its path; while it is not, appends are refused.
    pub fn in_place(&self) -> bool {
        let there = identity(&self.path) == *self.file.0.lock();
        self.file.1.store(there, Relaxed);
        there
    }

    /// Appends waiting for the writer.
    pub fn waiting(&self) -> usize {
        self.threads.load().writer.waiting()
    }

    /// Whether the writer's thread still runs.
    pub fn is_alive(&self) -> bool {
        !matches!(self.threads.load().ended.try_recv(), Err(crossbeam::channel::TryRecvError::Disconnected))
    }
}

impl Threads {
    fn start(path: &Path, stats: Arc<JournalStats>) -> Result<Self, OpenError> {
        let (db, mark, commits) = open_writer(path)?;
        let reading = open_reader(path)?;
        let (writer, writes) = Queue::new(QUEUE);
        let (reader, reads) = Queue::new(QUEUE);
        let (alive, ended) = bounded::<()>(0);
        let other = |e: std::io::Error| OpenError::Other(path.to_owned(), e.to_string());
        thread::Builder::new()
            .name("journal-write".into())
            .spawn(move || {
                let _alive = alive;
                write_loop(db, &mark, commits, &writes, &stats);
            })
            .map_err(other)?;
        thread::Builder::new()
            .name("journal-read".into())
            .spawn(move || read_loop(&reading, &reads))
            .map_err(other)?;
        Ok(Self { writer, reader, ended })
    }
}

/// Device and inode of a file; zeros where there is none.
fn identity(path: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or((0, 0), |m| (m.dev(), m.ino()))
}

fn ask<Q, T: Send + 'static>(
    to: &Queue<Q>,
    make: impl FnOnce(Answer<T>) -> Q,
) -> BoxFuture<'static, Result<T, JournalError>> {
    let (tx, rx) = oneshot::channel();
    let refused = match to.put(make(tx)) {
        Ok(()) => return rx.map(|answer| answer.unwrap_or(Err(JournalError::Stopped))).boxed(),
        Err(Refused::Full(_)) => JournalError::Other(format!("more than {QUEUE} requests wait")),
        Err(Refused::Gone(_)) => JournalError::Stopped,
    };
    futures::future::ready(Err(refused)).boxed()
}

impl Journal for SqliteJournal {
    fn append(&self, batch: Batch) -> BoxFuture<'static, Result<u64, JournalError>> {
        if !self.file.1.load(Relaxed) {
            let gone = format!("{} is no longer where it was", self.path.display());
            return futures::future::ready(Err(JournalError::Other(gone))).boxed();
        }
        ask(&self.threads.load().writer, |a| Write::Append(batch, a))
    }

    fn read(&self, stream: &str, after: u64) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        ask(&self.threads.load().reader, |a| Read::Stream(stream.to_owned(), after, a))
    }

    fn snapshot(&self, stream: &str) -> BoxFuture<'static, Result<Option<Snapshot>, JournalError>> {
        ask(&self.threads.load().reader, |a| Read::Snapshot(stream.to_owned(), a))
    }

    fn save_snapshot(
        &self,
        stream: &str,
        snapshot: Snapshot,
    ) -> BoxFuture<'static, Result<(), JournalError>> {
        ask(&self.threads.load().writer, |a| Write::Snapshot(stream.to_owned(), snapshot, a))
    }

    fn forget(&self, stream: &str, up_to: u64) -> BoxFuture<'static, Result<(), JournalError>> {
        ask(&self.threads.load().writer, |a| Write::Forget(stream.to_owned(), up_to, a))
    }

    fn forget_old(
        &self,
        stream: &str,
        before: DateTime<Utc>,
        most: u32,
    ) -> BoxFuture<'static, Result<u64, JournalError>> {
        ask(&self.threads.load().writer, |a| Write::ForgetOld(stream.to_owned(), before, most, a))
    }

    fn browse(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        ask(&self.threads.load().reader, |a| Read::Browse(filter, a))
    }
}

fn journal_error(e: &rusqlite::Error) -> JournalError {
    use rusqlite::ErrorCode as C;
    match e.sqlite_error_code() {
        Some(C::DiskFull) => JournalError::DiskFull,
        Some(C::ReadOnly) => JournalError::ReadOnly(e.to_string()),
        _ => JournalError::Other(e.to_string()),
    }
}

/// Takes whatever waits, up to [`GROUP`], into one transaction; answers after its commit. While one group's commit
/// waits for the disk the next gathers, so a busy journal pays one sync for many appends.
fn write_loop(
    mut db: Connection,
    mark: &Mark,
    mut commits: u64,
    writes: &Receiver<Write>,
    stats: &JournalStats,
) {
    let mut versions = HashMap::new();
    while let Ok(first) = writes.recv() {
        let group: Vec<Write> = std::iter::once(first).chain(writes.try_iter().take(GROUP - 1)).collect();
        let mut answers: Vec<Box<dyn FnOnce(Option<JournalError>)>> = Vec::with_capacity(group.len());
        let mut events = 0;
        let began = std::time::Instant::now();
        let written = write_group(&mut db, group, &mut versions, &mut answers, &mut events, commits + 1);
        match written {
            Ok(()) => {
                commits += 1;
                if let Err(e) = mark.set(commits) {
                    tracing::debug!(error = %e, "the mark of the journal stays behind");
                }
                stats.events.fetch_add(events, Relaxed);
                stats.commits.fetch_add(1, Relaxed);
                if !stats.quiet {
                    metrics::counter!("hypha_journal_events_total").increment(events);
                    metrics::counter!("hypha_journal_commits_total").increment(1);
                    metrics::histogram!("hypha_journal_commit_seconds").record(began.elapsed().as_secs_f64());
                }
            }
            Err(ref e) => {
                // The cache may be ahead of what the file holds now.
                versions.clear();
                stats.refused.fetch_add(answers.len() as u64, Relaxed);
                tracing::error!(error = %e, appends = answers.len(), "journal group was not written");
            }
        }
        let error = written.err().map(|e| journal_error(&e));
        for answer in answers {
            answer(error.clone());
        }
    }
}

fn write_group(
    db: &mut Connection,
    group: Vec<Write>,
    versions: &mut HashMap<String, u64>,
    answers: &mut Vec<Box<dyn FnOnce(Option<JournalError>)>>,
    events: &mut u64,
    commits: u64,
) -> rusqlite::Result<()> {
    let mut failure = None;
    let begun = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
    let tx = match begun {
        Ok(tx) => Some(tx),
        Err(e) => {
            failure = Some(e);
            None
        }
    };
    for write in group {
        match write {
            #[cfg(test)]
            Write::Crash => panic!("on purpose"),
            Write::Append(batch, answer) => {
                let outcome = match (&failure, &tx) {
                    (None, Some(tx)) => append(tx, &batch, versions, events),
                    _ => Ok(Err(JournalError::Stopped)),
                };
                match outcome {
                    Ok(outcome) => answers.push(Box::new(move |error| {
                        let _ = answer.send(error.map_or(outcome, Err));
                    })),
                    Err(e) => {
                        failure = Some(e);
                        answers.push(Box::new(move |error| {
                            let _ = answer.send(Err(error.unwrap_or(JournalError::Stopped)));
                        }));
                    }
                }
            }
            Write::Snapshot(stream, snapshot, answer) => {
                if let (None, Some(tx)) = (&failure, &tx) {
                    let saved = tx.execute(
                        "INSERT INTO snapshots (stream, version, state) VALUES (?1, ?2, ?3)
                         ON CONFLICT (stream) DO UPDATE SET version = ?2, state = ?3 WHERE version < ?2",
                        params![stream, snapshot.version as i64, snapshot.state.to_string()],
                    );
                    failure = saved.err();
                }
                answers.push(Box::new(move |error| {
                    let _ = answer.send(error.map_or(Ok(()), Err));
                }));
            }
            Write::ForgetOld(stream, before, most, answer) => {
                let mut count = 0;
                if let (None, Some(tx)) = (&failure, &tx) {
                    // Versions are in order of time, and looked up by an index; a few at a time hold nobody up.
                    let forgotten = tx.execute(
                        "DELETE FROM events WHERE stream = ?1 AND at < ?2 AND version <=
                           min(coalesce((SELECT version FROM snapshots WHERE stream = ?1), 0),
                               (SELECT min(version) FROM events WHERE stream = ?1) + ?3 - 1)",
                        params![stream, before.to_rfc3339(), most],
                    );
                    match forgotten {
                        Ok(n) => count = n as u64,
                        Err(e) => failure = Some(e),
                    }
                }
                answers.push(Box::new(move |error| {
                    let _ = answer.send(error.map_or(Ok(count), Err));
                }));
            }
            Write::Forget(stream, up_to, answer) => {
                if let (None, Some(tx)) = (&failure, &tx) {
                    let forgotten = tx.execute(
                        "DELETE FROM events WHERE stream = ?1 AND version <=
                           min(?2, coalesce((SELECT version FROM snapshots WHERE stream = ?1), 0))",
                        params![stream, up_to as i64],
                    );
                    failure = forgotten.err();
                }
                answers.push(Box::new(move |error| {
                    let _ = answer.send(error.map_or(Ok(()), Err));
                }));
            }
        }
    }
    match (failure, tx) {
        (None, Some(tx)) => {
            tx.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'commits'")?
                .execute([commits as i64])?;
            tx.commit()
        }
        // Dropping the transaction rolls it back: none of the group is written.
        (Some(e), _) => Err(e),
        (None, None) => Ok(()),
    }
}

/// One batch within the group's transaction. A conflict writes nothing and leaves the group alone.
fn append(
    tx: &Connection,
    batch: &Batch,
    versions: &mut HashMap<String, u64>,
    events: &mut u64,
) -> rusqlite::Result<Result<u64, JournalError>> {
    let found = match versions.get(&batch.stream) {
        Some(v) => *v,
        None => tx
            // A stream that forgets may have its newest version in the snapshot alone.
            .prepare_cached(
                "SELECT max(coalesce((SELECT max(version) FROM events WHERE stream = ?1), 0),
                            coalesce((SELECT version FROM snapshots WHERE stream = ?1), 0))",
            )?
            .query_row([&batch.stream], |r| r.get::<_, i64>(0))? as u64,
    };
    if found != batch.expected {
        let (stream, expected) = (batch.stream.clone(), batch.expected);
        return Ok(Err(JournalError::Conflict { stream, expected, found }));
    }
    let mut insert = tx.prepare_cached(
        "INSERT INTO events (stream, version, at, who, origin, kind, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let at = batch.at.to_rfc3339();
    let mut version = found;
    for event in &batch.events {
        version += 1;
        insert.execute(params![
            batch.stream,
            version as i64,
            at,
            batch.origin.who,
            batch.origin.from,
            event.kind,
            event.body
        ])?;
    }
    *events += batch.events.len() as u64;
    versions.insert(batch.stream.clone(), version);
    Ok(Ok(version))
}

fn read_loop(db: &Connection, reads: &Receiver<Read>) {
    for read in reads {
        // An asker that has gone away is no error.
        match read {
            Read::Stream(stream, after, answer) => {
                let found = entries(
                    db,
                    "SELECT seq, stream, version, at, who, origin, kind, body FROM events
                     WHERE stream = ?1 AND version > ?2 ORDER BY version",
                    params![stream, after as i64],
                    |_| None,
                    usize::MAX,
                );
                let _ = answer.send(found);
            }
            Read::Snapshot(stream, answer) => {
                let _ = answer.send(snapshot(db, &stream));
            }
            Read::Browse(filter, answer) => {
                let found = entries(
                    db,
                    "SELECT seq, stream, version, at, who, origin, kind, body FROM events
                     WHERE (?1 IS NULL OR substr(stream, 1, length(?1)) = ?1) AND (?2 IS NULL OR kind = ?2)
                       AND (?3 IS NULL OR who = ?3) AND (?4 IS NULL OR instr(body, ?4) > 0)
                       AND (?5 IS NULL OR seq < ?5)
                     ORDER BY seq DESC LIMIT ?6",
                    params![
                        filter.stream_prefix,
                        filter.kind,
                        filter.who,
                        filter.text,
                        filter.before.map(|b| b as i64),
                        filter.limit as i64
                    ],
                    // One damaged event hides no other. Its text may hold a secret that can no longer be told from the rest.
                    |e| Some(serde_json::json!({ "damaged": e.to_string() })),
                    BROWSED,
                );
                let _ = answer.send(found);
            }
        }
    }
}

/// Bytes of events' bodies in one answer of [`Journal::browse`]; older events are asked for again.
const BROWSED: usize = 2 << 20;

/// `damaged` says what stands for a body that is not JSON, if its reader can do without. No more rows are read once their bodies
/// have `most` bytes.
fn entries(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    damaged: impl Fn(&serde_json::Error) -> Option<serde_json::Value>,
    most: usize,
) -> Result<Vec<Entry>, JournalError> {
    let sqlite = |e: rusqlite::Error| journal_error(&e);
    let mut statement = db.prepare_cached(sql).map_err(sqlite)?;
    let mut rows = statement.query(params).map_err(sqlite)?;
    let (mut out, mut bytes) = (Vec::new(), 0);
    while bytes < most
        && let Some(row) = rows.next().map_err(sqlite)?
    {
        let (seq, stream, version, at, who, from, kind, body): (
            i64,
            String,
            i64,
            String,
            String,
            String,
            String,
            String,
        ) = row.try_into().map_err(sqlite)?;
        let version = version as u64;
        let corrupt = |why: String| JournalError::Corrupt { stream: stream.clone(), version, why };
        let at = at.parse().map_err(|e: chrono::ParseError| corrupt(e.to_string()))?;
        bytes += body.len();
        let read = serde_json::from_str(&body);
        let body = read.or_else(|e| damaged(&e).ok_or_else(|| corrupt(e.to_string())))?;
        out.push(Entry { seq: seq as u64, stream, version, at, origin: Origin { who, from }, kind, body });
    }
    Ok(out)
}

fn snapshot(db: &Connection, stream: &str) -> Result<Option<Snapshot>, JournalError> {
    let found = db
        .query_row("SELECT version, state FROM snapshots WHERE stream = ?1", [stream], |r| {
            Ok((r.get::<_, i64>(0)? as u64, r.get::<_, String>(1)?))
        })
        .map(Some)
        .or_else(|e| if e == rusqlite::Error::QueryReturnedNoRows { Ok(None) } else { Err(e) })
        .map_err(|e| journal_error(&e))?;
    found
        .map(|(version, state)| {
            let corrupt = |e: serde_json::Error| JournalError::Corrupt {
                stream: stream.into(),
                version,
                why: e.to_string(),
            };
            Ok(Snapshot { version, state: serde_json::from_str(&state).map_err(corrupt)? })
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use kit::journal::NewEvent;

    use super::*;

    fn batch(expected: u64) -> Batch {
        let event = NewEvent { kind: "Said".into(), body: expected.to_string() };
        Batch {
            stream: "s".into(),
            expected,
            at: chrono::DateTime::UNIX_EPOCH,
            origin: Origin::system(),
            events: vec![event],
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_thread_that_ends_is_answered() {
        let (to, from) = Queue::new(QUEUE);
        let waiting = ask(&to, |answer| Read::Snapshot("s".into(), answer));
        drop(from);
        assert!(matches!(waiting.now_or_never(), Some(Err(JournalError::Stopped))));
        assert!(matches!(ask(&to, |a| Read::Snapshot("s".into(), a)).await, Err(JournalError::Stopped)));
    }

    #[test]
    fn a_queue_has_an_end() {
        let (to, _from) = Queue::new(QUEUE);
        let all: Vec<_> = (0..QUEUE).map(|_| ask(&to, |a| Read::Snapshot("s".into(), a))).collect();
        let more = ask(&to, |a| Read::Snapshot("s".into(), a)).now_or_never();
        assert!(matches!(more, Some(Err(JournalError::Other(_)))));
        assert_eq!(all.len(), to.waiting());
    }

    #[tokio::test]
    async fn a_journal_whose_writer_died_is_opened_again_with_all_it_had() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = SqliteJournal::open(&dir.path().join("journal.db")).expect("opened");
        let clone = journal.clone();
        assert!(matches!(journal.append(batch(0)).await, Ok(1)));
        assert!(journal.threads.load().writer.put(Write::Crash).is_ok());
        assert!(matches!(clone.append(batch(1)).await, Err(JournalError::Stopped)));
        while journal.is_alive() {
            tokio::task::yield_now().await;
        }
        journal.reopen().expect("opened again");
        assert!(clone.is_alive());
        assert!(matches!(clone.append(batch(1)).await, Ok(2)));
        assert_eq!(clone.read("s", 0).await.expect("read").len(), 2);
    }
}
