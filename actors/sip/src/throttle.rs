//! How often one address may guess.

use std::{collections::HashMap, net::IpAddr};

use chrono::{DateTime, TimeDelta, Utc};

/// Failures of one address in [`WINDOW`] before it has to wait.
const TRIES: u32 = 20;
const WINDOW: TimeDelta = TimeDelta::seconds(60);
/// Addresses remembered.
const REMEMBERED: usize = 50_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: HashMap<IpAddr, (u32, DateTime<Utc>)>,
}

impl Throttle {
    pub fn may_try(&self, ip: IpAddr, now: DateTime<Utc>) -> bool {
        self.failures.get(&ip).is_none_or(|(count, since)| *count < TRIES || *since + WINDOW <= now)
    }

    pub fn failed(&mut self, ip: IpAddr, now: DateTime<Utc>) {
        if self.failures.len() >= REMEMBERED {
            self.failures.retain(|_, (_, since)| *since + WINDOW > now);
            if self.failures.len() >= REMEMBERED {
                self.failures.clear();
            }
        }
        let entry = self.failures.entry(ip).or_insert((0, now));
        if entry.1 + WINDOW <= now {
            *entry = (0, now);
        }
        entry.0 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_and_others_do_not() {
        let (mut t, now) = (Throttle::default(), DateTime::UNIX_EPOCH);
        let (bad, good) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        for _ in 0..TRIES {
            assert!(t.may_try(bad, now));
            t.failed(bad, now);
        }
        assert!(!t.may_try(bad, now) && t.may_try(good, now));
        assert!(t.may_try(bad, now + WINDOW));
        t.failed(bad, now + WINDOW);
        assert!(t.may_try(bad, now + WINDOW), "a new count");
    }
}
