//! Trunks that register with their neighbour (RFC 3261, 10.2): who we are there, and for how long.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    Picture,
    state::{Trunk, TrunkKind},
};
use kit::Vault;

use super::{Shared, invite::trunks};
use crate::{
    digest::Login,
    health::Uplink,
    transaction::Id,
    wire::{
        address,
        message::{Message, Method, Name},
        uri::escape_user,
    },
};

/// What we ask for, and the pause after a refusal.
const EXPIRES: u32 = 600;
const AGAIN: Duration = Duration::from_secs(30);

/// Our registrations by domain and trunk.
#[derive(Default)]
pub(super) struct Uplinks {
    all: HashMap<(String, String), State>,
    asked: HashMap<Id, (String, String)>,
}

struct State {
    call_id: String,
    tag: String,
    cseq: u32,
    waits: bool,
    /// The last REGISTER had our credentials: a challenge to it refuses them.
    proved: bool,
    due: DateTime<Utc>,
}

/// Who we are at a trunk's neighbour.
pub(super) fn login(vault: &dyn Vault, domain: &str, trunk: &Trunk) -> Option<Login> {
    let name = trunk.property("login")?.to_owned();
    let sealed = trunk.secret("password")?;
    match vault.open(&Trunk::purpose(domain, &trunk.name), sealed) {
        Ok(password) => Some(Login { name, password }),
        Err(e) => {
            tracing::error!(domain, trunk = trunk.name, error = %e, "a trunk's password cannot be opened");
            None
        }
    }
}

fn wanted(picture: &Picture, domain: &str, trunk: &str) -> bool {
    let trunk = picture.domains.get(domain).and_then(|d| d.trunks.get(trunk));
    trunk.is_some_and(|t| t.property("register") == Some("true"))
}

impl Shared {
    /// Registers where it is due, and forgets trunks that do not want it any more.
    pub(super) fn register_uplinks(&mut self) {
        let picture = self.registrar.estate.picture();
        let gone: Vec<_> =
            self.uplinks.all.keys().filter(|(d, t)| !wanted(&picture, d, t)).cloned().collect();
        for (domain, trunk) in gone {
            self.uplinks.all.remove(&(domain.clone(), trunk.clone()));
            self.health.registered(&domain, &trunk, None);
        }
        let now = self.now().wall;
        for key in trunks(&picture).filter(|(d, t)| wanted(&picture, d, t)) {
            let node = &self.registrar.node;
            let state = self.uplinks.all.entry(key.clone()).or_insert_with(|| State {
                call_id: format!("{:x}@hypha", node.random_id()),
                tag: format!("{:x}", node.random_id()),
                cseq: 0,
                waits: false,
                proved: false,
                due: now,
            });
            if !state.waits && state.due <= now {
                self.register_uplink(key, None);
            }
        }
    }

    fn register_uplink(&mut self, key: (String, String), challenged: Option<&Message>) {
        let picture = self.registrar.estate.picture();
        let Some(trunk) = picture.domains.get(&key.0).and_then(|d| d.trunks.get(&key.1)) else { return };
        let now = self.now();
        let refused = |me: &mut Self, said: &str| me.uplink_refused(&key, said);
        let Some(flow) = self.trunks.peer(&picture, &key.0, &key.1) else {
            return refused(self, "unknown host");
        };
        let Some(login) = login(&*self.registrar.vault, &key.0, trunk) else {
            return refused(self, "login and password are not set");
        };
        let TrunkKind::Static { host, .. } = &trunk.kind;
        let uri = format!("sip:{host}");
        let proof =
            challenged.and_then(|c| login.proof(c, "REGISTER", &uri, self.registrar.node.random_id()));
        if challenged.is_some() && proof.is_none() {
            return refused(self, "a challenge nobody here can answer");
        }
        let Some(state) = self.uplinks.all.get_mut(&key) else { return };
        state.cseq += 1;
        state.waits = true;
        state.proved = challenged.is_some();
        let (cseq, call_id, tag) = (state.cseq, state.call_id.clone(), state.tag.clone());
        let parameter = flow.parameter();
        let (user, local) = (escape_user(&login.name), self.agent.host(flow));
        let id = self.agent.send(now, flow, |via, _| {
            let mut register = Message::request(Method::Register, uri)
                .with(Name::Via, via)
                .with(Name::MaxForwards, "70")
                .with(Name::From, format!("<sip:{user}@{host}>;tag={tag}"))
                .with(Name::To, format!("<sip:{user}@{host}>"))
                .with(Name::CallId, call_id)
                .with(Name::CSeq, format!("{cseq} REGISTER"))
                .with(Name::Contact, format!("<sip:{user}@{local}{parameter}>"))
                .with(Name::Expires, EXPIRES.to_string());
            if let Some((name, value)) = proof {
                register.push(name, value);
            }
            register
        });
        self.uplinks.asked.insert(id, key);
    }

    fn uplink_refused(&mut self, key: &(String, String), said: &str) {
        let now = self.now().wall;
        if let Some(state) = self.uplinks.all.get_mut(key) {
            state.waits = false;
            state.due = now + AGAIN;
        }
        self.health.registered(&key.0, &key.1, Some(Uplink { until: None, said: said.to_owned() }));
    }

    /// Whether an answer was to a registration of ours; if so it has been dealt with.
    pub(super) fn uplink_answered(&mut self, id: Id, answer: Option<&Message>) -> bool {
        let Some(key) = self.uplinks.asked.remove(&id) else { return false };
        let now = self.now().wall;
        let Some(state) = self.uplinks.all.get_mut(&key) else { return true };
        state.waits = false;
        match (answer, answer.and_then(Message::code)) {
            (Some(answer), Some(401 | 407)) if !state.proved => self.register_uplink(key, Some(answer)),
            (Some(answer), Some(200..300)) => {
                let granted = expires(answer).unwrap_or(EXPIRES).max(20);
                // Early enough to try again before it ends.
                state.due = now + Duration::from_secs(u64::from(granted) * 4 / 5);
                let until = Some(now + Duration::from_secs(u64::from(granted)));
                self.health.registered(&key.0, &key.1, Some(Uplink { until, said: "200".into() }));
            }
            (_, code) => {
                let said = code.map_or_else(|| "no answer".to_owned(), |c| c.to_string());
                self.uplink_refused(&key, &said);
            }
        }
        true
    }
}

/// Seconds granted: of the contact (it is our only one), else of the answer.
fn expires(answer: &Message) -> Option<u32> {
    let contacts = answer.all(&Name::Contact).filter_map(|c| address::list(c).ok()).flatten();
    let of_contact = contacts.filter_map(|c| c.parameter("expires")?.parse().ok()).max();
    of_contact.or_else(|| answer.header(&Name::Expires)?.parse().ok())
}
