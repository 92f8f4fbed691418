//! The registrar's decisions (RFC 3261, 10.3; RFC 3327 Path; RFC 5626 instances): a request and what is registered give
//! events. No clock, no socket.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use domain::Registration;
use imbl::OrdMap;
use kit::journal::Fold;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

/// Contacts of one subscriber at most.
pub const MAX_CONTACTS: usize = 10;
/// Shortest and longest time a phone may ask for, and what it gets without asking, seconds.
pub const MIN_EXPIRES: u32 = 60;
pub const MAX_EXPIRES: u32 = 7200;
pub const DEFAULT_EXPIRES: u32 = 3600;

/// All contacts: domain, interface, contacts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Locations {
    pub all: OrdMap<String, OrdMap<String, Arc<Vec<Registration>>>>,
    /// How many contacts there are.
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, IntoStaticStr)]
pub enum RegistrationEvent {
    /// A contact is new, or known for longer.
    Registered { domain: String, iface: String, registration: Registration },
    /// The phone took contacts back, or their time ran out.
    Unregistered { domain: String, iface: String, keys: Vec<String> },
    #[strum(serialize = "RegistrationsExpired")]
    Expired { at: DateTime<Utc> },
}

impl Fold for Locations {
    type Event = RegistrationEvent;

    fn apply(&mut self, event: &RegistrationEvent) {
        match event {
            RegistrationEvent::Registered { domain, iface, registration } => {
                let ifaces = self.all.entry(domain.clone()).or_default();
                let contacts = Arc::make_mut(ifaces.entry(iface.clone()).or_default());
                match contacts.iter_mut().find(|r| r.key == registration.key) {
                    Some(known) => *known = registration.clone(),
                    None => {
                        contacts.push(registration.clone());
                        self.count += 1;
                    }
                }
            }
            RegistrationEvent::Unregistered { domain, iface, keys } => {
                self.retain_of(domain, iface, |r| !keys.contains(&r.key));
            }
            RegistrationEvent::Expired { at } => {
                let late = |contacts: &Arc<Vec<Registration>>| contacts.iter().any(|r| r.expires <= *at);
                let ifaces = self.all.iter().flat_map(|(d, all)| all.iter().map(move |(i, c)| (d, i, c)));
                let touched: Vec<_> =
                    ifaces.filter(|(_, _, c)| late(c)).map(|(d, i, _)| (d.clone(), i.clone())).collect();
                for (domain, iface) in touched {
                    self.retain_of(&domain, &iface, |r| r.expires > *at);
                }
            }
        }
    }
}

impl Locations {
    pub fn contacts(&self, domain: &str, iface: &str) -> &[Registration] {
        self.all.get(domain).and_then(|i| i.get(iface)).map_or(&[], |c| c.as_slice())
    }

    fn retain_of(&mut self, domain: &str, iface: &str, keep: impl Fn(&Registration) -> bool) {
        let Some(ifaces) = self.all.get_mut(domain) else { return };
        let Some(contacts) = ifaces.get_mut(iface) else { return };
        let before = contacts.len();
        let contacts = Arc::make_mut(contacts);
        contacts.retain(keep);
        self.count -= (before - contacts.len()) as u64;
        if contacts.is_empty() {
            ifaces.remove(iface);
            if ifaces.is_empty() {
                self.all.remove(domain);
            }
        }
    }
}

/// One contact of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactRequest {
    /// What makes it the same contact again: its instance and flow, or its URI.
    pub key: String,
    pub uri: String,
    /// Preference, thousandths.
    pub q: u16,
    pub ice: bool,
    pub expires: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contacts {
    /// None: the phone only asks.
    Query,
    /// `Contact: *`
    All,
    These(Vec<ContactRequest>),
}

/// A REGISTER whose sender has proved who it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub domain: String,
    pub iface: String,
    pub contacts: Contacts,
    /// The `Expires` header.
    pub expires: Option<u32>,
    pub call_id: String,
    pub cseq: u32,
    pub path: Vec<String>,
    pub received: String,
    pub local: String,
    pub user_agent: String,
    pub at: DateTime<Utc>,
    /// Elph clients that may be registered in this domain.
    pub elph_limit: u64,
}

/// Why a request is not granted, with its status code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 423
    #[error("Interval Too Brief")]
    Brief,
    /// 400
    #[error("Contact * wants Expires: 0 and no other contact")]
    Star,
    /// 500: RFC 3261, 10.3, step 7
    #[error("an older request of the same phone")]
    OutOfOrder,
    /// 403
    #[error("more than {MAX_CONTACTS} contacts")]
    TooMany,
    /// 403 with a warning (manual, "Реакция системы при превышении лицензионного лимита")
    #[error("Licence limit is exceeded!")]
    Licence,
}

/// What a granted request leads to.
pub fn decide(state: &Locations, request: &Request) -> Result<Vec<RegistrationEvent>, Refused> {
    let known = state.contacts(&request.domain, &request.iface);
    let out_of_order = |r: &Registration| r.call_id == request.call_id && r.cseq >= request.cseq;
    let unregistered = |keys: Vec<String>| RegistrationEvent::Unregistered {
        domain: request.domain.clone(),
        iface: request.iface.clone(),
        keys,
    };
    let these = match &request.contacts {
        Contacts::Query => return Ok(Vec::new()),
        Contacts::All if request.expires != Some(0) => return Err(Refused::Star),
        Contacts::All if known.iter().any(out_of_order) => return Err(Refused::OutOfOrder),
        Contacts::All if known.is_empty() => return Ok(Vec::new()),
        Contacts::All => return Ok(vec![unregistered(known.iter().map(|r| r.key.clone()).collect())]),
        Contacts::These(these) => these,
    };
    let (mut events, mut gone, mut fresh) = (Vec::new(), Vec::new(), Vec::<&str>::new());
    for contact in these {
        let before = known.iter().find(|r| r.key == contact.key);
        if before.is_some_and(out_of_order) {
            return Err(Refused::OutOfOrder);
        }
        let seconds = contact.expires.or(request.expires).unwrap_or(DEFAULT_EXPIRES).min(MAX_EXPIRES);
        match seconds {
            0 => {
                if before.is_some() {
                    gone.push(contact.key.clone());
                }
                continue;
            }
            1..MIN_EXPIRES => return Err(Refused::Brief),
            _ => {}
        }
        if before.is_none_or(|r| r.expires <= request.at) && !fresh.contains(&contact.key.as_str()) {
            fresh.push(&contact.key);
        }
        let registration = Registration {
            key: contact.key.clone(),
            contact: contact.uri.clone(),
            q: contact.q,
            ice: contact.ice,
            call_id: request.call_id.clone(),
            cseq: request.cseq,
            path: request.path.clone(),
            received: request.received.clone(),
            local: request.local.clone(),
            user_agent: request.user_agent.clone(),
            expires: request.at + TimeDelta::seconds(i64::from(seconds)),
        };
        let (domain, iface) = (request.domain.clone(), request.iface.clone());
        events.push(RegistrationEvent::Registered { domain, iface, registration });
    }
    let live: Vec<&Registration> =
        known.iter().filter(|r| r.expires > request.at && !gone.contains(&r.key)).collect();
    let over = (live.len() + fresh.len()).saturating_sub(MAX_CONTACTS);
    if over > 0 {
        // A phone that comes back on one new port after the other leaves contacts behind: the oldest of its kind at its host go.
        let host = |received: &str| received.rsplit_once(':').map(|(host, _)| host.to_owned());
        let kind = |r: &&&Registration| {
            host(&r.received) == host(&request.received)
                && r.user_agent == request.user_agent
                && !these.iter().any(|c| c.key == r.key)
        };
        let mut left: Vec<&&Registration> = live.iter().filter(kind).collect();
        left.sort_by_key(|r| r.expires);
        if left.len() < over {
            return Err(Refused::TooMany);
        }
        gone.extend(left.into_iter().take(over).map(|r| r.key.clone()));
    }
    // A refresh is never refused for the licence.
    if domain::is_elph(&request.user_agent) && !fresh.is_empty() {
        let all = state.all.get(&request.domain).into_iter().flat_map(|ifaces| ifaces.values());
        let members = all.flat_map(|c| c.iter()).filter(|r| r.is_elph() && r.expires > request.at).count();
        if (members + fresh.len()) as u64 > request.elph_limit {
            return Err(Refused::Licence);
        }
    }
    if !gone.is_empty() {
        events.push(unregistered(gone));
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn contacts_that_a_phone_has_left_behind_make_room_for_it() {
        let mut s = Locations::default();
        let from = |n: u32, host: &str, agent: &str| Request {
            received: format!("udp {host}:{}", 5000 + n),
            user_agent: agent.into(),
            call_id: n.to_string(),
            at: DateTime::UNIX_EPOCH + TimeDelta::seconds(i64::from(n)),
            ..request(Contacts::These(vec![contact(&n.to_string(), None)]), 1)
        };
        for n in 0..MAX_CONTACTS as u32 {
            assert!(play(&mut s, &from(n, "192.0.2.1", "phone")).is_ok());
        }
        assert_eq!(play(&mut s, &from(50, "192.0.2.9", "phone")), Err(Refused::TooMany), "another host");
        assert_eq!(play(&mut s, &from(51, "192.0.2.1", "other")), Err(Refused::TooMany), "another phone");
        assert!(play(&mut s, &from(52, "192.0.2.1", "phone")).is_ok());
        let keys: Vec<&str> = s.contacts("d", "100@d").iter().map(|r| r.key.as_str()).collect();
        assert!(keys.len() == MAX_CONTACTS && !keys.contains(&"0") && keys.contains(&"52"), "{keys:?}");
    }

    fn contact(key: &str, expires: Option<u32>) -> ContactRequest {
        ContactRequest { key: key.into(), uri: format!("sip:{key}"), q: 1000, ice: false, expires }
    }

    fn request(contacts: Contacts, cseq: u32) -> Request {
        Request {
            domain: "d".into(),
            iface: "100@d".into(),
            contacts,
            expires: None,
            call_id: "c".into(),
            cseq,
            path: vec![],
            received: "udp 127.0.0.1:5062".into(),
            local: "udp 127.0.0.1:5060".into(),
            user_agent: "phone".into(),
            at: DateTime::UNIX_EPOCH,
            elph_limit: 2,
        }
    }

    fn play(state: &mut Locations, request: &Request) -> Result<usize, Refused> {
        let events = decide(state, request)?;
        events.iter().for_each(|e| state.apply(e));
        Ok(state.contacts("d", &request.iface).len())
    }

    #[test]
    fn contacts_come_stay_and_go() {
        let mut s = Locations::default();
        let these = |keys: &[(&str, Option<u32>)]| {
            Contacts::These(keys.iter().map(|(k, e)| contact(k, *e)).collect())
        };
        assert_eq!(play(&mut s, &request(these(&[("a", None)]), 1)), Ok(1));
        assert_eq!(s.contacts("d", "100@d")[0].expires, DateTime::UNIX_EPOCH + TimeDelta::seconds(3600));
        assert_eq!(play(&mut s, &request(these(&[("a", Some(60)), ("b", Some(99_999))]), 2)), Ok(2));
        assert_eq!(s.contacts("d", "100@d")[1].expires, DateTime::UNIX_EPOCH + TimeDelta::seconds(7200));
        assert_eq!(play(&mut s, &request(these(&[("a", None)]), 2)), Err(Refused::OutOfOrder));
        assert_eq!(play(&mut s, &request(these(&[("a", Some(30))]), 3)), Err(Refused::Brief));
        assert_eq!(play(&mut s, &request(Contacts::Query, 4)), Ok(2));
        assert_eq!(play(&mut s, &request(these(&[("a", Some(0))]), 5)), Ok(1));
        assert_eq!(play(&mut s, &request(Contacts::All, 6)), Err(Refused::Star));
        let all = Request { expires: Some(0), ..request(Contacts::All, 7) };
        assert_eq!(play(&mut s, &all), Ok(0));
        assert_eq!(s, Locations::default(), "nothing is left behind");
        let many: Vec<_> = (0..11).map(|i| contact(&i.to_string(), None)).collect();
        assert_eq!(play(&mut s, &request(Contacts::These(many), 8)), Err(Refused::TooMany));
    }

    #[test]
    fn elph_clients_take_licences_and_keep_them() {
        let mut s = Locations::default();
        let elph = |user: &str, cseq| Request {
            iface: format!("{user}@d"),
            user_agent: "Elph-desktop 2.1.1+6".into(),
            ..request(Contacts::These(vec![contact(user, None)]), cseq)
        };
        assert_eq!(play(&mut s, &elph("1", 1)), Ok(1));
        assert_eq!(play(&mut s, &elph("2", 1)), Ok(1));
        assert_eq!(play(&mut s, &elph("3", 1)), Err(Refused::Licence));
        assert_eq!(play(&mut s, &elph("1", 2)), Ok(1), "a refresh");
        let later = Request { at: DateTime::UNIX_EPOCH + TimeDelta::hours(1), ..elph("3", 2) };
        assert_eq!(play(&mut s, &later), Ok(1), "expired ones are free again");
        s.apply(&RegistrationEvent::Expired { at: later.at });
        assert_eq!(s.count, 1);
    }

    proptest! {
        #[test]
        fn the_count_is_the_number_of_contacts(
            steps in prop::collection::vec((0u8..3, 0u8..4, prop::option::of(0u32..200), 0i64..200), 0..60),
        ) {
            let mut s = Locations::default();
            for (cseq, (user, key, expires, at)) in steps.into_iter().enumerate() {
                let at = DateTime::UNIX_EPOCH + TimeDelta::seconds(at);
                let contacts = Contacts::These(vec![contact(&key.to_string(), expires)]);
                let r = Request { iface: format!("{user}@d"), at, ..request(contacts, cseq as u32 + 1) };
                let _ = play(&mut s, &r);
                if key == 3 {
                    s.apply(&RegistrationEvent::Expired { at });
                }
                let found: usize = s.all.values().flat_map(|i| i.values()).map(|c| c.len()).sum();
                prop_assert_eq!(s.count, found as u64);
            }
        }
    }
}
