//! The newest lines of the node's log, for whoever looks from inside. What writes them is the node's business.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct LogLine {
    /// Counts from 1 in each run of the node.
    pub seq: u64,
    pub at: DateTime<Utc>,
    /// ERROR, WARN, INFO, DEBUG or TRACE.
    pub level: &'static str,
    /// The module that wrote it.
    pub target: String,
    pub text: String,
}

/// Lines kept in memory.
const RING: usize = 1000;

/// See the module.
pub struct LogRing {
    inner: Mutex<(u64, VecDeque<LogLine>)>,
    news: broadcast::Sender<LogLine>,
}

impl Default for LogRing {
    fn default() -> Self {
        Self { inner: Mutex::default(), news: broadcast::channel(256).0 }
    }
}

impl LogRing {
    pub fn record(&self, at: DateTime<Utc>, level: &'static str, target: &str, text: String) {
        let mut inner = self.inner.lock();
        inner.0 += 1;
        let line = LogLine { seq: inner.0, at, level, target: target.to_owned(), text };
        if inner.1.len() == RING {
            inner.1.pop_front();
        }
        inner.1.push_back(line.clone());
        drop(inner);
        let _ = self.news.send(line);
    }

    /// The newest that are wanted, the newest first.
    pub fn newest(&self, limit: usize, wanted: impl Fn(&LogLine) -> bool) -> Vec<LogLine> {
        self.inner.lock().1.iter().rev().filter(|l| wanted(l)).take(limit).cloned().collect()
    }

    pub fn news(&self) -> broadcast::Receiver<LogLine> {
        self.news.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_stay() {
        let ring = LogRing::default();
        let mut news = ring.news();
        for i in 0..RING + 5 {
            let level = if i % 2 == 0 { "INFO" } else { "WARN" };
            ring.record(DateTime::UNIX_EPOCH, level, "test", format!("line {i}"));
        }
        let warned = ring.newest(2, |l| l.level == "WARN");
        assert_eq!(warned.iter().map(|l| l.text.as_str()).collect::<Vec<_>>(), ["line 1003", "line 1001"]);
        let all = ring.newest(usize::MAX, |_| true);
        assert_eq!((all.len(), all[0].seq, all[RING - 1].seq), (RING, 1005, 6));
        assert!(matches!(news.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    }
}
