//! The message ladder of a call: what its legs and actors said to each other, in order.

use std::{
    fmt::{Display, Write},
    sync::Arc,
};

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

/// A call's ladder; clones share it. It is one text with a line for each arrow, as the journal keeps it: most ladders are
/// never looked at, so they cost little.
#[derive(Debug, Clone, Default)]
pub struct Ladder(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    text: String,
    lines: usize,
}

impl Ladder {
    pub fn add(&self, at: DateTime<Utc>, from: impl Display, to: impl Display, text: impl Display) {
        let mut kept = self.0.lock();
        if kept.lines >= LINES {
            // The middle goes.
            let middle = kept.text.match_indices('\n').nth(LINES / 2).map(|(at, _)| at + 1);
            let after = middle.and_then(|m| kept.text[m..].find('\n').map(|end| (m, m + end + 1)));
            if let Some((from, to)) = after {
                kept.text.replace_range(from..to, "");
                kept.lines -= 1;
            }
        }
        // Writing to memory does not fail.
        let start = kept.text.len();
        let _ = write!(kept.text, "{}\t{from}\t{to}\t", at.timestamp_millis());
        let body = kept.text.len();
        let _ = write!(kept.text, "{text}");
        if kept.text[body..].contains(['\n', '\t']) {
            let clean = kept.text[body..].replace(['\n', '\t'], " ");
            kept.text.replace_range(body.., &clean);
        }
        debug_assert!(kept.text.len() > start, "a line was added");
        kept.text.push('\n');
        kept.lines += 1;
    }

    /// All lines as one text, as the journal keeps them.
    pub fn written(&self) -> String {
        self.0.lock().text.clone()
    }

    /// Reads what [`Ladder::written`] wrote.
    pub fn read(text: &str) -> Vec<Line> {
        let line = |l: &str| {
            let mut parts = l.splitn(4, '\t');
            let at = DateTime::from_timestamp_millis(parts.next()?.parse().ok()?)?;
            let mut next = || Some(parts.next()?.to_owned());
            Some(Line { at, from: next()?, to: next()?, text: next()? })
        };
        text.lines().filter_map(line).collect()
    }

    pub fn lines(&self) -> Vec<Line> {
        Self::read(&self.0.lock().text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_the_ends_are_kept() {
        let ladder = Ladder::default();
        for n in 0..LINES + 50 {
            ladder.add(DateTime::UNIX_EPOCH, "a", format!("b {n}"), "INVITE\tx");
        }
        let lines = Ladder::read(&ladder.written());
        assert_eq!(lines.len(), LINES);
        assert_eq!((lines[0].to.as_str(), lines[0].text.as_str()), ("b 0", "INVITE x"));
        assert_eq!(lines[LINES - 1].to, format!("b {}", LINES + 49));
    }
}
