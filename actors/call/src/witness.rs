//! What is told of calls to whoever the law lets see them. A call tells the same whether or not anybody is interested, waits
//! for no answer and learns of none.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::routing::route::Stretch;
use kit::Address;

use crate::{Cause, LegId, service::Service};

/// Sees every phase of every attempt to connect two parties.
pub trait Witness: Send + Sync {
    /// Whether calls of this domain are to be told of.
    fn watches(&self, domain: &str) -> bool;

    /// Must return at once.
    fn see(&self, seen: Seen);

    /// A text that one subscriber has written to another; must return at once.
    fn read(&self, written: Written);
}

/// Nobody looks.
pub struct Nobody;

impl Witness for Nobody {
    fn watches(&self, _: &str) -> bool {
        false
    }

    fn see(&self, _: Seen) {}

    fn read(&self, _: Written) {}
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The full called number is known; again when the call is diverted, and when somebody takes a party's place.
    Routed,
    Answered,
    Released {
        cause: Cause,
        answered: bool,
    },
    /// A supplementary service is used.
    Service(Service),
}

/// Who takes part in an attempt, as far as numbers tell. `Debug` shows no numbers.
#[derive(Clone)]
pub struct Trail {
    /// The party that is being connected; it is heard apart from all others.
    pub leg: LegId,
    /// The attempt's way through domains; each diversion adds its own.
    pub way: Arc<Vec<Stretch>>,
    /// Domain and number of those who came in other ways: transferred, or picked the call up.
    pub joined: Vec<(String, String)>,
}

impl std::fmt::Debug for Trail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} over {} domains", self.leg, self.way.len())
    }
}

impl Trail {
    pub(crate) fn new(leg: LegId) -> Self {
        Self { leg, way: Arc::default(), joined: Vec::new() }
    }

    pub(crate) fn extend(&mut self, stretches: Vec<Stretch>) {
        Arc::make_mut(&mut self.way).extend(stretches);
    }

    /// The call leaves its last domain by another trunk of the group.
    pub(crate) fn leaves_by(&mut self, domain: &str, trunk: &str) {
        let other = |s: &Stretch| s.domain == domain && s.to != trunk;
        if self.way.last().is_some_and(other)
            && let Some(last) = Arc::make_mut(&mut self.way).last_mut()
        {
            trunk.clone_into(&mut last.to);
        }
    }

    /// Domains that take part.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.way
            .iter()
            .map(|s| s.domain.as_str())
            .chain(self.joined.iter().map(|(domain, _)| domain.as_str()))
    }
}

/// A text (MESSAGE), when it is known what came of it. `Debug` shows neither numbers nor content.
#[derive(Clone)]
pub struct Written {
    pub at: DateTime<Utc>,
    pub way: Arc<Vec<Stretch>>,
    pub content: Bytes,
    /// Whether the receiver has taken it.
    pub delivered: bool,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a text over {} domains", self.way.len())
    }
}

/// One phase of an attempt.
#[derive(Debug, Clone)]
pub struct Seen {
    pub call: Address,
    /// Number of the attempt in the call.
    pub attempt: u32,
    pub at: DateTime<Utc>,
    pub phase: Phase,
    pub trail: Trail,
}
