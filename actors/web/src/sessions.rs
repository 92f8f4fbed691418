//! Who is logged in over the web.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use access::Door;
use chrono::{DateTime, Utc};
use command::{Caller, Grants};
use parking_lot::Mutex;
use rand::RngCore;
use subtle::ConstantTimeEq;

/// Sessions at the same time; the longest idle one gives way.
const LIMIT: usize = 1000;
/// A session ends after this time without a request.
const IDLE: Duration = Duration::from_secs(3600);

struct Entry {
    name: String,
    csrf: String,
    used: Instant,
    /// Of the log-in: with a new password the session is over.
    proof: Option<Arc<str>>,
    _visit: access::Entry,
}

/// Tokens of live sessions. Clones share them.
#[derive(Clone)]
pub(crate) struct Sessions {
    door: Door,
    all: Arc<Mutex<HashMap<String, Entry>>>,
}

/// 256 random bits in hex.
fn token() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Sessions {
    pub(crate) fn new(door: Door) -> Self {
        Self { door, all: Arc::default() }
    }

    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// The session's token and its token against forged requests.
    pub(crate) fn begin(&self, name: String, from: &str, now: DateTime<Utc>) -> (String, String) {
        let (id, csrf) = (token(), token());
        let mut all = self.all.lock();
        all.retain(|_, e| e.used.elapsed() < IDLE);
        if all.len() >= LIMIT {
            let oldest = all.iter().min_by_key(|(_, e)| e.used).map(|(id, _)| id.clone());
            oldest.map(|id| all.remove(&id));
        }
        let proof = self.door.proof(&name);
        let (sessions, own) = (Arc::downgrade(&self.all), id.clone());
        let visit = self.door.visits().enter(&name, from, now, move || {
            // The entry goes when the lock is free again.
            let gone = sessions.upgrade().and_then(|all| all.lock().remove(&own));
            drop(gone);
        });
        all.insert(
            id.clone(),
            Entry { name, csrf: csrf.clone(), used: Instant::now(), proof, _visit: visit },
        );
        (id, csrf)
    }

    /// The session in which a password was changed goes on.
    pub(crate) fn renew(&self, id: &str) {
        if let Some(entry) = self.all.lock().get_mut(id) {
            entry.proof = self.door.proof(&entry.name);
        }
    }

    pub(crate) fn end(&self, id: &str) {
        self.all.lock().remove(id);
    }

    /// The operator behind a token, with the grants of this moment, and the session's other token.
    pub(crate) fn caller(&self, id: &str, peer: IpAddr) -> Option<(Caller, String)> {
        let (name, csrf) = {
            let mut all = self.all.lock();
            let entry = all.get_mut(id).filter(|e| e.used.elapsed() < IDLE)?;
            if entry.proof != self.door.proof(&entry.name) {
                all.remove(id);
                return None;
            }
            let entry = all.get_mut(id)?;
            entry.used = Instant::now();
            (entry.name.clone(), entry.csrf.clone())
        };
        // An account that was removed or changed meanwhile counts as it is now.
        let then = Caller { name, from: format!("web {peer}"), grants: Grants::default() };
        Some((self.door.anew(&then)?, csrf))
    }
}

pub(crate) fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}
