//! Who may come in, and how often one may try.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use argon2::{
    Argon2,
    password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString, rand_core::OsRng},
};
use command::Caller;
use kit::{
    Secret, Seldom,
    alarm::{Alarms, Condition, Severity},
    throttle::{Limits, Throttle},
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{Accounts, Visits};

/// Passwords hashed at the same time: each takes 19 MB and tens of milliseconds, by design.
static HASHING: Semaphore = Semaphore::const_new(2);
/// Log-ins that may wait for their turn to be hashed; more are refused at once.
const WAITING: usize = 32;
static WAIT_FOR_HASHING: AtomicUsize = AtomicUsize::new(0);
/// Longest name and password that are looked at, bytes.
const LONGEST_NAME: usize = 64;
const LONGEST_PASSWORD: usize = 256;

/// Checks names and passwords. Clones share their memory of failures.
#[derive(Clone)]
pub struct Door {
    accounts: Arc<ArcSwap<Accounts>>,
    throttle: Arc<Mutex<Throttle>>,
    /// Lines of the log about refusals.
    lines: Arc<Mutex<Seldom>>,
    /// Where guessing is told; none for a door whose visitors are nobody else's business.
    alarms: Option<Alarms>,
    visits: Visits,
    /// A hash that no password has: an unknown name costs as much time as a known one.
    nobody: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    #[error("wrong name, password or key")]
    Refused,
    #[error("too many failures; wait {0} s, then try again")]
    Wait(u64),
    /// Many log in at this moment.
    #[error("many log-ins at once; try again in a few seconds")]
    Busy,
    #[error("passwords cannot be hashed: {0}")]
    Hash(String),
}

/// Hashes a password (Argon2id with a fresh salt).
pub fn hash(password: &Secret<String>) -> Result<String, DoorError> {
    let salt = SaltString::generate(&mut OsRng);
    let hashed = Argon2::default().hash_password(password.expose().as_bytes(), &salt);
    hashed.map(|h| h.to_string()).map_err(|e| DoorError::Hash(e.to_string()))
}

/// [`hash`] on a thread of its own, in its turn.
pub async fn hash_apart(password: Secret<String>) -> Result<String, DoorError> {
    in_turn(move || hash(&password)).await?
}

/// Whether a password is the one of a hash; takes tens of milliseconds by design, in its turn.
pub(crate) async fn is_password(hash: Arc<str>, password: Secret<String>) -> Result<bool, DoorError> {
    in_turn(move || {
        let parsed = PasswordHash::new(&hash).ok()?;
        Argon2::default().verify_password(password.expose().as_bytes(), &parsed).ok()
    })
    .await
    .map(|fits| fits.is_some())
}

/// Runs work that hashes, at most two at a time. The turn is the work's own: a caller that goes away does not end it early.
pub(crate) async fn in_turn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DoorError> {
    struct Place;
    impl Drop for Place {
        fn drop(&mut self) {
            WAIT_FOR_HASHING.fetch_sub(1, Relaxed);
        }
    }
    let waiting = WAIT_FOR_HASHING.fetch_add(1, Relaxed);
    let place = Place;
    if waiting >= WAITING {
        return Err(DoorError::Busy);
    }
    let turn = HASHING.acquire().await.map_err(|_| DoorError::Busy)?;
    drop(place);
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    done.await.map_err(|e| DoorError::Hash(e.to_string()))
}

impl Door {
    /// `limits`: how often operators' passwords may be guessed.
    pub fn new(accounts: Arc<ArcSwap<Accounts>>, limits: Limits) -> Result<Self, DoorError> {
        let nobody = hash(&Secret::new("nobody".to_owned()))?.into();
        let throttle = Arc::new(Mutex::new(Throttle::new(limits)));
        Ok(Self {
            accounts,
            throttle,
            lines: Arc::new(Mutex::new(Seldom::new(5))),
            alarms: None,
            visits: Visits::default(),
            nobody,
        })
    }

    /// Raises an alarm where passwords are guessed.
    pub fn alarmed(mut self, alarms: Alarms) -> Self {
        self.alarms = Some(alarms);
        self
    }

    /// Keeps its sessions where commands see them.
    pub fn visited(mut self, visits: Visits) -> Self {
        self.visits = visits;
        self
    }

    pub fn visits(&self) -> &Visits {
        &self.visits
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
        if name.len() > LONGEST_NAME || password.expose().len() > LONGEST_PASSWORD {
            return Err(DoorError::Refused);
        }
        self.reserve(name, peer)?;
        let account = self.accounts.load().all.get(name).cloned();
        let hash: Arc<str> = account.as_ref().map_or_else(|| self.nobody.clone(), |a| a.hash.as_str().into());
        let fits = is_password(hash, password).await?;
        match account.filter(|_| fits) {
            Some(account) => {
                self.throttle.lock().succeeded(peer, name, Instant::now());
                Ok(Caller { name: name.to_owned(), from, grants: account.grants })
            }
            None => {
                self.refused(name, peer, "wrong password");
                Err(DoorError::Refused)
            }
        }
    }

    /// Counts a try as a failure before it is looked at, so that many at once cannot pass the limit, nor one whose sender
    /// goes away; a success takes it back.
    fn reserve(&self, name: &str, peer: IpAddr) -> Result<(), DoorError> {
        let now = Instant::now();
        let mut throttle = self.throttle.lock();
        if let Err(left) = throttle.may_try(peer, name, now) {
            drop(throttle);
            self.refused(name, peer, "throttled");
            return Err(DoorError::Wait(left.as_secs() + 1));
        }
        throttle.failed(peer, name, now);
        Ok(())
    }

    /// Counts and logs a refusal, some lines a second at most.
    fn refused(&self, name: &str, peer: IpAddr, reason: &'static str) {
        metrics::counter!("hypha_logins_refused_total", "reason" => reason.replace(' ', "_")).increment(1);
        if let Some(alarms) = self.alarms.as_ref().filter(|_| reason == "throttled") {
            let guessing = Condition::new("access::login::guessing", Severity::Minor, "operators");
            let cause = format!("too many wrong passwords, the last from {peer}");
            alarms.raise(guessing.cause(cause).lasting(Duration::from_secs(300)));
        }
        if let Some(withheld) = self.lines.lock().allow(Instant::now()) {
            tracing::warn!(user = name, address = %peer, reason, withheld, "log-in refused");
        }
    }

    /// By a public key in OpenSSH form, whose owner the SSH layer has proved.
    pub fn key(&self, name: &str, key: &str, from: String) -> Result<Caller, DoorError> {
        let accounts = self.accounts.load();
        let account = accounts.all.get(name).filter(|a| a.keys.iter().any(|k| k == key));
        // A key cannot be guessed, and an agent offers all of its own in turn: nothing is counted, and nobody locked out.
        let account = account.ok_or(DoorError::Refused)?;
        Ok(Caller { name: name.to_owned(), from, grants: account.grants.clone() })
    }

    /// Proof of a log-in: as long as it stays the same, so does the account's password. It is not shown.
    pub fn proof(&self, name: &str) -> Option<Arc<str>> {
        self.accounts.load().all.get(name).map(|a| a.hash.as_str().into())
    }

    /// A caller with the grants of this moment; `None` when the account is gone.
    pub fn anew(&self, caller: &Caller) -> Option<Caller> {
        let grants = self.accounts.load().all.get(&caller.name)?.grants.clone();
        Some(Caller { grants, ..caller.clone() })
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

    fn tries() -> u32 {
        kit::intake::SshIntake::default().guesses
    }
    use crate::Account;
    use command::Grants;

    fn door() -> Door {
        let account = Account {
            hash: hash(&Secret::new("parol".into())).expect("hashed"),
            grants: Grants::system(),
            keys: vec!["ssh-ed25519 AAAA".into()],
        };
        let accounts = Accounts { all: [("admin".to_owned(), account)].into() };
        Door::new(Arc::new(ArcSwap::from_pointee(accounts)), kit::intake::SshIntake::default().limits())
            .expect("a door")
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn enter(door: &Door, name: &str, password: &str) -> Result<Caller, DoorError> {
        door.password(name, Secret::new(password.into()), PEER, "test".into()).await
    }

    #[tokio::test]
    async fn only_the_right_password_opens_and_guessing_is_slowed() {
        let door = door();
        assert_eq!(enter(&door, "admin", "parol").await.map(|c| c.name), Ok("admin".into()));
        for _ in 0..tries() {
            assert_eq!(enter(&door, "admin", "guess").await, Err(DoorError::Refused));
        }
        assert!(matches!(enter(&door, "admin", "parol").await, Err(DoorError::Wait(_))));
        // Other users of the same address are not concerned.
        assert_eq!(enter(&door, "nobody", "nobody").await, Err(DoorError::Refused));
    }

    #[tokio::test]
    async fn many_guesses_at_once_pass_no_limit() {
        let door = door();
        let all = futures::future::join_all((0..64).map(|_| enter(&door, "admin", "guess"))).await;
        let looked_at = all.iter().filter(|r| **r == Err(DoorError::Refused)).count();
        assert_eq!(looked_at, tries() as usize);
        assert!(all.iter().all(|r| matches!(r, Err(DoorError::Refused | DoorError::Wait(_)))));
    }

    #[tokio::test]
    async fn a_guess_whose_sender_goes_away_counts_too() {
        let door = door();
        for _ in 0..tries() {
            // It is dropped at its first pause.
            let mut guess = Box::pin(enter(&door, "admin", "guess"));
            let _ = futures::poll!(guess.as_mut());
        }
        assert!(matches!(enter(&door, "admin", "parol").await, Err(DoorError::Wait(_))));
    }

    #[test]
    fn keys_open_their_own_account_only() {
        let door = door();
        assert!(door.key("admin", "ssh-ed25519 AAAA", "test".into()).is_ok());
        assert_eq!(door.key("admin", "ssh-ed25519 BBBB", "test".into()), Err(DoorError::Refused));
        assert_eq!(door.key("other", "ssh-ed25519 AAAA", "test".into()), Err(DoorError::Refused));
    }
}
