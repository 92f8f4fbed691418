//! Time as an input: the wall clock, or a replay's virtual one.

use std::sync::OnceLock;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

/// Where an actor learns the time. In a replay tokio's clock is paused, so [`Clock::simulated`] moves only when every
/// actor waits, and two runs see the same times.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    System,
    Virtual { epoch: DateTime<Utc>, start: Instant },
}

impl Clock {
    /// A clock that starts at `epoch` and follows tokio's (paused) time.
    pub fn simulated(epoch: DateTime<Utc>) -> Self {
        Self::Virtual { epoch, start: Instant::now() }
    }

    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Virtual { epoch, start } => {
                *epoch + TimeDelta::from_std(start.elapsed()).unwrap_or(TimeDelta::MAX)
            }
        }
    }

    /// Time that goes on evenly, from the wall clock's at its first reading in this process: for what shall last so many seconds
    /// however the wall clock is set meanwhile.
    pub fn steady(&self) -> DateTime<Utc> {
        static FIRST: OnceLock<(DateTime<Utc>, std::time::Instant)> = OnceLock::new();
        match self {
            Self::System => {
                let (wall, then) = *FIRST.get_or_init(|| (Utc::now(), std::time::Instant::now()));
                wall + TimeDelta::from_std(then.elapsed()).unwrap_or(TimeDelta::MAX)
            }
            Self::Virtual { .. } => self.now(),
        }
    }

    pub fn is_virtual(&self) -> bool {
        matches!(self, Self::Virtual { .. })
    }
}
