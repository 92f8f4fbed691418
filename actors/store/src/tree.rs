//! The journal's place in the tree.

use std::{path::PathBuf, sync::atomic::Ordering::Relaxed, time::Duration};

use kit::{Actor, Address, ChildSpec, Cx, ExitReason};
use strum::IntoStaticStr;

use crate::SqliteJournal;

/// Watches the journal's writer, and ends when that has ended: whoever depends on the journal is restarted with it.
pub struct JournalActor {
    journal: SqliteJournal,
}

#[derive(Debug, IntoStaticStr)]
pub enum JournalMsg {
    Look,
}

const EVERY: Duration = Duration::from_secs(1);

/// The journal's watcher as a child of the node's root.
pub fn child(address: Address, journal: SqliteJournal) -> ChildSpec {
    ChildSpec::worker(address, move |_| {
        let journal = journal.clone();
        async move {
            if !journal.is_alive() {
                tracing::warn!("the journal is opened again");
                journal.reopen().map_err(ExitReason::error)?;
            }
            Ok(JournalActor { journal })
        }
    })
}

impl Actor for JournalActor {
    type Msg = JournalMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.handle(JournalMsg::Look, cx)
    }

    fn handle(&mut self, JournalMsg::Look: JournalMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        if !self.journal.is_alive() {
            return Err(ExitReason::Error("the journal's writer has ended".into()));
        }
        if !self.journal.stats().quiet {
            metrics::gauge!("hypha_journal_waiting").set(self.journal.waiting() as f64);
        }
        cx.after(EVERY, JournalMsg::Look);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let stats = self.journal.stats();
        if stats.quiet {
            return kit::MARK.into();
        }
        let size = |suffix: &str| {
            let mut path = self.journal.path().as_os_str().to_owned();
            path.push(suffix);
            std::fs::metadata(PathBuf::from(path)).map_or(0, |m| m.len())
        };
        serde_json::json!({
            "path": self.journal.path(),
            "bytes": size(""),
            "wal_bytes": size("-wal"),
            "waiting": self.journal.waiting(),
            "events": stats.events.load(Relaxed),
            "commits": stats.commits.load(Relaxed),
            "refused": stats.refused.load(Relaxed),
        })
    }
}
