//! The neighbours behind trunks: their names, and whether they answer.

use std::{cell::RefCell, collections::HashMap, rc::Weak};

use super::Shared;
use crate::{
    health,
    transaction::{Flow, Transport},
    wire::message::{Message, Method, Name},
};

impl Shared {
    /// Asks every trunk's neighbour how it is.
    fn ask_neighbours(&mut self) {
        let picture = self.registrar.estate.picture();
        let known = |d: &str, t: &str| picture.domains.get(d).is_some_and(|d| d.trunks.contains_key(t));
        self.health.retain(known);
        let all =
            picture.domains.iter().flat_map(|(d, s)| s.trunks.keys().map(move |t| (d.clone(), t.clone())));
        for (domain, trunk) in all.collect::<Vec<_>>() {
            let now = self.now();
            let waits = self.asked.values().any(|(d, t)| *d == domain && *t == trunk);
            if !self.health.is_due(&domain, &trunk, now.wall)
                || (waits && !self.health.is_down(&domain, &trunk))
            {
                continue;
            }
            self.health.ask(&domain, &trunk, now.wall);
            let Some(peer) = self.trunks.peer(&picture, &domain, &trunk) else {
                self.health.heard(&domain, &trunk, now.wall, false, "unknown host");
                continue;
            };
            let flow = Flow { transport: Transport::Udp, peer, connection: 0 };
            let (tag, call) = (self.registrar.node.random_id(), self.registrar.node.random_id());
            let host = self.agent.host(flow);
            let id = self.agent.send(now, flow, |via, contact| {
                Message::request(Method::Options, format!("sip:{peer}"))
                    .with(Name::Via, via)
                    .with(Name::MaxForwards, "70")
                    .with(Name::From, format!("<sip:hypha@{host}>;tag={tag:x}"))
                    .with(Name::To, format!("<sip:{peer}>"))
                    .with(Name::CallId, format!("{call:x}@hypha"))
                    .with(Name::CSeq, "1 OPTIONS")
                    .with(Name::Contact, contact)
            });
            self.asked.insert(id, (domain, trunk));
        }
    }
}

/// Looks after the neighbours: their names, and whether they answer.
pub(super) async fn neighbours(weak: Weak<RefCell<Shared>>) {
    loop {
        let names = {
            let Some(shared) = weak.upgrade() else { return };
            let shared = shared.borrow();
            shared.trunks.names(&shared.registrar.estate.picture())
        };
        let mut found = HashMap::new();
        for name in names {
            let address = tokio::net::lookup_host((name.as_str(), 0)).await.ok().and_then(|mut a| a.next());
            if let Some(address) = address {
                found.insert(name, address.ip());
            }
        }
        {
            let Some(shared) = weak.upgrade() else { return };
            let mut shared = shared.borrow_mut();
            shared.trunks.resolve(found);
            shared.ask_neighbours();
            shared.register_uplinks();
            shared.flush();
        }
        tokio::time::sleep(health::DOWN).await;
    }
}
