//! Who may come in, and how often one may try.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use argon2::{
    Argon2,
    password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString, rand_core::OsRng},
};
use command::Caller;
use kit::Secret;
use parking_lot::Mutex;

use crate::Accounts;

/// Failures from one address before it has to wait.
const TRIES: u32 = 5;
/// First wait; each further failure doubles it, up to [`LONGEST`].
const WAIT: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);
/// Addresses remembered.
const REMEMBERED: usize = 10_000;

/// Checks names and passwords. Clones share their memory of failures.
#[derive(Clone)]
pub struct Door {
    accounts: Arc<ArcSwap<Accounts>>,
    failures: Arc<Mutex<HashMap<IpAddr, (u32, Instant)>>>,
    /// A hash that no password has: an unknown name costs as much time as a known one.
    nobody: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    #[error("wrong name, password or key")]
    Refused,
    #[error("too many failures; wait {0} s")]
    Wait(u64),
    #[error("passwords cannot be hashed: {0}")]
    Hash(String),
}

/// Hashes a password (Argon2id with a fresh salt).
pub fn hash(password: &Secret<String>) -> Result<String, DoorError> {
    let salt = SaltString::generate(&mut OsRng);
    let hashed = Argon2::default().hash_password(password.expose().as_bytes(), &salt);
    hashed.map(|h| h.to_string()).map_err(|e| DoorError::Hash(e.to_string()))
}

impl Door {
    pub fn new(accounts: Arc<ArcSwap<Accounts>>) -> Result<Self, DoorError> {
        let nobody = hash(&Secret::new("nobody".to_owned()))?.into();
        Ok(Self { accounts, failures: Arc::default(), nobody })
    }

    pub fn accounts(&self) -> &Arc<ArcSwap<Accounts>> {
        &self.accounts
    }

    /// By password; takes tens of milliseconds by design, on a thread of its own.
    pub async fn password(
        &self,
        name: &str,
        password: Secret<String>,
        peer: IpAddr,
        from: String,
    ) -> Result<Caller, DoorError> {
        self.may_try(peer)?;
        let account = self.accounts.load().all.get(name).cloned();
        let hash: Arc<str> = account.as_ref().map_or_else(|| self.nobody.clone(), |a| a.hash.as_str().into());
        let checked = tokio::task::spawn_blocking(move || {
            let parsed = PasswordHash::new(&hash).ok()?;
            Argon2::default().verify_password(password.expose().as_bytes(), &parsed).ok()
        });
        let fits = checked.await.ok().flatten().is_some();
        match account.filter(|_| fits) {
            Some(account) => {
                self.failures.lock().remove(&peer);
                Ok(Caller { name: name.to_owned(), from, grants: account.grants })
            }
            None => {
                self.failed(peer);
                tracing::warn!(%name, %peer, "log-in refused");
                Err(DoorError::Refused)
            }
        }
    }

    /// By a public key in OpenSSH form, whose owner the SSH layer has proved.
    pub fn key(&self, name: &str, key: &str, peer: IpAddr, from: String) -> Result<Caller, DoorError> {
        self.may_try(peer)?;
        let accounts = self.accounts.load();
        let account = accounts.all.get(name).filter(|a| a.keys.iter().any(|k| k == key));
        // An agent offers all its keys in turn: that is no guessing, so it is not counted.
        let account = account.ok_or(DoorError::Refused)?;
        Ok(Caller { name: name.to_owned(), from, grants: account.grants.clone() })
    }

    /// A caller with the grants of this moment; `None` when the account is gone.
    pub fn anew(&self, caller: &Caller) -> Option<Caller> {
        let grants = self.accounts.load().all.get(&caller.name)?.grants.clone();
        Some(Caller { grants, ..caller.clone() })
    }

    fn may_try(&self, peer: IpAddr) -> Result<(), DoorError> {
        let failures = self.failures.lock();
        let Some((count, last)) = failures.get(&peer).filter(|(count, _)| *count >= TRIES) else {
            return Ok(());
        };
        let wait = WAIT.saturating_mul(1 << (count - TRIES).min(16)).min(LONGEST);
        match wait.checked_sub(last.elapsed()) {
            Some(left) if !left.is_zero() => Err(DoorError::Wait(left.as_secs() + 1)),
            _ => Ok(()),
        }
    }

    fn failed(&self, peer: IpAddr) {
        let mut failures = self.failures.lock();
        if failures.len() >= REMEMBERED {
            failures.retain(|_, (_, last)| last.elapsed() < LONGEST);
        }
        let entry = failures.entry(peer).or_insert((0, Instant::now()));
        *entry = (entry.0 + 1, Instant::now());
    }
}

/// A password nobody guesses, for the first administrator.
pub fn random_password() -> Secret<String> {
    use rand::Rng;
    // Without letters and digits that look alike.
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzACDEFGHJKLMNPQRSTUVWXYZ2345679";
    let mut rng = rand::rng();
    Secret::new((0..20).map(|_| LETTERS[rng.random_range(0..LETTERS.len())] as char).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Account;
    use command::Grants;

    fn door() -> Door {
        let account = Account {
            hash: hash(&Secret::new("parol".into())).expect("hashed"),
            grants: Grants::system(),
            keys: vec!["ssh-ed25519 AAAA".into()],
        };
        let accounts = Accounts { all: [("admin".to_owned(), account)].into() };
        Door::new(Arc::new(ArcSwap::from_pointee(accounts))).expect("a door")
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn enter(door: &Door, name: &str, password: &str) -> Result<Caller, DoorError> {
        door.password(name, Secret::new(password.into()), PEER, "test".into()).await
    }

    #[tokio::test]
    async fn only_the_right_password_opens_and_guessing_is_slowed() {
        let door = door();
        assert_eq!(enter(&door, "admin", "parol").await.map(|c| c.name), Ok("admin".into()));
        for _ in 0..TRIES {
            assert_eq!(enter(&door, "nobody", "nobody").await, Err(DoorError::Refused));
        }
        assert!(matches!(enter(&door, "admin", "parol").await, Err(DoorError::Wait(_))));
    }

    #[test]
    fn keys_open_their_own_account_only() {
        let door = door();
        assert!(door.key("admin", "ssh-ed25519 AAAA", PEER, "test".into()).is_ok());
        assert_eq!(door.key("admin", "ssh-ed25519 BBBB", PEER, "test".into()), Err(DoorError::Refused));
        assert_eq!(door.key("other", "ssh-ed25519 AAAA", PEER, "test".into()), Err(DoorError::Refused));
    }
}
