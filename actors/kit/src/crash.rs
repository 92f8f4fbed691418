//! Crash reports: the newest in memory, all of them on disk.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{Address, ExitReason, Pid};

/// What is known of an actor that ended abnormally. The state is the actor's own inspection, so secrets are marks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CrashReport {
    pub id: u64,
    pub at: DateTime<Utc>,
    pub address: Address,
    pub pid: Pid,
    /// Rust type of the actor.
    pub actor: String,
    pub reason: ExitReason,
    /// Label of the message it was handling.
    pub during: Option<String>,
    /// Messages that were waiting and are lost; their askers have been told.
    pub mailbox: u32,
    pub handled: u64,
    pub restarts: u32,
    pub state: serde_json::Value,
}

/// Reports kept in memory.
const RING: usize = 256;
/// Size at which the file is set aside as `.1`; one older file is kept.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// The ring and its file (one JSON object a line).
pub struct CrashLog {
    inner: Mutex<Inner>,
    news: broadcast::Sender<CrashReport>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    ring: VecDeque<CrashReport>,
    path: Option<PathBuf>,
    file: Option<File>,
}

impl Default for CrashLog {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { next: 1, ..Inner::default() }), news: broadcast::channel(64).0 }
    }
}

impl CrashLog {
    /// Keeps reports in `path` too, and reads back the newest of an earlier run. A last line cut short by a power
    /// failure is passed over.
    pub fn with_file(path: &Path) -> io::Result<Self> {
        let log = Self::default();
        {
            let mut inner = log.inner.lock();
            if path.exists() {
                for line in BufReader::new(File::open(path)?).lines() {
                    if let Ok(report) = serde_json::from_str::<CrashReport>(&line?) {
                        inner.next = inner.next.max(report.id + 1);
                        inner.push(report);
                    }
                }
            }
            inner.path = Some(path.to_owned());
            inner.open()?;
        }
        Ok(log)
    }

    /// Takes a report, gives it its number and tells the log.
    pub fn record(&self, mut report: CrashReport) -> u64 {
        let mut inner = self.inner.lock();
        report.id = inner.next;
        inner.next += 1;
        tracing::error!(
            actor = %report.address, pid = report.pid, reason = %report.reason,
            during = report.during.as_deref().unwrap_or("-"), crash = report.id, "actor crashed"
        );
        if let Err(e) = inner.write(&report) {
            tracing::error!(error = %e, "cannot write crash report to disk");
        }
        let id = report.id;
        inner.push(report.clone());
        drop(inner);
        let _ = self.news.send(report);
        id
    }

    /// The newest first.
    pub fn newest(&self, limit: usize) -> Vec<CrashReport> {
        self.inner.lock().ring.iter().rev().take(limit).cloned().collect()
    }

    pub fn get(&self, id: u64) -> Option<CrashReport> {
        self.inner.lock().ring.iter().find(|r| r.id == id).cloned()
    }

    pub fn last_of(&self, address: &Address) -> Option<CrashReport> {
        self.inner.lock().ring.iter().rev().find(|r| &r.address == address).cloned()
    }

    pub fn news(&self) -> broadcast::Receiver<CrashReport> {
        self.news.subscribe()
    }
}

impl Inner {
    fn push(&mut self, report: CrashReport) {
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back(report);
    }

    fn open(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        Ok(())
    }

    fn write(&mut self, report: &CrashReport) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        file.write_all(&line)?;
        if file.metadata()?.len() > FILE_LIMIT {
            if let Some(path) = &self.path {
                std::fs::rename(path, path.with_extension("1"))?;
            }
            self.open()?;
        }
        Ok(())
    }
}
