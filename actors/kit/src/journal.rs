//! The journal: what must survive is an event first, appended, then applied.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Number of an event in the whole journal, from 1.
pub type Seq = u64;

/// Who made a change, when and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub who: String,
    /// `ssh 127.0.0.1:50412`, `web 127.0.0.1`, `replay`, `system`.
    pub from: String,
}

impl Origin {
    /// The node itself.
    pub fn system() -> Self {
        Self { who: "system".into(), from: "system".into() }
    }
}

/// An event to append: its kind is what the browser shows and filters by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub kind: String,
    /// JSON, as it is written.
    pub body: String,
}

impl NewEvent {
    pub fn new(kind: impl Into<String>, body: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { kind: kind.into(), body: serde_json::to_string(body)? })
    }
}

/// Events of one stream that are appended together or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    pub stream: String,
    /// The stream's last version the writer knows; another one is a conflict.
    pub expected: u64,
    pub at: DateTime<Utc>,
    pub origin: Origin,
    pub events: Vec<NewEvent>,
}

/// An event as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub seq: Seq,
    pub stream: String,
    /// Number in its stream, from 1.
    pub version: u64,
    pub at: DateTime<Utc>,
    pub origin: Origin,
    pub kind: String,
    pub body: serde_json::Value,
}

/// What a browser of the journal asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Filter {
    pub stream_prefix: Option<String>,
    pub kind: Option<String>,
    pub who: Option<String>,
    /// Text anywhere in the body.
    pub text: Option<String>,
    pub before: Option<Seq>,
    pub limit: usize,
}

impl Filter {
    pub fn accepts(&self, e: &Entry) -> bool {
        self.stream_prefix.as_ref().is_none_or(|p| e.stream.starts_with(p.as_str()))
            && self.kind.as_ref().is_none_or(|k| e.kind == *k)
            && self.who.as_ref().is_none_or(|w| e.origin.who == *w)
            && self.before.is_none_or(|b| e.seq < b)
            && self.text.as_ref().is_none_or(|t| e.body.to_string().contains(t.as_str()))
    }
}

/// A fold up to a version.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub version: u64,
    pub state: serde_json::Value,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    #[error("the disk is full; nothing was written. Free some space and try again")]
    DiskFull,
    #[error("the journal is read-only: {0}. Nothing was written")]
    ReadOnly(String),
    #[error("stream {stream} stands at version {found}, not {expected}: somebody else wrote to it")]
    Conflict { stream: String, expected: u64, found: u64 },
    #[error("the journal has stopped")]
    Stopped,
    #[error("event {version} of stream {stream} cannot be read: {why}")]
    Corrupt { stream: String, version: u64, why: String },
    #[error("journal: {0}")]
    Other(String),
}

/// Where events live. An append returns when the events are safe on disk, never before.
pub trait Journal: Send + Sync {
    /// Appends; the answer is the stream's new version.
    fn append(&self, batch: Batch) -> BoxFuture<'static, Result<u64, JournalError>>;
    /// Events of one stream after a version, in order.
    fn read(&self, stream: &str, after: u64) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>>;
    fn snapshot(&self, stream: &str) -> BoxFuture<'static, Result<Option<Snapshot>, JournalError>>;
    fn save_snapshot(&self, stream: &str, snapshot: Snapshot)
    -> BoxFuture<'static, Result<(), JournalError>>;
    /// Removes events of a stream up to a version, as far as its snapshot covers them: for streams whose past nobody asks
    /// for.
    fn forget(&self, stream: &str, up_to: u64) -> BoxFuture<'static, Result<(), JournalError>>;
    /// Whether errors may quote what was kept.
    fn quotes(&self) -> bool {
        true
    }
    /// Forgets at most `most` of the oldest events of a stream that are older than `before` and no younger than its snapshot; the answer
    /// is how many there were. A journal that keeps everything says 0.
    fn forget_old(
        &self,
        _stream: &str,
        _before: DateTime<Utc>,
        _most: u32,
    ) -> BoxFuture<'static, Result<u64, JournalError>> {
        futures::future::ready(Ok(0)).boxed()
    }

    /// Newest first.
    fn browse(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>>;
}

/// A state that is a fold over its stream.
pub trait Fold: Serialize + DeserializeOwned + Default + 'static {
    type Event: Serialize + DeserializeOwned;

    fn apply(&mut self, event: &Self::Event);
}

/// The state of `stream` and its version: the snapshot, and what came after.
pub async fn restore<F: Fold>(journal: &Arc<dyn Journal>, stream: &str) -> Result<(F, u64), JournalError> {
    let corrupt = |version, why: serde_json::Error| JournalError::Corrupt {
        stream: stream.to_owned(),
        version,
        why: if journal.quotes() { why.to_string() } else { "it is no event of this version".to_owned() },
    };
    let (mut state, mut version) = match journal.snapshot(stream).await? {
        Some(s) => (serde_json::from_value(s.state).map_err(|e| corrupt(s.version, e))?, s.version),
        None => (F::default(), 0),
    };
    for entry in journal.read(stream, version).await? {
        let event = serde_json::from_value(entry.body).map_err(|e| corrupt(entry.version, e))?;
        state.apply(&event);
        version = entry.version;
    }
    Ok((state, version))
}

/// A journal in memory, for replays and tests: the same promises, except to survive.
#[derive(Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    seq: Seq,
    entries: Vec<Entry>,
    versions: BTreeMap<String, u64>,
    snapshots: BTreeMap<String, Snapshot>,
}

impl Journal for MemoryJournal {
    fn append(&self, batch: Batch) -> BoxFuture<'static, Result<u64, JournalError>> {
        let mut m = self.0.lock();
        let found = m.versions.get(&batch.stream).copied().unwrap_or(0);
        if found != batch.expected {
            let (stream, expected) = (batch.stream, batch.expected);
            return futures::future::ready(Err(JournalError::Conflict { stream, expected, found })).boxed();
        }
        let read = |e: NewEvent| serde_json::from_str(&e.body).map(|body| (e.kind, body));
        let events: Result<Vec<(String, serde_json::Value)>, _> =
            batch.events.into_iter().map(read).collect();
        let events = match events {
            Ok(events) => events,
            Err(e) => return futures::future::ready(Err(JournalError::Other(e.to_string()))).boxed(),
        };
        let mut version = found;
        for (kind, body) in events {
            version += 1;
            m.seq += 1;
            let seq = m.seq;
            m.entries.push(Entry {
                seq,
                stream: batch.stream.clone(),
                version,
                at: batch.at,
                origin: batch.origin.clone(),
                kind,
                body,
            });
        }
        m.versions.insert(batch.stream, version);
        futures::future::ready(Ok(version)).boxed()
    }

    fn read(&self, stream: &str, after: u64) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        let m = self.0.lock();
        let found = m.entries.iter().filter(|e| e.stream == stream && e.version > after).cloned().collect();
        futures::future::ready(Ok(found)).boxed()
    }

    fn snapshot(&self, stream: &str) -> BoxFuture<'static, Result<Option<Snapshot>, JournalError>> {
        futures::future::ready(Ok(self.0.lock().snapshots.get(stream).cloned())).boxed()
    }

    fn save_snapshot(
        &self,
        stream: &str,
        snapshot: Snapshot,
    ) -> BoxFuture<'static, Result<(), JournalError>> {
        self.0.lock().snapshots.insert(stream.to_owned(), snapshot);
        futures::future::ready(Ok(())).boxed()
    }

    fn forget(&self, stream: &str, up_to: u64) -> BoxFuture<'static, Result<(), JournalError>> {
        let mut m = self.0.lock();
        let covered = m.snapshots.get(stream).map_or(0, |s| s.version).min(up_to);
        m.entries.retain(|e| e.stream != stream || e.version > covered);
        futures::future::ready(Ok(())).boxed()
    }

    fn forget_old(
        &self,
        stream: &str,
        before: DateTime<Utc>,
        most: u32,
    ) -> BoxFuture<'static, Result<u64, JournalError>> {
        let mut m = self.0.lock();
        let covered = m.snapshots.get(stream).map_or(0, |s| s.version);
        let mut left = most;
        m.entries.retain(|e| {
            let goes = left > 0 && e.stream == stream && e.version <= covered && e.at < before;
            left -= u32::from(goes);
            !goes
        });
        futures::future::ready(Ok(u64::from(most - left))).boxed()
    }

    fn browse(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        let m = self.0.lock();
        let found =
            m.entries.iter().rev().filter(|e| filter.accepts(e)).take(filter.limit).cloned().collect();
        futures::future::ready(Ok(found)).boxed()
    }
}
