//! Appends as fast as the journal takes it and prints what was acknowledged: the victim of `tests/kill.rs`.
//! `append_load FILE ROUND`: each event is `{"round": R, "n": N}`, in batches of three per stream.

use std::{io::Write, path::Path, sync::Arc};

use kit::journal::{Batch, Journal, NewEvent, Origin};
use store::SqliteJournal;

const STREAMS: usize = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (file, round) = (args.next().ok_or("which file?")?, args.next().ok_or("which round?")?);
    let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(Path::new(&file))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let writers = (0..STREAMS).map(|s| write(journal.clone(), format!("stream/{s}"), round.clone()));
        futures::future::try_join_all(writers).await.map(drop)
    })
}

async fn write(
    journal: Arc<dyn Journal>,
    stream: String,
    round: String,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut version = journal.read(&stream, 0).await?.last().map_or(0, |e| e.version);
    loop {
        let body = |n: u64| NewEvent {
            kind: "Load".into(),
            body: serde_json::json!({ "round": round, "n": n }).to_string(),
        };
        let batch = Batch {
            stream: stream.clone(),
            expected: version,
            at: chrono::DateTime::UNIX_EPOCH,
            origin: Origin::system(),
            events: (version + 1..=version + 3).map(body).collect(),
        };
        version = journal.append(batch).await?;
        // Only now may anybody be told.
        let mut out = std::io::stdout().lock();
        writeln!(out, "{stream} {version}")?;
        out.flush()?;
    }
}
