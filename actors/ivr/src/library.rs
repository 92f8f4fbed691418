//! The scripts of all domains, as a fold over the journal.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use kit::{
    Address, AddressError, ChildSpec,
    journal::{Fold, Journal},
    ledger::{Book, Ledger},
};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::script::{Script, ScriptError};

/// The ledger's name, and its stream's.
pub const NAME: &str = "ivr/scripts";
/// Scripts of a domain at most.
const MANY: usize = 1_000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Library {
    /// Domain to name to script.
    domains: BTreeMap<String, BTreeMap<String, Kept>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// How often it was changed.
    pub version: u64,
    pub json: serde_json::Value,
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum LibraryEvent {
    ScriptImported { domain: String, id: String, json: serde_json::Value },
    ScriptRemoved { domain: String, id: String },
    ScriptRenamed { domain: String, id: String, to: String },
}

impl Library {
    pub fn scripts(&self, domain: &str) -> impl Iterator<Item = (&str, &Kept)> {
        self.domains.get(domain).into_iter().flatten().map(|(id, kept)| (id.as_str(), kept))
    }

    pub fn get(&self, domain: &str, id: &str) -> Option<&Kept> {
        self.domains.get(domain)?.get(id)
    }
}

impl Fold for Library {
    type Event = LibraryEvent;

    fn apply(&mut self, event: &LibraryEvent) {
        match event {
            LibraryEvent::ScriptImported { domain, id, json } => {
                let all = self.domains.entry(domain.clone()).or_default();
                let version = all.get(id).map_or(0, |k| k.version) + 1;
                all.insert(id.clone(), Kept { version, json: json.clone() });
            }
            LibraryEvent::ScriptRemoved { domain, id } => {
                if let Some(all) = self.domains.get_mut(domain) {
                    all.remove(id);
                }
            }
            LibraryEvent::ScriptRenamed { domain, id, to } => {
                if let Some(all) = self.domains.get_mut(domain)
                    && let Some(kept) = all.remove(id)
                {
                    all.insert(to.clone(), kept);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
pub enum Change {
    Import { domain: String, id: String, json: serde_json::Value },
    Remove { domain: String, id: String },
    Rename { domain: String, id: String, to: String },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("there is no script {0}; ivr/script/list shows all")]
    Unknown(String),
    #[error("there is a script {0} already")]
    Exists(String),
    #[error("\"{0}\" is no name of a script: 1 to 64 letters, digits, '.', '-' or '_'")]
    Name(String),
    #[error("a domain has at most {MANY} scripts")]
    Many,
}

/// The ledger; others read what it publishes.
pub struct LibraryBook {
    pub published: Arc<ArcSwap<Library>>,
}

fn is_name(id: &str) -> bool {
    (1..=64).contains(&id.chars().count())
        && id.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

impl Book for LibraryBook {
    type State = Library;
    type Command = Change;
    type Answer = ();
    type Error = LibraryError;

    fn decide(&self, state: &Library, change: Change) -> Result<(Vec<LibraryEvent>, ()), LibraryError> {
        let known = |domain: &str, id: &str| match state.get(domain, id) {
            Some(_) => Ok(()),
            None => Err(LibraryError::Unknown(id.to_owned())),
        };
        let event = match change {
            Change::Import { id, .. } if !is_name(&id) => return Err(LibraryError::Name(id)),
            Change::Import { domain, id, json } => {
                Script::read(json.clone())?;
                if state.get(&domain, &id).is_none() && state.scripts(&domain).count() >= MANY {
                    return Err(LibraryError::Many);
                }
                LibraryEvent::ScriptImported { domain, id, json }
            }
            Change::Remove { domain, id } => {
                known(&domain, &id)?;
                LibraryEvent::ScriptRemoved { domain, id }
            }
            Change::Rename { to, .. } if !is_name(&to) => return Err(LibraryError::Name(to)),
            Change::Rename { domain, id, to } => {
                known(&domain, &id)?;
                if state.get(&domain, &to).is_some() {
                    return Err(LibraryError::Exists(to));
                }
                LibraryEvent::ScriptRenamed { domain, id, to }
            }
        };
        Ok((vec![event], ()))
    }

    fn publish(&self, state: &Library) {
        self.published.store(Arc::new(state.clone()));
    }

    fn summary(&self, state: &Library) -> serde_json::Value {
        let counts = state.domains.iter().map(|(d, all)| (d.clone(), serde_json::json!(all.len())));
        serde_json::Value::Object(counts.collect())
    }
}

/// The ledger as a child.
pub fn child(journal: Arc<dyn Journal>, published: Arc<ArcSwap<Library>>) -> Result<ChildSpec, AddressError> {
    Ok(ChildSpec::worker(Address::new(NAME)?, move |start| {
        let book = LibraryBook { published: published.clone() };
        let journal = journal.clone();
        async move { Ledger::restore_named(book, journal, &start).await }
    }))
}
