//! The message ladder of a call: what its legs and actors said to each other, in order.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Lines kept of one call; the first ones, since they tell how it came about, and the last ones.
const LINES: usize = 200;

/// One arrow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub at: DateTime<Utc>,
    pub from: String,
    pub to: String,
    /// `INVITE`, `180 Ringing`, `route 100 → 101`
    pub text: String,
}

/// A call's ladder; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ladder(Arc<Mutex<Vec<Line>>>);

impl Ladder {
    pub fn add(
        &self,
        at: DateTime<Utc>,
        from: impl Into<String>,
        to: impl Into<String>,
        text: impl Into<String>,
    ) {
        let mut lines = self.0.lock();
        if lines.len() >= LINES {
            // The middle goes.
            lines.remove(LINES / 2);
        }
        lines.push(Line { at, from: from.into(), to: to.into(), text: text.into() });
    }

    pub fn lines(&self) -> Vec<Line> {
        self.0.lock().clone()
    }

    pub fn take(&self) -> Vec<Line> {
        std::mem::take(&mut *self.0.lock())
    }
}
