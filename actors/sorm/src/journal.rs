//! A journal whose events and snapshots are sealed: who reads the disk, or browses the journal, sees that something was
//! kept, when and by whom, and nothing else.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use kit::{
    Sealed, Secret, Vault,
    journal::{Batch, Entry, Filter, Journal, JournalError, NewEvent, Snapshot},
};
use serde_json::Value;

/// What every event is called outside.
const KIND: &str = "Sealed";

/// Seals what goes into a journal under a key of its own.
pub struct SealedJournal {
    inner: Arc<dyn Journal>,
    vault: Arc<dyn Vault>,
}

impl SealedJournal {
    pub fn new(inner: Arc<dyn Journal>, vault: Arc<dyn Vault>) -> Self {
        Self { inner, vault }
    }
}

fn seal(vault: &dyn Vault, stream: &str, json: String) -> Result<Value, JournalError> {
    let sealed = vault.seal(stream, &Secret::new(json));
    sealed.map(|s| Value::String(s.0)).map_err(|e| JournalError::Other(e.to_string()))
}

fn open(vault: &dyn Vault, stream: &str, version: u64, value: Value) -> Result<Value, JournalError> {
    let corrupt = |why: String| JournalError::Corrupt { stream: stream.to_owned(), version, why };
    let Value::String(text) = value else { return Err(corrupt("it is not sealed".into())) };
    let plain = vault.open(stream, &Sealed(text)).map_err(|e| corrupt(e.to_string()))?;
    // What the error would quote is secret.
    serde_json::from_str(plain.expose()).map_err(|_| corrupt("it is no event".into()))
}

impl Journal for SealedJournal {
    fn append(&self, mut batch: Batch) -> BoxFuture<'static, Result<u64, JournalError>> {
        for event in &mut batch.events {
            match seal(&*self.vault, &batch.stream, std::mem::take(&mut event.body)) {
                Ok(body) => *event = NewEvent { kind: KIND.into(), body: body.to_string() },
                Err(e) => return futures::future::ready(Err(e)).boxed(),
            }
        }
        self.inner.append(batch)
    }

    fn read(&self, stream: &str, after: u64) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        let (read, vault, stream) = (self.inner.read(stream, after), self.vault.clone(), stream.to_owned());
        async move {
            let entries = read.await?.into_iter();
            let opened = entries.map(|e| Ok(Entry { body: open(&*vault, &stream, e.version, e.body)?, ..e }));
            opened.collect()
        }
        .boxed()
    }

    fn snapshot(&self, stream: &str) -> BoxFuture<'static, Result<Option<Snapshot>, JournalError>> {
        let (read, vault, stream) = (self.inner.snapshot(stream), self.vault.clone(), stream.to_owned());
        async move {
            let Some(Snapshot { version, state }) = read.await? else { return Ok(None) };
            Ok(Some(Snapshot { version, state: open(&*vault, &stream, version, state)? }))
        }
        .boxed()
    }

    fn save_snapshot(
        &self,
        stream: &str,
        snapshot: Snapshot,
    ) -> BoxFuture<'static, Result<(), JournalError>> {
        match seal(&*self.vault, stream, snapshot.state.to_string()) {
            Ok(state) => self.inner.save_snapshot(stream, Snapshot { version: snapshot.version, state }),
            Err(e) => futures::future::ready(Err(e)).boxed(),
        }
    }

    fn forget(&self, stream: &str, up_to: u64) -> BoxFuture<'static, Result<(), JournalError>> {
        self.inner.forget(stream, up_to)
    }

    fn quotes(&self) -> bool {
        false
    }

    /// Shows what anybody may see: entries as they are kept.
    fn browse(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Entry>, JournalError>> {
        self.inner.browse(filter)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use futures::executor::block_on;
    use kit::journal::{MemoryJournal, Origin};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_seen_by_nobody() {
        let inner: Arc<dyn Journal> = Arc::new(MemoryJournal::default());
        let journal = SealedJournal::new(inner.clone(), Arc::new(store::KeyFile::ephemeral()));
        let body = json!({ "number": "73832710001" });
        let batch = Batch {
            stream: "s".into(),
            expected: 0,
            at: DateTime::UNIX_EPOCH,
            origin: Origin::system(),
            events: vec![NewEvent { kind: "ObjectPut".into(), body: body.to_string() }],
        };
        assert_eq!(block_on(journal.append(batch)).expect("kept"), 1);
        block_on(journal.save_snapshot("s", Snapshot { version: 1, state: body.clone() })).expect("kept");
        assert_eq!(block_on(journal.read("s", 0)).expect("read")[0].body, body);
        assert_eq!(block_on(journal.snapshot("s")).expect("read").map(|s| s.state), Some(body));
        let raw = format!("{:?} {:?}", block_on(inner.read("s", 0)), block_on(inner.snapshot("s")));
        assert!(!raw.contains("7383271") && !raw.contains("ObjectPut"), "{raw}");
        // A body that does not fit is not quoted either.
        let state = json!({ "settings": "73832710001" });
        block_on(journal.save_snapshot("t", Snapshot { version: 1, state })).expect("kept");
        let sealed: Arc<dyn Journal> = Arc::new(journal);
        let wrong =
            block_on(kit::journal::restore::<crate::station::Station>(&sealed, "t")).expect_err("none");
        assert!(!wrong.to_string().contains("7383271"), "{wrong}");
        let other = SealedJournal::new(inner, Arc::new(store::KeyFile::ephemeral()));
        assert!(matches!(block_on(other.read("s", 0)), Err(JournalError::Corrupt { .. })));
    }
}
