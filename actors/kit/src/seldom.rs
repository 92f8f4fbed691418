//! A limit on lines of the log that a stranger can cause.

use std::time::{Duration, Instant};

/// Lets so many lines through in a second and counts the rest.
///
/// ```
/// let mut lines = kit::Seldom::new(1);
/// let now = std::time::Instant::now();
/// assert_eq!((lines.allow(now), lines.allow(now)), (Some(0), None));
/// let later = now + std::time::Duration::from_secs(1);
/// assert_eq!(lines.allow(later), Some(1), "one was withheld");
/// ```
#[derive(Debug)]
pub struct Seldom {
    per_second: u32,
    second: Option<Instant>,
    let_through: u32,
    withheld: u64,
}

impl Seldom {
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, second: None, let_through: 0, withheld: 0 }
    }

    /// Whether a line may be written now; if so, how many were withheld since the last one.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.second.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            (self.second, self.let_through) = (Some(now), 0);
        }
        if self.let_through >= self.per_second {
            self.withheld += 1;
            return None;
        }
        self.let_through += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}
