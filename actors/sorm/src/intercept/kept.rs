//! What is kept of interceptions: calls of objects that go on, and notifications that are yet to be delivered.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use kit::journal::Fold;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::protocol::{Attribute, Category, Pair, Party, Priority, Selection};

/// A call of an object, until its release has been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Number of the call at the control point.
    pub number: u16,
    pub key: Key,
    pub kind: u8,
    pub category: Category,
    pub priority: Priority,
    /// The group its channels are of.
    pub group: Option<u8>,
    pub selection: Selection,
    pub attribute: Attribute,
    pub calling: Party,
    pub called: Party,
    pub trunk: Option<u16>,
    pub answered: bool,
    /// The party that is heard apart.
    pub leg: u64,
    pub channels: Pair,
    /// The tap that feeds the channels.
    pub tap: Option<u64>,
}

/// The call's name, the attempt in it, and the object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub call: String,
    pub attempt: u32,
    pub object: u16,
}

/// What RADIUS accounting makes of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Start = 1,
    Stop = 2,
    Interim = 3,
}

/// One message to the mediator; its number orders it, and tells one that came twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub sequence: u64,
    pub at: DateTime<Utc>,
    pub status: Status,
    pub session: String,
    pub calling: Party,
    pub called: Party,
    /// The message of the second data channel, or of the first.
    pub unit: Vec<u8>,
}

/// What is kept, and folded from the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub open: Vec<Open>,
    pub queue: BTreeMap<u64, Notice>,
    pub sequence: u64,
    pub next_call: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, IntoStaticStr)]
pub enum InterceptEvent {
    Opened(Box<Open>),
    Answered(Key),
    Connected { key: Key, group: u8, channels: Pair, tap: u64 },
    Freed(Key),
    Closed(Key),
    Noted(Box<Notice>),
    Delivered(u64),
}

impl Kept {
    fn at(&mut self, key: &Key) -> Option<&mut Open> {
        self.open.iter_mut().find(|o| o.key == *key)
    }
}

impl Fold for Kept {
    type Event = InterceptEvent;

    fn apply(&mut self, event: &InterceptEvent) {
        match event {
            InterceptEvent::Opened(open) => {
                if self.open.iter().all(|o| o.number != open.number) {
                    // 0xFFFF is no number.
                    self.next_call = (open.number + 1) % u16::MAX;
                }
                self.open.push((**open).clone());
            }
            InterceptEvent::Answered(key) => {
                if let Some(open) = self.at(key) {
                    open.answered = true;
                }
            }
            InterceptEvent::Connected { key, group, channels, tap } => {
                if let Some(open) = self.at(key) {
                    (open.group, open.channels, open.tap) = (Some(*group), *channels, Some(*tap));
                }
            }
            InterceptEvent::Freed(key) => {
                if let Some(open) = self.at(key) {
                    (open.channels, open.tap) = (Pair::default(), None);
                }
            }
            InterceptEvent::Closed(key) => self.open.retain(|o| o.key != *key),
            InterceptEvent::Noted(notice) => {
                self.sequence = notice.sequence;
                self.queue.insert(notice.sequence, (**notice).clone());
            }
            InterceptEvent::Delivered(sequence) => drop(self.queue.remove(sequence)),
        }
    }
}
