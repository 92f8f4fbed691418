//! Accounts as a fold over their events.

use std::sync::Arc;

use arc_swap::ArcSwap;
use command::Grants;
use kit::{
    Address, ChildSpec,
    journal::{Fold, Journal},
    ledger::{Book, Ledger},
};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// One operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Argon2id, in PHC form.
    pub hash: String,
    pub grants: Grants,
    /// Public keys in OpenSSH form, without comments.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// All operators.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Accounts {
    pub all: std::collections::BTreeMap<String, Account>,
}

#[derive(Debug, Clone, Serialize, Deserialize, IntoStaticStr)]
pub enum AccountEvent {
    #[strum(serialize = "AccountAdded")]
    Added {
        name: String,
        hash: String,
        grants: Grants,
    },
    #[strum(serialize = "AccountRemoved")]
    Removed {
        name: String,
    },
    PasswordChanged {
        name: String,
        hash: String,
    },
    RolesChanged {
        name: String,
        grants: Grants,
    },
    KeyAdded {
        name: String,
        key: String,
    },
    KeysRemoved {
        name: String,
    },
    KeyRemoved {
        name: String,
        key: String,
    },
}

impl Fold for Accounts {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        use AccountEvent as E;
        let account =
            |all: &mut std::collections::BTreeMap<String, Account>, name: &str, f: &dyn Fn(&mut Account)| {
                if let Some(account) = all.get_mut(name) {
                    f(account);
                }
            };
        match event {
            E::Added { name, hash, grants } => {
                let new = Account { hash: hash.clone(), grants: grants.clone(), keys: Vec::new() };
                self.all.insert(name.clone(), new);
            }
            E::Removed { name } => drop(self.all.remove(name)),
            E::PasswordChanged { name, hash } => account(&mut self.all, name, &|a| a.hash.clone_from(hash)),
            E::RolesChanged { name, grants } => {
                account(&mut self.all, name, &|a| a.grants.clone_from(grants))
            }
            E::KeyAdded { name, key } => account(&mut self.all, name, &|a| a.keys.push(key.clone())),
            E::KeysRemoved { name } => account(&mut self.all, name, &|a| a.keys.clear()),
            E::KeyRemoved { name, key } => account(&mut self.all, name, &|a| a.keys.retain(|k| k != key)),
        }
    }
}

/// What is wanted of the accounts; passwords come hashed.
pub enum AccountCommand {
    Add { name: String, hash: String, grants: Grants },
    Remove(String),
    ChangePassword { name: String, hash: String },
    ChangeRoles { name: String, grants: Grants },
    AddKey { name: String, key: String },
    RemoveKeys(String),
    RemoveKey { name: String, key: String },
}

impl std::fmt::Debug for AccountCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Add { name, grants, .. } => write!(f, "Add {name} {grants}"),
            Self::Remove(name) => write!(f, "Remove {name}"),
            Self::ChangePassword { name, .. } => write!(f, "ChangePassword {name}"),
            Self::ChangeRoles { name, grants } => write!(f, "ChangeRoles {name} {grants}"),
            Self::AddKey { name, .. } => write!(f, "AddKey {name}"),
            Self::RemoveKeys(name) => write!(f, "RemoveKeys {name}"),
            Self::RemoveKey { name, .. } => write!(f, "RemoveKey {name}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("user {0} exists already")]
    Exists(String),
    #[error("there is no user {0}; cocon/user/list shows all")]
    NotFound(String),
    #[error("{0:?} is no user name: 1 to 32 letters, digits, '.', '-' or '_'")]
    Name(String),
    #[error("{0} is the last system administrator; nobody could undo that")]
    LastAdmin(String),
    #[error("user {0} has 32 keys already")]
    Keys(String),
    #[error("user {0} has this key already")]
    KeyExists(String),
    #[error("user {0} has no such key")]
    NoKey(String),
}

/// The accounts' ledger; others read what it publishes.
pub struct AccountsBook {
    pub published: Arc<ArcSwap<Accounts>>,
}

impl Book for AccountsBook {
    type State = Accounts;
    type Command = AccountCommand;
    type Answer = ();
    type Error = AccountError;

    fn decide(
        &self,
        state: &Accounts,
        command: AccountCommand,
    ) -> Result<(Vec<AccountEvent>, ()), AccountError> {
        use AccountCommand as C;
        use AccountEvent as E;
        let known = |name: &str| state.all.get(name).ok_or_else(|| AccountError::NotFound(name.to_owned()));
        let last_admin = |name: &str| {
            let others = state.all.iter().filter(|(n, a)| *n != name && a.grants.system).count();
            others == 0 && state.all.get(name).is_some_and(|a| a.grants.system)
        };
        let event = match command {
            C::Add { name, .. } if !is_name(&name) => return Err(AccountError::Name(name)),
            C::Add { name, .. } if state.all.contains_key(&name) => return Err(AccountError::Exists(name)),
            C::Add { name, hash, grants } => E::Added { name, hash, grants },
            C::Remove(name) => {
                known(&name)?;
                if last_admin(&name) {
                    return Err(AccountError::LastAdmin(name));
                }
                E::Removed { name }
            }
            C::ChangePassword { name, hash } => {
                known(&name)?;
                E::PasswordChanged { name, hash }
            }
            C::ChangeRoles { name, grants } => {
                known(&name)?;
                if !grants.system && last_admin(&name) {
                    return Err(AccountError::LastAdmin(name));
                }
                E::RolesChanged { name, grants }
            }
            C::AddKey { name, key } if known(&name)?.keys.contains(&key) => {
                return Err(AccountError::KeyExists(name));
            }
            C::AddKey { name, key } => match known(&name)?.keys.len() {
                0..32 => E::KeyAdded { name, key },
                _ => return Err(AccountError::Keys(name)),
            },
            C::RemoveKey { name, key } => match known(&name)?.keys.contains(&key) {
                true => E::KeyRemoved { name, key },
                false => return Err(AccountError::NoKey(name)),
            },
            C::RemoveKeys(name) => {
                known(&name)?;
                E::KeysRemoved { name }
            }
        };
        Ok((vec![event], ()))
    }

    fn publish(&self, state: &Accounts) {
        self.published.store(Arc::new(state.clone()));
    }

    fn summary(&self, state: &Accounts) -> serde_json::Value {
        let users = state.all.iter().map(|(n, a)| (n.clone(), serde_json::json!(a.grants.roles())));
        serde_json::Value::Object(users.collect())
    }
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// The accounts as a child of the node's root.
pub fn child(address: Address, journal: Arc<dyn Journal>, published: Arc<ArcSwap<Accounts>>) -> ChildSpec {
    ChildSpec::worker(address, move |start| {
        let book = AccountsBook { published: published.clone() };
        let journal = journal.clone();
        async move { Ledger::restore_named(book, journal, &start).await }
    })
}
