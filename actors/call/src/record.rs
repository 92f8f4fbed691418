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
    /// The side that ended it: `a`, `b`, `transfer`, `system`, or `outage` of the node, whose time is not billed.
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
    /// Kept before the party's BYE is answered. Its ladder is in [`RecordEvent::Traced`], or here in older journals.
    #[strum(serialize = "CallEnded")]
    Ended {
        cdr: Box<Cdr>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        ladder: String,
    },
    /// The ladder of a call that is over, with its last messages.
    #[strum(serialize = "CallTraced")]
    Traced { call: String, ladder: String },
    /// The node lives, and calls are under way: those that it loses in a crash end here, not when it starts again.
    #[strum(serialize = "CallsAlive")]
    Alive { at: DateTime<Utc> },
}

/// Calls that were answered and have not ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "KeptCalls")]
pub struct OpenCalls {
    pub calls: OrdMap<String, Cdr>,
    /// The last moment that an event has told of: the node lived then.
    pub alive: Option<DateTime<Utc>>,
}

/// [`OpenCalls`] as snapshots hold them, also those of before there was a sign of life.
#[derive(Deserialize)]
#[serde(untagged)]
enum KeptCalls {
    Now { calls: OrdMap<String, Cdr>, alive: Option<DateTime<Utc>> },
    Before(OrdMap<String, Cdr>),
}

impl From<KeptCalls> for OpenCalls {
    fn from(kept: KeptCalls) -> Self {
        match kept {
            KeptCalls::Now { calls, alive } => Self { calls, alive },
            KeptCalls::Before(calls) => Self { calls, alive: None },
        }
    }
}

pub(crate) fn key(cdr: &Cdr) -> String {
    format!("{} {}", cdr.call, cdr.attempt)
}

impl Fold for OpenCalls {
    type Event = RecordEvent;

    fn apply(&mut self, event: &RecordEvent) {
        let at = match event {
            RecordEvent::Answered { cdr } => {
                self.calls.insert(key(cdr), (**cdr).clone());
                cdr.answered
            }
            RecordEvent::Ended { cdr, .. } => {
                self.calls.remove(&key(cdr));
                cdr.ended
            }
            RecordEvent::Alive { at } => Some(*at),
            RecordEvent::Traced { .. } => None,
        };
        self.alive = self.alive.max(at);
    }
}
