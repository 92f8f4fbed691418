//! The scripts of all domains, as a fold over the journal.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
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
/// Earlier versions of a script that are kept.
const VERSIONS: usize = 20;

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
    #[serde(default)]
    pub since: Option<Since>,
    /// Earlier ones, the oldest first.
    #[serde(default)]
    pub earlier: Vec<Version>,
}

/// When a version came, and by whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Since {
    pub at: DateTime<Utc>,
    pub who: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub version: u64,
    pub json: serde_json::Value,
    #[serde(default)]
    pub since: Option<Since>,
}

impl Kept {
    /// The script as it was in a version.
    pub fn version(&self, version: u64) -> Option<&serde_json::Value> {
        match version == self.version {
            true => Some(&self.json),
            false => self.earlier.iter().find(|v| v.version == version).map(|v| &v.json),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum LibraryEvent {
    ScriptImported {
        domain: String,
        id: String,
        json: serde_json::Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Since>,
    },
    ScriptRemoved {
        domain: String,
        id: String,
    },
    ScriptRenamed {
        domain: String,
        id: String,
        to: String,
    },
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
            LibraryEvent::ScriptImported { domain, id, json, since } => {
                let all = self.domains.entry(domain.clone()).or_default();
                let (mut version, mut earlier) = (1, Vec::new());
                if let Some(before) = all.remove(id) {
                    version = before.version + 1;
                    earlier = before.earlier;
                    earlier.push(Version { version: before.version, json: before.json, since: before.since });
                    earlier.drain(..earlier.len().saturating_sub(VERSIONS));
                }
                all.insert(id.clone(), Kept { version, json: json.clone(), since: since.clone(), earlier });
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
    Import { domain: String, id: String, json: serde_json::Value, since: Option<Since> },
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
            Change::Import { domain, id, json, since } => {
                Script::read(json.clone())?;
                if state.get(&domain, &id).is_none() && state.scripts(&domain).count() >= MANY {
                    return Err(LibraryError::Many);
                }
                LibraryEvent::ScriptImported { domain, id, json, since }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_versions_are_kept_up_to_a_number() {
        let mut library = Library::default();
        for n in 0..VERSIONS as u64 + 5 {
            library.apply(&LibraryEvent::ScriptImported {
                domain: "d".into(),
                id: "s".into(),
                json: n.into(),
                since: None,
            });
        }
        let kept = library.get("d", "s").expect("kept");
        assert_eq!((kept.version, kept.earlier.len()), (VERSIONS as u64 + 5, VERSIONS));
        assert_eq!(kept.version(kept.version - 1), Some(&serde_json::json!(VERSIONS as u64 + 3)));
        assert_eq!(kept.version(1), None);
        let old: LibraryEvent =
            serde_json::from_str(r#"{"ScriptImported":{"domain":"d","id":"s","json":1}}"#)
                .expect("an old event");
        assert!(matches!(old, LibraryEvent::ScriptImported { since: None, .. }));
    }
}
