//! MESSAGE (RFC 3428): a subscriber writes to a number, the way is that of a call to it.

use std::sync::Arc;

use call::witness::Written;
use domain::routing::{
    number::{Called, Calling},
    route::{self, Mode, Outcome, Query},
};

use super::{
    Shared,
    invite::{dialled, to_contact},
    register::{Answer, warned},
};
use crate::{
    agent::Way,
    transaction::{Flow, Id},
    wire::{
        address,
        message::{Message, Method, Name},
        uri::{Uri, escape_user},
    },
};

/// Longest text, bytes (RFC 3428, 8).
const LONGEST: usize = 1300;
/// Messages of one subscriber that wait for their receivers.
const UNDER_WAY: usize = 50;

impl Shared {
    pub(super) fn message(&mut self, id: Id, message: Box<Message>, flow: Flow) {
        match self.forward(&message, flow) {
            // The receiver's answer is passed on when it comes.
            Ok((sent, written, writer)) => {
                *self.writers.entry(writer.clone()).or_default() += 1;
                self.messages.insert(sent, (id, message, written, writer));
            }
            Err(answer) => self.respond(id, &message, answer),
        }
    }

    /// Tells whoever the law lets read what came of a text.
    pub(super) fn tell_written(&self, written: Written, delivered: bool) {
        let witness = &self.calls.witness;
        if written.way.iter().any(|s| witness.watches(&s.domain)) {
            witness.read(Written { delivered, ..written });
        }
    }

    fn forward(&mut self, message: &Message, flow: Flow) -> Result<(Id, Written, String), Answer> {
        let bad = |text: &str| warned(400, text);
        if message.body.len() > LONGEST {
            return Err(warned(413, "a message has at most 1300 bytes"));
        }
        let hops: u8 = message.header(&Name::MaxForwards).and_then(|m| m.parse().ok()).unwrap_or(70);
        let hops = hops.checked_sub(1).ok_or((483, vec![]))?;
        let from = message.address(&Name::From).ok_or_else(|| bad("From is no address"))?;
        let sender = Uri::parse(&from.uri).map_err(|_| bad("From is no URI"))?;
        let to = Uri::parse(message.uri()).map_err(|_| bad("the Request-URI is no URI"))?;
        let (picture, now) = (self.registrar.estate.picture(), self.now());
        let strangers = "messages come from subscribers";
        let (realm, domain, user) = self.registrar.subscriber(&picture, message, flow, &sender, strangers)?;
        let writer = user.iface.clone();
        if self.writers.get(&writer).is_some_and(|n| *n >= UNDER_WAY) {
            return Err(warned(480, "too many messages wait for their answers"));
        }
        if to.is_sip() && picture.domain_named(to.host).is_some_and(|(other, _)| *other != realm) {
            return Err(warned(404, "another domain is reached by its numbers, over a bridge"));
        }
        let query = Query {
            domain: realm.to_owned(),
            iface: user.iface.clone(),
            context: user.context.clone(),
            a: Calling { digits: domain.number_of(user).to_owned(), ..Calling::default() },
            b: Called { digits: dialled(&to), ..Called::default() },
            mode: Mode::Enblock,
            at: now.wall,
            explain: false,
        };
        let mut trace = route::route(&picture, &query);
        let way = Arc::new(std::mem::take(&mut trace.stretches));
        let written = Written { at: now.wall, way, content: message.body.clone(), delivered: false };
        let nowhere = |me: &Self, answer: Answer| {
            me.tell_written(written.clone(), false);
            Err(answer)
        };
        let (place, Way { flow, uri, routes, .. }) = match &trace.outcome {
            Outcome::Refused { cause, .. } => {
                return nowhere(self, (call::Cause::from(*cause).status(), vec![]));
            }
            Outcome::Local { domain, iface, .. } => {
                let all = picture.registrations.get(domain).and_then(|d| d.get(iface));
                let live = all.iter().flat_map(|c| c.iter()).filter(|c| c.expires > self.steady());
                let contact = live.max_by_key(|c| (c.q, c.expires));
                match contact.and_then(to_contact) {
                    Some(way) => (domain, way),
                    None => return nowhere(self, (480, vec![])),
                }
            }
            Outcome::External { domain, trunk, .. } => {
                let number = trace.b.digits.clone();
                let to = call::Party { number, international: false, ..call::Party::default() };
                let way = self.trunks.way(&picture, &*self.registrar.vault, domain, trunk, &to);
                match way {
                    Some(way) => (domain, way),
                    None => return nowhere(self, (502, vec![])),
                }
            }
        };
        let (tag, call) = (self.registrar.node.random_id(), self.registrar.node.random_id());
        let name = address::display(&from.name);
        let content = message.header(&Name::ContentType).cloned().unwrap_or_else(|| "text/plain".into());
        let from = format!("{name}<sip:{}@{place}>;tag={tag:x}", escape_user(&trace.a.digits));
        let to = format!("<sip:{}@{place}>", escape_user(&trace.b.digits));
        let sent = self.agent.send(now, flow, |via, _| {
            let mut out = Message::request(Method::Message, uri).with(Name::Via, via);
            routes.into_iter().for_each(|r| out.push(Name::Route, r));
            out.push(Name::MaxForwards, hops.to_string());
            out.push(Name::From, from);
            out.push(Name::To, to);
            out.push(Name::CallId, format!("{call:x}@hypha"));
            out.push(Name::CSeq, "1 MESSAGE");
            out.push(Name::ContentType, content);
            out.body = message.body.clone();
            out
        });
        Ok((sent, written, writer))
    }
}
