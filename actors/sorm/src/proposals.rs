//! Two persons: a change of passwords, keys or mediators waits until somebody else approves it. What waits is in memory; a
//! restart forgets it, and it is proposed anew.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use command::{Call, Command, CommandError, Kind, Output, Table, with};
use futures::future::{BoxFuture, FutureExt};
use kit::Node;
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    audit::{Audit, Entry},
    multi::MultiCommand,
    stations::StationCommand,
};

/// How long a change waits.
const WAITS: TimeDelta = TimeDelta::hours(24);
/// Changes that may wait at once.
const MOST: usize = 100;

/// What can wait for a second person.
pub trait Scoped: Send + 'static {
    /// The domain it is for; nothing for all.
    fn domain(&self) -> &str;
}

/// A change of one domain, or of all.
pub enum Change {
    Domain(String, StationCommand),
    All(MultiCommand),
}

impl Scoped for Change {
    fn domain(&self) -> &str {
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

struct Proposal<C> {
    by: String,
    at: DateTime<Utc>,
    /// What it does, without secrets.
    what: String,
    change: C,
}

/// What is shown of one: number, who, when, what.
pub type Shown = (u64, String, DateTime<Utc>, String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    #[error("there is no proposal {0} here; proposals shows all")]
    None(u64),
    #[error("{0} has proposed it: somebody else has to approve it")]
    Own(String),
    #[error("{MOST} changes wait already; approve or reject some")]
    Full,
}

/// What waits; clones share it.
pub struct Proposals<C>(Arc<Mutex<Waiting<C>>>);

struct Waiting<C> {
    next: u64,
    all: BTreeMap<u64, Proposal<C>>,
}

impl<C> Default for Proposals<C> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Waiting { next: 0, all: BTreeMap::new() })))
    }
}

impl<C> Clone for Proposals<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Scoped> Proposals<C> {
    /// Keeps a change until it is approved; its number.
    pub fn propose(
        &self,
        by: &str,
        what: String,
        change: C,
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
    ) -> Result<(C, String, String), ProposalError> {
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

type CarryOut<C> =
    Arc<dyn Fn(Call, C, String) -> BoxFuture<'static, Result<Output, CommandError>> + Send + Sync>;

/// The commands of two persons: what is proposed, and how it is carried out with whom in the audit.
pub struct Two<C> {
    node: Node,
    audit: Audit,
    proposals: Proposals<C>,
    /// Whether a second person is asked for at all.
    wanted: bool,
    carry_out: CarryOut<C>,
}

impl<C> Clone for Two<C> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            audit: self.audit.clone(),
            proposals: self.proposals.clone(),
            wanted: self.wanted,
            carry_out: self.carry_out.clone(),
        }
    }
}

impl<C: Scoped> Two<C> {
    /// `carry_out` changes, and writes its third value into the audit.
    pub fn new<F>(
        node: &Node,
        audit: &Audit,
        wanted: bool,
        carry_out: impl Fn(Call, C, String) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Output, CommandError>> + Send + 'static,
    {
        let carry_out: CarryOut<C> =
            Arc::new(move |call, change, action| carry_out(call, change, action).boxed());
        Self { node: node.clone(), audit: audit.clone(), proposals: Proposals::default(), wanted, carry_out }
    }

    /// Carries a change out, or keeps it until somebody else approves it; `approve` is the command that does.
    pub async fn submit(
        &self,
        call: Call,
        change: C,
        action: &str,
        two: bool,
        approve: &str,
    ) -> Result<Output, CommandError> {
        if !(two && self.wanted) {
            return (self.carry_out)(call, change, action.to_owned()).await;
        }
        let (domain, now) = (change.domain().to_owned(), self.node.clock().now());
        let by = &call.caller.name;
        let number =
            self.proposals.propose(by, action.to_owned(), change, now).map_err(CommandError::failed)?;
        let details = json!({ "from": call.caller.origin().from, "proposal": number });
        self.audit.write(Entry::new(&domain, by, &format!("proposed: {action}"), details));
        let text = format!("proposal {number} waits for somebody else: {approve} {number}");
        Ok(Output::text(text).with_data(json!({ "proposal": number })))
    }

    async fn approve(&self, call: Call) -> Result<Output, CommandError> {
        let (now, by) = (self.node.clock().now(), &call.caller.name);
        let approved = self.proposals.approve(number(&call), call.var("domain"), by, now);
        let (change, what, proposer) = approved.map_err(CommandError::failed)?;
        (self.carry_out)(call, change, format!("{what}, proposed by {proposer}")).await
    }

    fn reject(&self, call: &Call) -> Result<Output, CommandError> {
        let what = self.proposals.reject(number(call), call.var("domain")).map_err(CommandError::failed)?;
        let details = json!({ "from": call.caller.origin().from });
        let entry = Entry::new(call.var("domain"), &call.caller.name, &format!("rejected: {what}"), details);
        self.audit.write(entry);
        Ok(Output::ok())
    }

    fn list(&self, call: &Call) -> Output {
        let mut table = Table::new(["Number", "By", "At", "Change"]);
        for (number, by, at, what) in self.proposals.list(call.var("domain"), self.node.clock().now()) {
            table.row([number.to_string(), by, at.format("%d.%m.%Y %H:%M:%S").to_string(), what]);
        }
        Output::table(table)
    }

    /// What waits, and what becomes of it: commands to list, approve and reject.
    pub fn commands(&self, [list, yes, no]: [&'static str; 3]) -> [Command; 3] {
        let one = |c: Command| c.arg("number", Kind::Number(1, u64::MAX), "its number", "номер");
        let s = self;
        [
            Command::look(
                list,
                "shows changes that wait for a second person",
                "изменения, ожидающие второго лица",
                with!(s, |s, call| Ok(s.list(&call))),
            ),
            one(Command::change(
                yes,
                "carries out a change that somebody else has proposed",
                "выполнить изменение, предложенное другим лицом",
                with!(s, |s, call| s.approve(call).await),
            )),
            one(Command::change(
                no,
                "drops a change that waits",
                "отклонить изменение",
                with!(s, |s, call| s.reject(&call)),
            )),
        ]
    }
}

fn number(call: &Call) -> u64 {
    call.number("number").unwrap_or_default()
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
        let (proposals, now) = (Proposals::<Change>::default(), DateTime::UNIX_EPOCH);
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
        let (proposals, now) = (Proposals::<Change>::default(), DateTime::UNIX_EPOCH);
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
