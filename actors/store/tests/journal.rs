//! What the journal promises, on a real file.

use std::sync::Arc;

use kit::journal::{
    Batch, Filter, Fold, Journal, JournalError, MemoryJournal, NewEvent, Origin, Snapshot, restore,
};
use serde::{Deserialize, Serialize};
use store::{KeyFile, OpenError, SqliteJournal};

fn batch(stream: &str, expected: u64, numbers: &[u64]) -> Batch {
    Batch {
        stream: stream.into(),
        expected,
        at: chrono::DateTime::UNIX_EPOCH,
        origin: Origin { who: "admin".into(), from: "test".into() },
        events: numbers
            .iter()
            .map(|n| NewEvent { kind: "Added".into(), body: serde_json::json!({ "Added": n }).to_string() })
            .collect(),
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Sum(u64);

#[derive(Serialize, Deserialize)]
enum Event {
    Added(u64),
}

impl Fold for Sum {
    type Event = Event;
    fn apply(&mut self, Event::Added(n): &Event) {
        self.0 += n;
    }
}

async fn promises(journal: Arc<dyn Journal>) {
    assert_eq!(journal.append(batch("a", 0, &[1, 2])).await.expect("appended"), 2);
    assert_eq!(journal.append(batch("b", 0, &[7])).await.expect("appended"), 1);
    let conflict = journal.append(batch("a", 0, &[3])).await;
    assert!(matches!(conflict, Err(JournalError::Conflict { expected: 0, found: 2, .. })));
    assert_eq!(journal.append(batch("a", 2, &[3])).await.expect("appended"), 3);
    let (sum, version) = restore::<Sum>(&journal, "a").await.expect("folds");
    assert_eq!((sum.0, version), (6, 3));
    let snapshot = Snapshot { version: 2, state: serde_json::json!(100) };
    journal.save_snapshot("a", snapshot.clone()).await.expect("saved");
    assert_eq!(journal.snapshot("a").await.expect("read"), Some(snapshot));
    let (sum, _) = restore::<Sum>(&journal, "a").await.expect("folds from the snapshot");
    assert_eq!(sum.0, 103);
    let newest = journal.browse(Filter { limit: 2, ..Filter::default() }).await.expect("read");
    assert_eq!(
        newest.iter().map(|e| (e.stream.as_str(), e.version)).collect::<Vec<_>>(),
        [("a", 3), ("b", 1)]
    );
    let filter =
        Filter { stream_prefix: Some("b".into()), text: Some("7".into()), limit: 9, ..Filter::default() };
    assert_eq!(journal.browse(filter).await.expect("read").len(), 1);
    journal.forget("a", 99).await.expect("forgotten");
    let left: Vec<u64> = journal.read("a", 0).await.expect("read").iter().map(|e| e.version).collect();
    assert_eq!(left, [3], "only what the snapshot covers");
    assert_eq!(journal.append(batch("a", 3, &[4])).await.expect("appended"), 4);
}

#[tokio::test]
async fn sqlite_and_memory_make_the_same_promises() {
    let dir = tempfile::tempdir().expect("a directory");
    promises(Arc::new(MemoryJournal::default())).await;
    promises(Arc::new(SqliteJournal::open(&dir.path().join("j.db")).expect("opens"))).await;
}

#[tokio::test]
async fn a_journal_reopens_with_all_its_events() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("j.db");
    let first = SqliteJournal::open(&path).expect("opens");
    first.append(batch("a", 0, &[1, 2, 3])).await.expect("appended");
    drop(first);
    let again = SqliteJournal::open(&path).expect("opens");
    assert_eq!(again.read("a", 1).await.expect("read").len(), 2);
    assert!(again.is_alive());
    // A stream whose events are all forgotten still knows its version.
    again.save_snapshot("a", Snapshot { version: 3, state: serde_json::json!(6) }).await.expect("saved");
    again.forget("a", 3).await.expect("forgotten");
    drop(again);
    let third = SqliteJournal::open(&path).expect("opens");
    assert!(third.read("a", 0).await.expect("read").is_empty());
    assert_eq!(third.append(batch("a", 3, &[4])).await.expect("appended"), 4);
}

#[test]
fn a_newer_file_is_refused_and_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("j.db");
    drop(SqliteJournal::open(&path).expect("opens"));
    let db = rusqlite::Connection::open(&path).expect("opens");
    db.pragma_update(None, "user_version", 99).expect("set");
    drop(db);
    match SqliteJournal::open(&path) {
        Err(e @ OpenError::Newer { found: 99, .. }) => assert!(e.to_string().contains("newer version")),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("other.db");
    let db = rusqlite::Connection::open(&path).expect("opens");
    db.execute_batch("CREATE TABLE mine (x)").expect("made");
    drop(db);
    assert!(matches!(SqliteJournal::open(&path), Err(OpenError::Foreign(_))));
    let path = dir.path().join("text.db");
    std::fs::write(&path, "not a database, and long enough to be looked at ".repeat(100)).expect("written");
    assert!(matches!(SqliteJournal::open(&path), Err(OpenError::Damaged(..))));
    assert!(matches!(SqliteJournal::open(&dir.path().join("no/such/dir.db")), Err(OpenError::Other(..))));
}

/// A file system of one megabyte, and then one that is mounted read-only; needs root, as `ops/test` has.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", dir.path().to_str().expect("text")]);
        Self(dir)
    }

    fn read_only(&self) {
        run("mount", &["-o", "remount,ro", self.0.path().to_str().expect("text")]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.path().to_str().expect("text")]);
    }
}

fn run(program: &str, args: &[&str]) {
    let status = std::process::Command::new(program).args(args).status().expect("it runs");
    assert!(status.success(), "{program} {args:?} failed; this test needs root");
}

#[tokio::test]
async fn a_full_disk_refuses_clearly_loses_nothing_and_recovers() {
    let disk = SmallDisk::mount();
    let path = disk.0.path().join("j.db");
    let journal = SqliteJournal::open(&path).expect("opens");
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 400_000]).expect("it fits");
    let mut version = 0;
    let numbers: Vec<u64> = (0..50).collect();
    let refused = loop {
        match journal.append(batch("a", version, &numbers)).await {
            Ok(v) => version = v,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, JournalError::DiskFull), "{refused}");
    assert!(refused.to_string().contains("disk is full"));
    assert_eq!(journal.read("a", 0).await.expect("still reads").len() as u64, version);
    std::fs::remove_file(&ballast).expect("removed");
    let after = journal.append(batch("a", version, &numbers)).await.expect("room again");
    assert_eq!(after, version + 50);
    drop(journal);
    let again = SqliteJournal::open(&path).expect("opens");
    assert_eq!(again.read("a", 0).await.expect("reads").len() as u64, after);
}

#[tokio::test]
async fn a_read_only_disk_is_refused_clearly() {
    let disk = SmallDisk::mount();
    let path = disk.0.path().join("j.db");
    let journal = SqliteJournal::open(&path).expect("opens");
    journal.append(batch("a", 0, &[1])).await.expect("appended");
    drop(journal);
    // The threads close their files a moment after the last handle has gone.
    for _ in 0..1000 {
        let wal = disk.0.path().join("j.db-wal");
        if !wal.exists() {
            break;
        }
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
    disk.read_only();
    match SqliteJournal::open(&path) {
        Err(e @ OpenError::ReadOnly(_)) => assert!(e.to_string().contains("read-only")),
        other => panic!("{:?}", other.map(drop).map_err(|e| e.to_string())),
    }
}

/// Old events go in small steps, as far as a snapshot covers them.
#[tokio::test]
async fn old_events_go_a_few_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let sqlite: Arc<dyn Journal> =
        Arc::new(SqliteJournal::open(&dir.path().join("journal.db")).expect("it opens"));
    let memory: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
    for journal in [sqlite, memory] {
        let day = |n: i64| chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(n);
        for n in 0..10u64 {
            let written = Batch { at: day(n as i64), ..batch("s", n, &[n]) };
            journal.append(written).await.expect("written");
        }
        assert_eq!(journal.forget_old("s", day(5), 100).await.expect("asked"), 0, "no snapshot has them");
        let snapshot = Snapshot { version: 8, state: serde_json::json!(0) };
        journal.save_snapshot("s", snapshot).await.expect("saved");
        let mut steps = Vec::new();
        while let n @ 1.. = journal.forget_old("s", day(6), 4).await.expect("asked") {
            steps.push(n);
        }
        assert_eq!(steps, [4, 2]);
        assert_eq!(journal.read("s", 0).await.expect("read").len(), 4);
        assert_eq!(journal.forget_old("s", day(99), 100).await.expect("asked"), 2, "up to the snapshot");
        journal.append(batch("s", 10, &[10])).await.expect("versions go on");
    }
}

/// A journal that was moved away under the running node says so, instead of taking what would be gone.
#[tokio::test]
async fn a_journal_that_was_moved_away_takes_nothing_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, away) = (dir.path().join("journal.db"), dir.path().join("away.db"));
    let journal = SqliteJournal::open(&file).expect("it opens");
    journal.append(batch("s", 0, &[1])).await.expect("written");
    std::fs::rename(&file, &away).expect("moved");
    assert!(!journal.in_place());
    assert!(matches!(journal.append(batch("s", 1, &[2])).await, Err(JournalError::Other(_))));
    std::fs::write(&file, b"").expect("another");
    assert!(!journal.in_place(), "another file of its name");
    std::fs::rename(&away, &file).expect("back");
    assert!(journal.in_place());
    journal.append(batch("s", 1, &[2])).await.expect("written");
}

#[tokio::test]
async fn another_key_than_the_one_it_was_sealed_with_is_found_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, key) = (dir.path().join("journal.db"), dir.path().join("secret.key"));
    let journal = SqliteJournal::open(&file).expect("it opens");
    journal.prove(&KeyFile::open(&key).expect("made")).expect("its first key");
    journal.append(batch("s", 0, &[1])).await.expect("written");
    drop(journal);
    let whole = std::fs::read(&key).expect("read");
    let mut damaged = whole.clone();
    damaged[7] ^= 1;
    std::fs::write(&key, damaged).expect("written");
    let journal = SqliteJournal::open(&file).expect("it opens");
    let wrong = journal.prove(&KeyFile::open(&key).expect("32 bytes"));
    assert!(matches!(wrong, Err(OpenError::Key(_))), "{wrong:?}");
    std::fs::write(&key, whole).expect("written");
    journal.prove(&KeyFile::open(&key).expect("32 bytes")).expect("its own");
}

/// Commits behind damage in the write-ahead log are missed, and nothing is taken for the whole until an operator says so.
#[tokio::test]
async fn damage_in_the_middle_of_the_log_is_not_its_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("journal.db");
    let log = dir.path().join("journal.db-wal");
    let journal = SqliteJournal::open(&file).expect("it opens");
    for n in 0..50 {
        journal.append(batch("s", n, &[n])).await.expect("written");
    }
    // As after a crash: the files as they are now, elsewhere.
    let elsewhere = |damage: &dyn Fn(&mut Vec<u8>)| {
        let to = tempfile::tempdir().expect("a directory");
        for name in ["journal.db", "journal.db-mark"] {
            std::fs::copy(dir.path().join(name), to.path().join(name)).expect("copied");
        }
        let mut bytes = std::fs::read(&log).expect("read");
        damage(&mut bytes);
        std::fs::write(to.path().join("journal.db-wal"), bytes).expect("written");
        to
    };
    let whole = elsewhere(&|_| ());
    let journal = SqliteJournal::open(&whole.path().join("journal.db")).expect("it opens");
    assert_eq!(journal.read("s", 0).await.expect("read").len(), 50);
    type Damage<'d> = &'d dyn Fn(&mut Vec<u8>);
    let cases: [Damage<'_>; 4] = [
        &|bytes| bytes[9] ^= 1,
        &|bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        &|bytes| bytes.truncate(bytes.len() - 10),
        &Vec::clear,
    ];
    for damage in cases {
        let damaged = elsewhere(damage);
        let file = damaged.path().join("journal.db");
        // Looking does not make it worse.
        for _ in 0..2 {
            let refused = SqliteJournal::open(&file).err().expect("refused");
            assert!(matches!(refused, OpenError::Lost { all: 50, .. }), "{refused}");
        }
        store::accept_loss(&file).expect("accepted");
        let journal = SqliteJournal::open(&file).expect("it opens");
        assert!(journal.read("s", 0).await.expect("read").len() < 50);
    }
    // The journal itself gone, and its key with it.
    std::fs::remove_file(whole.path().join("journal.db-wal")).ok();
    let gone = whole.path().join("journal.db");
    drop(journal);
    std::fs::remove_file(&gone).expect("removed");
    assert!(matches!(SqliteJournal::open(&gone), Err(OpenError::Lost { all: 50, .. })));
}
