//! Appends per second on a real disk, beside bare SQLite with the same durability (WAL, synchronous FULL, each append on
//! disk before it counts).

use std::{path::Path, time::Instant};

use futures::{StreamExt, stream};
use kit::journal::{Batch, Journal, NewEvent, Origin};
use store::SqliteJournal;

const APPENDS: u64 = 3_000;

fn body(i: u64) -> serde_json::Value {
    serde_json::json!({ "name": "digits", "value": format!("8383{i:07}") })
}

/// With so many writers at a time, each on its own stream.
pub fn hypha(directory: &Path, writers: u64) -> f64 {
    let journal = SqliteJournal::open(&directory.join(format!("journal-{writers}.db"))).expect("opened");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let each = APPENDS * if writers > 1 { 8 } else { 1 } / writers;
    let began = Instant::now();
    runtime.block_on(stream::iter(0..writers).for_each_concurrent(None, |writer| {
        let journal = journal.clone();
        async move {
            for i in 0..each {
                let batch = Batch {
                    stream: format!("domain/{writer}"),
                    expected: i,
                    at: chrono::DateTime::UNIX_EPOCH,
                    origin: Origin::system(),
                    events: vec![NewEvent { kind: "PropertySet".into(), body: body(i).to_string() }],
                };
                journal.append(batch).await.expect("appended");
            }
        }
    }));
    (each * writers) as f64 / began.elapsed().as_secs_f64()
}

pub fn sqlite(directory: &Path) -> f64 {
    let db = rusqlite::Connection::open(directory.join("bare.db")).expect("opened");
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE events (seq INTEGER PRIMARY KEY, stream TEXT, version INTEGER, at TEXT, kind TEXT, body TEXT);",
    )
    .expect("made");
    let mut insert = db
        .prepare("INSERT INTO events (stream, version, at, kind, body) VALUES (?1, ?2, ?3, ?4, ?5)")
        .expect("prepared");
    let began = Instant::now();
    for i in 0..APPENDS {
        let at = "1970-01-01T00:00:00+00:00";
        insert.execute(("domain/0", i as i64, at, "PropertySet", body(i).to_string())).expect("appended");
    }
    APPENDS as f64 / began.elapsed().as_secs_f64()
}
