//! A process that appends is killed (SIGKILL) at random moments: every acknowledged event is there afterwards, and no
//! batch is there in part.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use kit::journal::Journal;
use store::SqliteJournal;

const ROUNDS: usize = 40;

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged_and_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("journal.db");
    let mut acknowledged: HashMap<String, u64> = HashMap::new();
    let mut total = 0;
    for round in 0..ROUNDS {
        let lines = kill_after(&file, round, 1 + (round * 37) % 211);
        total += lines.len();
        for line in lines {
            let (stream, version) = line.split_once(' ').expect("stream and version");
            acknowledged.insert(stream.to_owned(), version.parse().expect("a number"));
        }
        let journal = SqliteJournal::open(&file).expect("it opens after a kill");
        for (stream, version) in &acknowledged {
            let found = journal.read(stream, 0).await.expect("it reads");
            assert!(found.len() as u64 >= *version, "round {round}: {stream} lost acknowledged events");
            assert_eq!(found.len() % 3, 0, "round {round}: {stream} holds part of a batch");
            assert!(
                found.iter().enumerate().all(|(i, e)| e.body["n"] == i as u64 + 1),
                "round {round}: a gap"
            );
        }
    }
    assert!(total > ROUNDS, "the load made progress");
}

/// Runs the load until it has acknowledged `lines` times, kills it there, and gives all it had printed.
fn kill_after(file: &Path, round: usize, lines: usize) -> Vec<String> {
    let mut load = Command::new(env!("CARGO_BIN_EXE_append_load"))
        .args([file.as_os_str(), round.to_string().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(load.stdout.take().expect("a pipe")).lines();
    let mut printed: Vec<String> = out.by_ref().take(lines).map(|l| l.expect("text")).collect();
    load.kill().expect("SIGKILL");
    // What was printed before the kill counts too; a last line cut short does not.
    printed.extend(out.map_while(Result::ok).filter(|l| l.split(' ').count() == 2));
    load.wait().expect("it is gone");
    printed
}
