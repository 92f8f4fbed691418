//! Two persons: a change of passwords, keys or mediators waits until somebody else approves it. What waits is in memory; a
//! restart forgets it, and it is proposed anew.

use std::{collections::BTreeMap, fmt, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;

use crate::{multi::MultiCommand, stations::StationCommand};

/// How long a change waits.
const WAITS: TimeDelta = TimeDelta::hours(24);
/// Changes that may wait at once.
const MOST: usize = 100;

/// A change of one domain, or of all.
pub enum Change {
    Domain(String, StationCommand),
    All(MultiCommand),
}

impl Change {
    /// The domain; nothing for all.
    pub fn domain(&self) -> &str {
        match self {
            Self::Domain(domain, _) => domain,
            Self::All(_) => "",
        }
    }
}

/// Shows nothing: it may hold a password.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kit::MARK)
    }
}

#[derive(Debug)]
struct Proposal {
    by: String,
    at: DateTime<Utc>,
    /// What it does, without secrets.
    what: String,
    change: Change,
}

/// What is shown of one: number, who, when, what.
pub type Shown = (u64, String, DateTime<Utc>, String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    #[error("there is no proposal {0} here; sorm/proposals shows all")]
    None(u64),
    #[error("{0} has proposed it: somebody else has to approve it")]
    Own(String),
    #[error("{MOST} changes wait already; approve or reject some")]
    Full,
}

/// What waits; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Proposals(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    all: BTreeMap<u64, Proposal>,
}

impl Proposals {
    /// Keeps a change until it is approved; its number.
    pub fn propose(
        &self,
        by: &str,
        what: String,
        change: Change,
        now: DateTime<Utc>,
    ) -> Result<u64, ProposalError> {
        let mut waiting = self.0.lock();
        waiting.all.retain(|_, p| now - p.at < WAITS);
        if waiting.all.len() >= MOST {
            return Err(ProposalError::Full);
        }
        waiting.next += 1;
        let number = waiting.next;
        waiting.all.insert(number, Proposal { by: by.to_owned(), at: now, what, change });
        Ok(number)
    }

    /// What waits for a domain, or for all.
    pub fn list(&self, domain: &str, now: DateTime<Utc>) -> Vec<Shown> {
        let waiting = self.0.lock();
        let live = waiting.all.iter().filter(|(_, p)| p.change.domain() == domain && now - p.at < WAITS);
        live.map(|(n, p)| (*n, p.by.clone(), p.at, p.what.clone())).collect()
    }

    /// Takes a change out for whoever approves it; who proposed it may not.
    pub fn approve(
        &self,
        number: u64,
        domain: &str,
        by: &str,
        now: DateTime<Utc>,
    ) -> Result<(Change, String, String), ProposalError> {
        let mut waiting = self.0.lock();
        let found = waiting.all.get(&number).filter(|p| p.change.domain() == domain && now - p.at < WAITS);
        let proposer = found.ok_or(ProposalError::None(number))?.by.clone();
        if proposer == by {
            return Err(ProposalError::Own(proposer));
        }
        let proposal = waiting.all.remove(&number).ok_or(ProposalError::None(number))?;
        Ok((proposal.change, proposal.what, proposer))
    }

    /// Drops one; anybody may, also who proposed it.
    pub fn reject(&self, number: u64, domain: &str) -> Result<String, ProposalError> {
        let mut waiting = self.0.lock();
        if waiting.all.get(&number).is_none_or(|p| p.change.domain() != domain) {
            return Err(ProposalError::None(number));
        }
        waiting.all.remove(&number).map(|p| p.what).ok_or(ProposalError::None(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Property;

    fn change(domain: &str) -> Change {
        Change::Domain(domain.into(), StationCommand::Clean(Property::Password))
    }

    #[test]
    fn another_person_has_to_approve_and_in_time() {
        let (proposals, now) = (Proposals::default(), DateTime::UNIX_EPOCH);
        let number = proposals.propose("anna", "clean password".into(), change("d"), now).expect("kept");
        let approve = |by: &str, domain: &str, at| {
            proposals.approve(number, domain, by, at).map(|(_, what, who)| (what, who))
        };
        assert_eq!(approve("anna", "d", now), Err(ProposalError::Own("anna".into())));
        assert_eq!(approve("boris", "other", now), Err(ProposalError::None(number)), "of another domain");
        assert_eq!(approve("boris", "d", now + WAITS), Err(ProposalError::None(number)), "too late");
        assert_eq!(proposals.list("d", now).len(), 1);
        assert_eq!(approve("boris", "d", now), Ok(("clean password".into(), "anna".into())));
        assert_eq!(approve("boris", "d", now), Err(ProposalError::None(number)), "once");
    }

    #[test]
    fn what_waits_is_bounded_and_can_be_dropped() {
        let (proposals, now) = (Proposals::default(), DateTime::UNIX_EPOCH);
        for _ in 0..MOST {
            assert!(proposals.propose("anna", String::new(), change("d"), now).is_ok());
        }
        assert_eq!(proposals.propose("anna", String::new(), change("d"), now), Err(ProposalError::Full));
        assert_eq!(proposals.reject(1, "other"), Err(ProposalError::None(1)));
        assert!(proposals.reject(2, "d").is_ok() && proposals.reject(2, "d").is_err());
        // Those that nobody approved make room.
        assert!(proposals.propose("anna", String::new(), change("d"), now + WAITS).is_ok());
        assert_eq!(proposals.list("d", now + WAITS).len(), 1);
    }
}
