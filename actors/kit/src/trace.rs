//! Watching messages: who told what to whom. Costs one relaxed load per message while nobody watches.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::{Address, Cell};

static WATCHERS: AtomicU32 = AtomicU32::new(0);

/// Whether any trace of this process is being watched.
pub(crate) fn anyone_watches() -> bool {
    WATCHERS.load(Relaxed) != 0
}

/// One message taken by an actor.
#[derive(Debug, Clone, Serialize)]
pub struct Traced {
    pub at: DateTime<Utc>,
    pub from: Option<Address>,
    pub to: Address,
    pub label: &'static str,
    pub text: String,
}

/// Longest message text published, bytes.
const TEXT_LIMIT: usize = 2000;

/// The messages of traced actors, or of all.
pub struct Trace {
    sender: broadcast::Sender<Traced>,
    everything: std::sync::atomic::AtomicBool,
    recorder: Mutex<Option<Vec<Traced>>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(1024).0,
            everything: std::sync::atomic::AtomicBool::new(false),
            recorder: Mutex::new(None),
        }
    }
}

/// Follows the trace until dropped.
pub struct Watch {
    pub messages: broadcast::Receiver<Traced>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHERS.fetch_sub(1, Relaxed);
    }
}

impl Trace {
    pub fn watch(&self) -> Watch {
        WATCHERS.fetch_add(1, Relaxed);
        Watch { messages: self.sender.subscribe() }
    }

    /// Keeps every message of every actor from now on; for replays, whose runs are short.
    pub fn record_everything(&self) {
        WATCHERS.fetch_add(1, Relaxed);
        self.everything.store(true, Relaxed);
        *self.recorder.lock() = Some(Vec::new());
    }

    /// What was recorded so far; the record goes on empty.
    pub fn take_record(&self) -> Vec<Traced> {
        self.recorder.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn publish(&self, cell: &Cell, make: impl FnOnce() -> Traced) {
        if !cell.is_traced() && !self.everything.load(Relaxed) {
            return;
        }
        let mut traced = make();
        if traced.text.len() > TEXT_LIMIT {
            let cut = (0..=TEXT_LIMIT).rev().find(|i| traced.text.is_char_boundary(*i)).unwrap_or(0);
            traced.text.truncate(cut);
            traced.text.push('…');
        }
        if let Some(record) = self.recorder.lock().as_mut() {
            record.push(traced.clone());
        }
        let _ = self.sender.send(traced);
    }
}
