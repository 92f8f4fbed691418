//! Calls in progress as anybody may read them, and the places they hold. What is held is given back when its holder is
//! dropped, also when a call's actor crashes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use chrono::{DateTime, Utc};
use dashmap::DashMap;
use kit::Address;
use parking_lot::Mutex;
use serde::Serialize;

use crate::{Ladder, LegId, core::Call, media::Quality, witness::Seen};

/// A call as the board shows it.
#[derive(Debug, Clone, Serialize)]
pub struct CallView {
    pub call: String,
    /// The domains that take part, the caller's first.
    pub domains: Vec<String>,
    pub a: String,
    /// The calling number is withheld (CLIR): operators see it, other subscribers do not.
    pub restricted: bool,
    pub b: String,
    /// `routing`, `ringing`, `talking`, `held`, `conference`
    pub state: &'static str,
    pub since: DateTime<Utc>,
    pub answered: Option<DateTime<Utc>>,
    pub legs: Vec<LegView>,
    pub bridges: Vec<String>,
    /// The file it is recorded into.
    pub recording: Option<String>,
    /// The manager's number, of a meeting.
    pub meeting: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct LegView {
    pub leg: LegId,
    pub domain: String,
    /// Interface or trunk.
    pub iface: String,
    pub number: String,
    pub state: &'static str,
    pub holds: bool,
    pub quality: Option<Quality>,
    /// In a meeting: it has not been given the word; it asks for it.
    pub muted: bool,
    pub hand: bool,
}

/// Wrong passwords of a meeting before nobody may join it for a while.
const GUESSES: u32 = 5;
const FORGET: chrono::TimeDelta = chrono::TimeDelta::minutes(1);

/// Clones share it.
#[derive(Clone, Default)]
pub struct Board(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: DashMap<Address, (Arc<Mutex<Call>>, Ladder)>,
    /// Ladders of calls that are over and wait for their last messages.
    ending: DashMap<Address, Ladder>,
    lines: DashMap<String, Arc<AtomicU32>>,
    legs: AtomicU64,
    meetings: DashMap<String, Address>,
    /// Wrong passwords of meetings, and when the last one was.
    guesses: DashMap<String, (u32, DateTime<Utc>)>,
    /// No new calls are taken.
    draining: AtomicBool,
}

impl Board {
    pub fn next_leg(&self) -> LegId {
        LegId(self.0.legs.fetch_add(1, Relaxed) + 1)
    }

    /// Shows a call from now on; what is shown is looked up when somebody asks.
    pub(crate) fn show(&self, name: &Address, call: &Arc<Mutex<Call>>, ladder: &Ladder) {
        self.0.calls.insert(name.clone(), (call.clone(), ladder.clone()));
    }

    /// Asks every call; never from inside one.
    fn views(&self) -> impl Iterator<Item = (Address, CallView)> {
        self.0.calls.iter().map(|e| (e.key().clone(), e.value().0.lock().view()))
    }

    /// A call is over; its ladder is shown until its actor has gone.
    pub(crate) fn over(&self, call: &Address) {
        if let Some((name, (_, ladder))) = self.0.calls.remove(call) {
            self.0.ending.insert(name, ladder);
        }
    }

    pub fn remove(&self, call: &Address) {
        self.0.calls.remove(call);
        self.0.ending.remove(call);
    }

    /// Takes no new calls, or takes them again; the answer is what held before.
    pub fn drain(&self, on: bool) -> bool {
        self.0.draining.swap(on, Relaxed)
    }

    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Relaxed)
    }

    /// Calls under way.
    pub fn count(&self) -> usize {
        self.0.calls.len()
    }

    pub fn all(&self) -> Vec<CallView> {
        self.views().map(|(_, v)| v).collect()
    }

    /// Calls a domain takes part in, the oldest first.
    pub fn of_domain(&self, domain: &str) -> Vec<CallView> {
        let mut all: Vec<CallView> =
            self.views().map(|(_, v)| v).filter(|v| v.domains.iter().any(|d| d == domain)).collect();
        all.sort_by(|x, y| (x.since, &x.call).cmp(&(y.since, &y.call)));
        all
    }

    /// A call that rings at this interface, the oldest first: for pickup.
    pub fn ringing_at(&self, iface: &str) -> Option<Address> {
        let rings = |v: &CallView| {
            v.state == "ringing" && v.legs.iter().any(|l| l.iface == iface && l.state == "ringing")
        };
        let found = self.views().filter(|(_, v)| rings(v));
        let mut all: Vec<(DateTime<Utc>, Address)> = found.map(|(call, v)| (v.since, call)).collect();
        all.sort();
        all.into_iter().next().map(|(_, call)| call)
    }

    /// The meeting that a manager has opened.
    pub fn meeting(&self, domain: &str, manager: &str) -> Option<Address> {
        self.0.meetings.get(&format!("{domain} {manager}")).map(|e| e.value().clone())
    }

    /// Opens a manager's meeting, unless it is open; it is so until what this gives is dropped.
    pub(crate) fn open(&self, domain: &str, manager: &str, call: &Address) -> Option<Meeting> {
        match self.0.meetings.entry(format!("{domain} {manager}")) {
            dashmap::Entry::Occupied(_) => None,
            dashmap::Entry::Vacant(free) => {
                free.insert(call.clone());
                let (domain, manager) = (domain.to_owned(), manager.to_owned());
                Some(Meeting { board: self.clone(), domain, manager })
            }
        }
    }

    /// Notes a wrong password for a meeting; whether there have been too many of late.
    pub(crate) fn guessed(&self, domain: &str, manager: &str, wrong: bool, now: DateTime<Utc>) -> bool {
        let mut entry = self.0.guesses.entry(format!("{domain} {manager}")).or_insert((0, now));
        if now - entry.1 >= FORGET {
            *entry = (0, now);
        }
        if wrong {
            *entry = (entry.0.saturating_add(1), now);
        }
        entry.0 >= GUESSES
    }

    /// The call a leg belongs to.
    pub fn call_of(&self, leg: LegId) -> Option<Address> {
        self.0.calls.iter().find(|e| e.value().0.lock().has(leg)).map(|e| e.key().clone())
    }

    /// What a witness that comes only now has missed in a domain.
    pub fn under_way(&self, domain: &str, now: DateTime<Utc>) -> Vec<Seen> {
        let calls = self.0.calls.iter();
        let seen = calls.flat_map(|e| e.value().0.lock().under_way(now));
        seen.filter(|s| s.trail.domains().any(|d| d == domain)).collect()
    }

    /// Every call's name.
    pub fn names(&self) -> Vec<Address> {
        self.0.calls.iter().map(|e| e.key().clone()).collect()
    }

    /// Every tap on a call.
    pub fn taps(&self) -> Vec<(Address, u64)> {
        let calls = self.0.calls.iter();
        calls
            .flat_map(|e| e.value().0.lock().taps().map(|tap| (e.key().clone(), tap)).collect::<Vec<_>>())
            .collect()
    }

    pub fn ladder(&self, call: &Address) -> Option<Ladder> {
        let known = self.0.calls.get(call).map(|e| e.value().1.clone());
        known.or_else(|| self.0.ending.get(call).map(|e| e.value().clone()))
    }

    /// Calls of an interface now.
    pub fn on_line(&self, domain: &str, iface: &str) -> u32 {
        self.0.lines.get(&format!("{domain} {iface}")).map_or(0, |c| c.load(Relaxed))
    }

    /// Takes a place on a line that may have so many calls.
    pub fn take_line(&self, domain: &str, iface: &str, limit: u32) -> Option<Held> {
        let count = self.0.lines.entry(format!("{domain} {iface}")).or_default().clone();
        Held::take(&count, limit)
    }
}

/// An open meeting; it closes when this is dropped.
pub(crate) struct Meeting {
    board: Board,
    pub domain: String,
    pub manager: String,
}

impl Drop for Meeting {
    fn drop(&mut self) {
        self.board.0.meetings.remove(&format!("{} {}", self.domain, self.manager));
    }
}

/// A place that is given back when this is dropped.
#[derive(Debug)]
pub struct Held(Arc<AtomicU32>);

impl Held {
    /// Takes one of `limit` places.
    pub fn take(count: &Arc<AtomicU32>, limit: u32) -> Option<Self> {
        count.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).ok()?;
        Some(Self(count.clone()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meeting_is_open_once_until_it_ends() {
        let (board, call) = (Board::default(), Address::new("domain/d/call/1").expect("a name"));
        let open = board.open("d", "100", &call);
        assert!(open.is_some() && board.open("d", "100", &call).is_none());
        assert_eq!(board.meeting("d", "100"), Some(call));
        drop(open);
        assert_eq!(board.meeting("d", "100"), None);
    }

    #[test]
    fn wrong_passwords_are_counted_for_a_while() {
        let (board, now) = (Board::default(), DateTime::UNIX_EPOCH);
        assert!((0..4).all(|_| !board.guessed("d", "100", true, now)));
        assert!(board.guessed("d", "100", true, now) && board.guessed("d", "100", false, now));
        assert!(!board.guessed("d", "100", false, now + FORGET) && !board.guessed("d", "101", false, now));
    }

    #[test]
    fn a_line_has_its_places_and_gets_them_back() {
        let board = Board::default();
        let one = board.take_line("d", "100@d", 1);
        assert!(one.is_some() && board.take_line("d", "100@d", 1).is_none());
        assert_eq!(board.on_line("d", "100@d"), 1);
        drop(one);
        assert!(board.take_line("d", "100@d", 1).is_some());
    }
}
