//! The journal's place in the tree.

use std::{path::PathBuf, sync::atomic::Ordering::Relaxed, time::Duration};

use kit::{
    Actor, Address, ChildSpec, Cx, ExitReason, Placement,
    alarm::{Condition, Severity},
};
use strum::IntoStaticStr;

use crate::SqliteJournal;

/// Watches the journal's writer, and ends when that has ended: whoever depends on the journal is restarted with it.
pub struct JournalActor {
    journal: SqliteJournal,
    /// Appends that were refused before the last look.
    refused: u64,
}

/// Classes of alarms.
const MOVED: &str = "store::journal::moved";
const GROWS: &str = "store::journal::grows";
const REFUSES: &str = "store::journal::refuses";
/// A write-ahead log of this size is not being emptied: something reads the journal for long.
const LARGE: u64 = 256 << 20;
/// How long refused appends are an alarm.
const REFUSED: Duration = Duration::from_secs(60);

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
            Ok(JournalActor { journal, refused: 0 })
        }
    })
    // Its looks at the file wait for the disk.
    .place(Placement::Apart("files"))
}

impl JournalActor {
    fn size(&self, suffix: &str) -> u64 {
        let mut path = self.journal.path().as_os_str().to_owned();
        path.push(suffix);
        std::fs::metadata(PathBuf::from(path)).map_or(0, |m| m.len())
    }

    /// A journal that was moved away takes nothing more: what it answered with ok would be gone at the next start.
    fn look(&mut self, cx: &Cx<'_, Self>) {
        let (alarms, name) = (cx.node().alarms(), cx.address().as_str());
        match self.journal.in_place() {
            true => alarms.clear(MOVED, None, name),
            false => {
                let cause = format!(
                    "{} is no longer where it was: changes are refused until it is back",
                    self.journal.path().display()
                );
                alarms.raise(Condition::new(MOVED, Severity::Critical, name).cause(cause));
            }
        }
        let stats = self.journal.stats();
        if stats.quiet {
            return;
        }
        metrics::gauge!("hypha_journal_waiting").set(self.journal.waiting() as f64);
        let (refused, log) = (stats.refused.load(Relaxed), self.size("-wal"));
        if refused > self.refused {
            let cause = format!("{} appends were refused; is the disk full?", refused - self.refused);
            alarms.raise(Condition::new(REFUSES, Severity::Critical, name).cause(cause).lasting(REFUSED));
        }
        self.refused = refused;
        metrics::gauge!("hypha_journal_bytes").set(self.size("") as f64);
        metrics::gauge!("hypha_journal_log_bytes").set(log as f64);
        match log > LARGE {
            true => {
                let cause = format!("its write-ahead log has {} MB: something reads it for long", log >> 20);
                alarms.raise(Condition::new(GROWS, Severity::Minor, name).cause(cause));
            }
            false => alarms.clear(GROWS, None, name),
        }
    }
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
        self.look(cx);
        cx.after(EVERY, JournalMsg::Look);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let stats = self.journal.stats();
        if stats.quiet {
            return kit::MARK.into();
        }
        serde_json::json!({
            "path": self.journal.path(),
            "bytes": self.size(""),
            "wal_bytes": self.size("-wal"),
            "waiting": self.journal.waiting(),
            "events": stats.events.load(Relaxed),
            "commits": stats.commits.load(Relaxed),
            "refused": stats.refused.load(Relaxed),
        })
    }
}
