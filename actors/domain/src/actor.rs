//! The ledgers of this family.

use std::sync::Arc;

use imbl::OrdMap;
pub(crate) use kit::ledger::change_at as change;
use kit::{
    Node, Vault,
    journal::{Fold, Journal},
    ledger::Book,
};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::{
    bridge::{self, BridgeCommand, BridgeError, BridgeEvent, Bridges},
    decide::{DomainCommand, DomainError, decide},
    estate::Estate,
    licence::{self, Licence, LicenceCommand, LicenceError, LicenceEvent},
    state::{DomainEvent, DomainState},
};

/// What the family's actors and commands share.
#[derive(Clone)]
pub struct Services {
    pub node: Node,
    pub journal: Arc<dyn Journal>,
    pub vault: Arc<dyn Vault>,
    pub estate: Estate,
    /// Where `routing/import` reads files.
    pub imports: std::path::PathBuf,
    /// This host's name in `routing/import <host> <file>`.
    pub host: String,
    /// The licence vendor's public key, if the node has one.
    pub vendor_key: Option<ed25519_dalek::VerifyingKey>,
    /// The hardware token, if the node has one, and how often it and the licence are looked at.
    pub token: Option<Arc<dyn kit::token::Token>>,
    pub token_check: std::time::Duration,
    /// One declaration of subscribers at a time, so that the licence's limit holds over all domains.
    pub declaring: Arc<tokio::sync::Mutex<()>>,
}

/// One domain.
pub struct DomainBook {
    pub name: String,
    pub estate: Estate,
}

impl Book for DomainBook {
    type State = DomainState;
    type Command = DomainCommand;
    type Answer = ();
    type Error = DomainError;

    fn decide(
        &self,
        state: &DomainState,
        command: DomainCommand,
    ) -> Result<(Vec<DomainEvent>, ()), DomainError> {
        decide(state, command).map(|events| (events, ()))
    }

    fn publish(&self, state: &DomainState) {
        let state = Arc::new(state.clone());
        self.estate.change(|p| drop(p.domains.insert(self.name.clone(), state)));
    }

    fn summary(&self, state: &DomainState) -> serde_json::Value {
        serde_json::json!({
            "properties": state.properties,
            "restrictions": state.restrictions,
            "ip_sets": state.ip_sets,
            "subscribers": state.users.len(),
            "aliases": state.aliases.len(),
            "number_plans": state.plans.iter().map(|(n, p)| (n.clone(), p.numbers.len())).collect::<OrdMap<String, usize>>(),
            "contexts": state.contexts.iter().map(|(n, c)| (n.clone(), c.rules.len())).collect::<OrdMap<String, usize>>(),
            "trunks": state.trunks.keys().collect::<Vec<_>>(),
        })
    }
}

/// Which domains there are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DomainsState {
    /// Name, and how often it has been declared: a domain that was removed and declared anew has a new stream.
    pub all: OrdMap<String, u64>,
    pub generations: OrdMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum DomainsEvent {
    #[strum(serialize = "DomainDeclared")]
    Declared { name: String },
    #[strum(serialize = "DomainRemoved")]
    Removed { name: String },
}

impl Fold for DomainsState {
    type Event = DomainsEvent;

    fn apply(&mut self, event: &DomainsEvent) {
        match event {
            DomainsEvent::Declared { name } => {
                let generation = self.generations.get(name).map_or(1, |g| g + 1);
                self.generations.insert(name.clone(), generation);
                self.all.insert(name.clone(), generation);
            }
            DomainsEvent::Removed { name } => drop(self.all.remove(name)),
        }
    }
}

#[derive(Debug)]
pub enum DomainsCommand {
    Declare {
        name: String,
        limit: u64,
    },
    Remove(String),
    /// All, for the supervisor that starts them.
    List,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainsError {
    #[error("domain {0} exists already")]
    Exists(String),
    #[error("there is no domain {0}; domain/list shows all")]
    NotFound(String),
    #[error(
        "{0:?} is no name for a domain: letters, digits, '.', '-' and '_', at most 63, not beginning with '.' or '-', \
         and not undefined, calendar or properties"
    )]
    Name(String),
    #[error("licence_limit: the licence allows {0} domains")]
    Limit(u64),
}

/// Whether a name may be a domain's (facts of the original: illegal are `undefined`, `calendar`, `properties`).
pub fn is_domain_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=63).contains(&name.len())
        && name.chars().all(legal)
        && !name.starts_with(['.', '-'])
        && !matches!(name, "undefined" | "calendar" | "properties" | "list" | "declare" | "remove" | "copy")
}

pub struct DomainsBook;

impl Book for DomainsBook {
    type State = DomainsState;
    type Command = DomainsCommand;
    type Answer = Vec<(String, u64)>;
    type Error = DomainsError;

    fn decide(
        &self,
        state: &DomainsState,
        command: DomainsCommand,
    ) -> Result<(Vec<DomainsEvent>, Self::Answer), DomainsError> {
        match command {
            DomainsCommand::Declare { name, .. } if !is_domain_name(&name) => Err(DomainsError::Name(name)),
            DomainsCommand::Declare { name, .. } if state.all.contains_key(&name) => {
                Err(DomainsError::Exists(name))
            }
            DomainsCommand::Declare { limit, .. } if state.all.len() as u64 >= limit => {
                Err(DomainsError::Limit(limit))
            }
            DomainsCommand::Declare { name, .. } => {
                let generation = state.generations.get(&name).map_or(1, |g| g + 1);
                Ok((vec![DomainsEvent::Declared { name: name.clone() }], vec![(name, generation)]))
            }
            DomainsCommand::Remove(name) if !state.all.contains_key(&name) => {
                Err(DomainsError::NotFound(name))
            }
            DomainsCommand::Remove(name) => Ok((vec![DomainsEvent::Removed { name }], vec![])),
            DomainsCommand::List => Ok((vec![], state.all.iter().map(|(n, g)| (n.clone(), *g)).collect())),
        }
    }

    fn publish(&self, _: &DomainsState) {}

    fn summary(&self, state: &DomainsState) -> serde_json::Value {
        serde_json::json!({ "domains": state.all })
    }
}

/// The bridges between domains.
pub struct BridgesBook {
    pub estate: Estate,
}

impl Book for BridgesBook {
    type State = Bridges;
    type Command = BridgeCommand;
    type Answer = ();
    type Error = BridgeError;

    fn decide(&self, state: &Bridges, command: BridgeCommand) -> Result<(Vec<BridgeEvent>, ()), BridgeError> {
        bridge::decide(state, command).map(|events| (events, ()))
    }

    fn publish(&self, state: &Bridges) {
        self.estate.change(|p| {
            p.bridges = Arc::new(state.clone());
            let kept = |name: &String| (name.clone(), p.calls.get(name).cloned().unwrap_or_default());
            p.calls = state.all.keys().map(kept).collect();
        });
    }

    fn summary(&self, state: &Bridges) -> serde_json::Value {
        serde_json::json!({ "bridges": state.all })
    }
}

/// The licence in force.
pub struct LicenceBook {
    pub estate: Estate,
    pub vendor_key: Option<ed25519_dalek::VerifyingKey>,
}

impl Book for LicenceBook {
    type State = Licence;
    type Command = LicenceCommand;
    type Answer = ();
    type Error = LicenceError;

    fn decide(&self, _: &Licence, command: LicenceCommand) -> Result<(Vec<LicenceEvent>, ()), LicenceError> {
        let LicenceCommand::Add { file, now } = command;
        let key = self.vendor_key.as_ref().ok_or(LicenceError::NoKey)?;
        let terms = Box::new(licence::verify(&file, key, now)?);
        Ok((vec![LicenceEvent::Added { file, terms }], ()))
    }

    fn publish(&self, state: &Licence) {
        self.estate.change(|p| p.licence = Arc::new(state.clone()));
    }

    fn summary(&self, state: &Licence) -> serde_json::Value {
        serde_json::json!({ "installed": state.file.is_some(), "terms": state.terms })
    }
}
