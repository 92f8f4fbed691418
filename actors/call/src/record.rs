//! Call detail records (CDR), and the stream they are kept in.

use chrono::{DateTime, Utc};
use domain::routing::route::Stretch;
use imbl::OrdMap;
use kit::journal::Fold;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::Cause;

/// One attempt to connect two parties, whether or not it was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cdr {
    /// The call's name, `domain/voip.local/call/8f3c`, and the number of the attempt in it.
    pub call: String,
    pub attempt: u32,
    /// The call as each domain on its way saw it, the caller's first.
    pub sides: Vec<Side>,
    /// The alias whose group of records this belongs to.
    pub group: String,
    pub setup: DateTime<Utc>,
    pub answered: Option<DateTime<Utc>>,
    pub ended: Option<DateTime<Utc>>,
    pub cause: Option<Cause>,
    /// Who ended it: `a`, `b` or `system`.
    pub released_by: String,
    /// Number the call was diverted by, if it was.
    pub diverted: Option<String>,
    /// `call`, `transfer`, `forward`, `pickup`, `conference`.
    pub service: String,
    pub user_agent: String,
}

/// What one domain saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    pub domain: String,
    /// Interface or trunk it came by and went by.
    pub from: String,
    pub to: String,
    /// Numbers as they entered the domain.
    pub a: String,
    pub b: String,
}

impl Cdr {
    /// Seconds of conversation, begun ones counted whole.
    pub fn seconds(&self) -> i64 {
        match (self.answered, self.ended) {
            (Some(from), Some(to)) => {
                (to - from).num_milliseconds().max(0).div_euclid(1000)
                    + i64::from((to - from).num_milliseconds() % 1000 > 0)
            }
            _ => 0,
        }
    }
}

/// The sides of a routed call.
pub fn sides(stretches: &[Stretch]) -> Vec<Side> {
    let side = |s: &Stretch| Side {
        domain: s.domain.clone(),
        from: s.from.clone(),
        to: s.to.clone(),
        a: s.calling.clone(),
        b: s.called.clone(),
    };
    stretches.iter().map(side).collect()
}

/// Events of the stream `call/records`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, IntoStaticStr)]
pub enum RecordEvent {
    /// Kept before the caller hears of it, so that a node that dies still bills.
    #[strum(serialize = "CallAnswered")]
    Answered { cdr: Box<Cdr> },
    #[strum(serialize = "CallEnded")]
    Ended { cdr: Box<Cdr>, ladder: String },
}

/// Calls that were answered and have not ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenCalls(pub OrdMap<String, Cdr>);

pub(crate) fn key(cdr: &Cdr) -> String {
    format!("{} {}", cdr.call, cdr.attempt)
}

impl Fold for OpenCalls {
    type Event = RecordEvent;

    fn apply(&mut self, event: &RecordEvent) {
        match event {
            RecordEvent::Answered { cdr } => drop(self.0.insert(key(cdr), (**cdr).clone())),
            RecordEvent::Ended { cdr, .. } => drop(self.0.remove(&key(cdr))),
        }
    }
}
