//! The whole estate as one picture: what routing reads. Each domain publishes its state here after every change;
//! a reader takes a picture and is not disturbed by changes that follow.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use imbl::OrdMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use chrono::{DateTime, Utc};

use crate::{
    bridge::Bridges,
    licence::{Licence, Standing, Terms, TokenState},
    state::DomainState,
};

/// A contact under which a subscriber can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// What makes it the same contact again: its instance and flow, or its URI.
    pub key: String,
    /// The contact's URI.
    pub contact: String,
    /// Preference, thousandths.
    pub q: u16,
    /// Tagged `+sip.ice`: reached by ICE (manual, `core_forking`).
    pub ice: bool,
    pub call_id: String,
    pub cseq: u32,
    /// Proxies on the way to it (RFC 3327).
    pub path: Vec<String>,
    /// Where the registration came from: `tcp 192.168.2.14:12702`.
    pub received: String,
    /// Where it came in: `tcp 192.168.2.61:5060`.
    pub local: String,
    pub user_agent: String,
    pub expires: DateTime<Utc>,
}

impl Registration {
    pub fn is_elph(&self) -> bool {
        is_elph(&self.user_agent)
    }

    /// The host that the registration came from.
    pub fn peer(&self) -> Option<std::net::IpAddr> {
        let address: std::net::SocketAddr = self.received.rsplit(' ').next()?.parse().ok()?;
        Some(address.ip())
    }
}

/// Whether a client takes an Elph licence: Elph-Desktop, Elph-Android and Elph-IOS do (manual, "Лицензирование Elph").
pub fn is_elph(user_agent: &str) -> bool {
    user_agent.get(..5).is_some_and(|a| a.eq_ignore_ascii_case("elph-"))
}

/// Domains, bridges and licence at one moment.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pub domains: OrdMap<String, Arc<DomainState>>,
    /// Domains that are known and did not start, with the reason.
    pub broken: OrdMap<String, String>,
    pub bridges: Arc<Bridges>,
    /// Calls on each bridge.
    pub calls: OrdMap<String, Arc<AtomicU32>>,
    pub licence: Arc<Licence>,
    pub token: TokenState,
    /// By domain and interface.
    pub registrations: OrdMap<String, OrdMap<String, Arc<Vec<Registration>>>>,
    /// Of mailboxes, by domain and number.
    pub messages: OrdMap<String, OrdMap<String, Messages>>,
}

/// How many messages a mailbox has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Messages {
    pub new: u32,
    pub old: u32,
}

impl Picture {
    /// A domain by its name as a host of a URI: without regard to case (RFC 3261, 19.1.4).
    pub fn domain_named(&self, host: &str) -> Option<(&String, &Arc<DomainState>)> {
        let exact = self.domains.get_key_value(host);
        exact.or_else(|| self.domains.iter().find(|(name, _)| name.eq_ignore_ascii_case(host)))
    }

    /// Calls now on a bridge.
    pub fn calls_on(&self, bridge: &str) -> u32 {
        self.calls.get(bridge).map_or(0, |c| c.load(Relaxed))
    }

    /// The licence's terms in force at this time.
    pub fn terms(&self, now: DateTime<Utc>) -> Terms {
        self.licence.in_force(&self.token, now)
    }

    /// Whether the licence in force grants a supplementary service.
    pub fn allows(&self, service: &str, now: DateTime<Utc>) -> bool {
        self.standing(now) != Standing::Valid || self.licence.terms.allows(service)
    }

    /// Registrations of Elph clients in a domain, with their interfaces.
    pub fn elph(&self, domain: &str) -> Vec<(&str, &Registration)> {
        let ifaces = self.registrations.get(domain).into_iter().flatten();
        let all = ifaces.flat_map(|(iface, contacts)| contacts.iter().map(move |c| (iface.as_str(), c)));
        all.filter(|(_, contact)| contact.is_elph()).collect()
    }

    pub fn standing(&self, now: DateTime<Utc>) -> Standing {
        self.licence.standing(&self.token, now)
    }

    /// Declared subscribers of all domains.
    pub fn subscribers(&self) -> usize {
        self.domains.values().map(|d| d.users.len()).sum()
    }
}

/// Where the newest picture hangs. Clones share it.
#[derive(Clone, Default)]
pub struct Estate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    picture: ArcSwap<Picture>,
    /// Changes are rare and one at a time; readers never wait for them.
    change: Mutex<()>,
}

impl Estate {
    pub fn picture(&self) -> Arc<Picture> {
        self.0.picture.load_full()
    }

    /// Hangs a changed picture.
    pub fn change(&self, change: impl FnOnce(&mut Picture)) {
        let _one = self.0.change.lock();
        let mut picture = (*self.picture()).clone();
        change(&mut picture);
        self.0.picture.store(Arc::new(picture));
    }
}
