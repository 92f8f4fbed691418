//! Time as an input: the wall clock, or a replay's virtual one.

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

    pub fn is_virtual(&self) -> bool {
        matches!(self, Self::Virtual { .. })
    }
}
