//! The neighbours behind trunks: their names, and whether they answer.

use std::{cell::RefCell, collections::HashMap, rc::Weak};

use bytes::Bytes;

use super::{
    Shared,
    invite::{property, trunks},
};
use crate::{
    health,
    transaction::{Flow, Transport},
    wire::{
        message::{Message, Method, Name},
        uri::Uri,
    },
};

impl Shared {
    /// Asks every trunk's neighbour how it is.
    fn ask_neighbours(&mut self) {
        let picture = self.registrar.estate.picture();
        let known = |d: &str, t: &str| picture.domains.get(d).is_some_and(|d| d.trunks.contains_key(t));
        self.health.retain(known);
        for (domain, trunk) in trunks(&picture) {
            let now = self.now();
            let waits = self.asked.values().any(|(d, t)| *d == domain && *t == trunk);
            if !self.health.is_due(&domain, &trunk, now.wall)
                || (waits && !self.health.is_down(&domain, &trunk))
            {
                continue;
            }
            self.health.ask(&domain, &trunk, now.wall);
            let Some(flow) = self.trunks.peer(&picture, &domain, &trunk) else {
                self.health.heard(&domain, &trunk, now.wall, false, "unknown host");
                continue;
            };
            let (tag, call) = (self.registrar.node.random_id(), self.registrar.node.random_id());
            let host = self.agent.host(flow);
            let id = self.agent.send(now, flow, |via, contact| {
                Message::request(Method::Options, format!("sip:{}{}", flow.peer, flow.parameter()))
                    .with(Name::Via, via)
                    .with(Name::MaxForwards, "70")
                    .with(Name::From, format!("<sip:hypha@{host}>;tag={tag:x}"))
                    .with(Name::To, format!("<sip:{}>", flow.peer))
                    .with(Name::CallId, format!("{call:x}@hypha"))
                    .with(Name::CSeq, "1 OPTIONS")
                    .with(Name::Contact, contact)
            });
            self.asked.insert(id, (domain, trunk));
        }
    }
}

/// Between two packets that keep a phone's way through its NAT open.
const KEEP: u64 = 30;

impl Shared {
    /// Keeps the ways to phones behind NATs open, a share of them each time: those whose address is not the one they
    /// name, and those whose profile says `nat_traversal`.
    fn keep_ways(&mut self, turn: u64) {
        let shares = (KEEP / health::DOWN.as_secs()).max(1);
        let (picture, now) = (self.registrar.estate.picture(), self.steady());
        for (domain, all) in &picture.registrations {
            for (iface, contacts) in all.iter() {
                for contact in contacts.iter().filter(|c| c.expires > now) {
                    let Ok(flow) = contact.received.parse::<Flow>() else { continue };
                    let mine = u64::from(flow.peer.port()) % shares == turn % shares;
                    if flow.transport != Transport::Udp || !mine {
                        continue;
                    }
                    let named = Uri::parse(&contact.contact).ok().and_then(|u| u.socket());
                    let wanted = property(&picture, domain, iface, "nat_traversal") == Some("true");
                    if wanted || named != Some(flow.peer) {
                        // Line ends are nothing to a phone, but to what lies between.
                        self.send(flow, Bytes::from_static(b"\r\n\r\n"));
                    }
                }
            }
        }
    }
}

/// Looks after the neighbours: their names, and whether they answer.
pub(super) async fn neighbours(weak: Weak<RefCell<Shared>>) {
    let mut turn = 0;
    loop {
        let (names, resolver) = {
            let Some(shared) = weak.upgrade() else { return };
            let shared = shared.borrow();
            (shared.trunks.names(&shared.registrar.estate.picture()), shared.resolver.clone())
        };
        let mut found = HashMap::new();
        for (host, port, transport) in names {
            let addresses = resolver.find(&host, port, transport).await;
            if !addresses.is_empty() {
                found.insert((host, port, transport), addresses);
            }
        }
        {
            let Some(shared) = weak.upgrade() else { return };
            let mut shared = shared.borrow_mut();
            shared.trunks.resolve(found);
            shared.ask_neighbours();
            shared.register_uplinks();
            shared.keep_ways(turn);
            shared.flush();
        }
        turn += 1;
        tokio::time::sleep(health::DOWN).await;
    }
}
