//! MESSAGE (RFC 3428): a subscriber writes to a number, the way is that of a call to it.

use domain::routing::{
    number::{Called, Calling},
    route::{self, Mode, Outcome, Query},
};

use super::{
    Shared,
    register::{Answer, warned},
};
use crate::{
    transaction::{Flow, Id, Transport},
    wire::{
        address,
        message::{Message, Method, Name},
        uri::{Uri, escape_user},
    },
};

/// Longest text, bytes (RFC 3428, 8).
const LONGEST: usize = 1300;

impl Shared {
    pub(super) fn message(&mut self, id: Id, message: Box<Message>, flow: Flow) {
        match self.forward(&message, flow) {
            // The receiver's answer is passed on when it comes.
            Ok(sent) => drop(self.messages.insert(sent, (id, message))),
            Err(answer) => self.respond(id, &message, answer),
        }
    }

    fn forward(&mut self, message: &Message, flow: Flow) -> Result<Id, Answer> {
        let bad = |text: &str| warned(400, text);
        if message.body.len() > LONGEST {
            return Err(warned(413, "a message has at most 1300 bytes"));
        }
        let hops: u8 = message.header(&Name::MaxForwards).and_then(|m| m.parse().ok()).unwrap_or(70);
        let hops = hops.checked_sub(1).ok_or((483, vec![]))?;
        let from = message.header(&Name::From).and_then(|f| address::list(f).ok()?.into_iter().next());
        let from = from.ok_or_else(|| bad("From is no address"))?;
        let sender = Uri::parse(&from.uri).map_err(|_| bad("From is no URI"))?;
        let to = Uri::parse(message.uri()).map_err(|_| bad("the Request-URI is no URI"))?;
        let (picture, now) = (self.registrar.estate.picture(), self.now());
        let realm = sender.host.to_owned();
        let domain =
            picture.domains.get(&realm).ok_or_else(|| warned(403, "messages come from subscribers"))?;
        let iface = format!("{}@{realm}", sender.user.unwrap_or_default());
        let user = domain.users.get(&iface);
        self.registrar.authenticate(message, &realm, &iface, user, flow.peer.ip(), now.wall)?;
        let user = user.ok_or_else(|| warned(403, "no such subscriber"))?;
        let own = domain.aliases.get(user.user()).filter(|a| a.iface == iface);
        let number = own.map_or(user.user(), |a| a.address.as_str()).to_owned();
        let query = Query {
            domain: realm.clone(),
            iface,
            context: user.context.clone(),
            a: Calling { digits: number, ..Calling::default() },
            b: Called { digits: to.number(), ..Called::default() },
            mode: Mode::Enblock,
            at: now.wall,
            explain: false,
        };
        let trace = route::route(&picture, &query);
        let (place, uri, to_flow, routes) = match &trace.outcome {
            Outcome::Refused { cause, .. } => return Err((call::Cause::from(*cause).status(), vec![])),
            Outcome::Local { domain, iface, .. } => {
                let all = picture.registrations.get(domain).and_then(|d| d.get(iface));
                let live = all.iter().flat_map(|c| c.iter()).filter(|c| c.expires > now.wall);
                let contact = live.max_by_key(|c| (c.q, c.expires)).ok_or((480, vec![]))?;
                let (transport, peer) = contact.received.split_once(' ').ok_or((480, vec![]))?;
                let transport: Transport = transport.parse().map_err(|_| (480, vec![]))?;
                let peer = peer.parse().map_err(|_| (480, vec![]))?;
                (
                    domain,
                    contact.contact.clone(),
                    Flow { transport, peer, connection: 0 },
                    contact.path.clone(),
                )
            }
            Outcome::External { domain, trunk, .. } => {
                let peer = self.trunks.peer(&picture, domain, trunk).ok_or((502, vec![]))?;
                let uri = format!("sip:{}@{peer}", escape_user(&trace.b.digits));
                (domain, uri, Flow { transport: Transport::Udp, peer, connection: 0 }, Vec::new())
            }
        };
        let (tag, call) = (self.registrar.node.random_id(), self.registrar.node.random_id());
        let name = address::display(&from.name);
        let content = message.header(&Name::ContentType).cloned().unwrap_or_else(|| "text/plain".into());
        let from = format!("{name}<sip:{}@{place}>;tag={tag:x}", escape_user(&trace.a.digits));
        let to = format!("<sip:{}@{place}>", escape_user(&trace.b.digits));
        Ok(self.agent.send(now, to_flow, |via, _| {
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
        }))
    }
}
