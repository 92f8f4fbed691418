//! SUBSCRIBE and NOTIFY: who may watch whom, and the messages of it. What is told is in [`crate::subscriptions`].

use std::{cell::RefCell, collections::BTreeMap, rc::Weak, str::FromStr, time::Duration};

use call::{service, service::Service, switch};
use kit::journal::Origin;

use super::{
    Shared,
    register::{Answer, warned},
};
use crate::{
    agent,
    subscriptions::{
        Dialog, EVENTS, EXPIRES, FEATURE, Known, LONGEST, New, Notify, Package, SHORTEST, Switch, Watched,
        switch as read_switch,
    },
    transaction::{Flow, Id},
    wire::{
        message::{Message, Method, Name},
        uri::Uri,
    },
};

/// Between two looks at what is watched.
const EVERY: Duration = Duration::from_millis(500);
/// Services that watchers are told of.
const SHOWN: [Service; 4] = [Service::Dnd, Service::Cfu, Service::Cfb, Service::Cfnr];

/// Looks after subscriptions.
pub(super) async fn events(weak: Weak<RefCell<Shared>>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(shared) = weak.upgrade() else { return };
        let mut shared = shared.borrow_mut();
        if shared.subscriptions.is_empty() {
            continue;
        }
        let now = shared.steady();
        let known = shared.known();
        let told = shared.subscriptions.changes(now, &known);
        told.into_iter().for_each(|n| shared.notify(n));
        shared.flush();
    }
}

impl Shared {
    pub(super) fn subscribe(&mut self, id: Id, message: Box<Message>, flow: Flow) {
        match self.try_subscribe(id, &message, flow) {
            Ok(()) => {}
            Err(answer) => self.respond(id, &message, answer),
        }
    }

    fn try_subscribe(&mut self, id: Id, message: &Message, flow: Flow) -> Result<(), Answer> {
        let bad = |text: &str| warned(400, text);
        let event = message.header(&Name::Event).ok_or_else(|| bad("which Event?"))?;
        let unknown = || (489, vec![(Name::AllowEvents, EVENTS.to_owned())]);
        let package =
            Package::from_str(event.split(';').next().unwrap_or_default().trim()).map_err(|_| unknown())?;
        let seconds = match message.header(&Name::Expires).map(|e| e.trim().parse::<u32>()) {
            None => EXPIRES,
            Some(Ok(seconds)) => seconds.min(LONGEST),
            Some(Err(_)) => return Err(bad("Expires is no number")),
        };
        if (1..SHORTEST).contains(&seconds) {
            return Err((423, vec![(Name::MinExpires, SHORTEST.to_string())]));
        }
        let from = message.address(&Name::From).ok_or_else(|| bad("From is no address"))?;
        let sender = Uri::parse(&from.uri).map_err(|_| bad("From is no URI"))?;
        let to = message.address(&Name::To).ok_or_else(|| bad("To is no address"))?;
        let to = Uri::parse(&to.uri).map_err(|_| bad("To is no URI"))?;
        let picture = self.registrar.estate.picture();
        let strangers = "subscriptions come from subscribers";
        let (realm, domain, user) = self.registrar.subscriber(&picture, message, flow, &sender, strangers)?;
        let own = domain.number_of(user).to_owned();
        let alias = match package.is_private() {
            true => own,
            false => {
                let wanted = to.number();
                let by_name =
                    || domain.users.get(&format!("{wanted}@{realm}")).map(|u| domain.number_of(u).to_owned());
                Some(wanted.clone())
                    .filter(|a| domain.aliases.contains_key(a))
                    .or_else(by_name)
                    .ok_or((404, vec![]))?
            }
        };
        let wanted = match message.content_type().as_deref() {
            Some(FEATURE) if package == Package::AsFeatureEvent => {
                let text = std::str::from_utf8(&message.body).map_err(|_| bad("the body is no text"))?;
                Some(read_switch(text).map_err(|e| bad(&e.replace('"', "'")))?)
            }
            _ => None,
        };
        let watched = Watched { domain: realm.to_owned(), alias };
        let watcher = user.iface.clone();
        let number = message.cseq().map_or(0, |(n, _)| n);
        let now = self.steady();
        let expires = now + Duration::from_secs(u64::from(seconds));
        let tag = message.tag(&Name::To).map(str::to_owned);
        let subscription = match tag {
            Some(tag) => {
                let known = number_of(&tag).and_then(|n| Some((n, self.subscriptions.get_mut(n)?)));
                let same = known.filter(|(_, s)| {
                    s.of.call_id == message.call_id() && s.of.local.ends_with(&tag) && s.watcher == watcher
                });
                let (n, s) = same.ok_or((481, vec![]))?;
                if number <= s.of.remote_cseq {
                    return Err((500, vec![]));
                }
                (s.of.remote_cseq, s.of.flow, s.of.expires) = (number, flow, expires);
                n
            }
            None => {
                let salt = self.registrar.node.random_id();
                let header = |name| message.header(&name).map(|v| v.to_string()).unwrap_or_default();
                let target = message.address(&Name::Contact).map(|c| c.uri.to_string());
                let target = target.ok_or_else(|| bad("without a Contact nobody can be told"))?;
                let new = |n: u64| New {
                    package,
                    watched: watched.clone(),
                    flow,
                    call_id: message.call_id().to_owned(),
                    local: format!("{};tag=s{n:x}.{salt:x}", header(Name::To)),
                    remote: header(Name::From),
                    target,
                    routes: agent::routes(message, &Name::RecordRoute)
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                    remote_cseq: number,
                    expires,
                };
                self.subscriptions.add(&watcher, new).map_err(|e| warned(503, &e.to_string()))?
            }
        };
        match wanted {
            Some(wanted) => self.switch(id, message.clone(), subscription, watched, wanted, watcher),
            None => self.subscribed(id, message, subscription, seconds),
        }
        Ok(())
    }

    /// 200, and the first notification.
    fn subscribed(&mut self, id: Id, message: &Message, subscription: u64, seconds: u32) {
        let Some(s) = self.subscriptions.get(subscription) else { return };
        let (watched, local) = (s.of.watched.clone(), s.of.local.clone());
        let (now, flow) = (self.now(), s.of.flow);
        let tag = local.rsplit("tag=").next().map(str::to_owned);
        let contact = self.agent.contact(flow);
        let response = agent::reply(message, 200, tag.as_deref())
            .with(Name::Expires, seconds.to_string())
            .with(Name::Contact, contact);
        self.agent.respond(now, id, &response);
        let known = self.known_of(&watched);
        let mut told = known.and_then(|k| {
            self.subscriptions.tell(subscription, self.registrar.node.clock().steady(), &k, true)
        });
        if seconds == 0 {
            // Asked once: the state, and that was it (RFC 6665, 4.4.3).
            if let Some(told) = &mut told {
                told.state = "terminated;reason=timeout".into();
            }
        }
        told.into_iter().for_each(|n| self.notify(n));
        if seconds == 0 {
            self.subscriptions.remove(subscription);
        }
    }

    /// A phone switches a service of its subscriber.
    fn switch(
        &mut self,
        id: Id,
        message: Message,
        subscription: u64,
        watched: Watched,
        wanted: Switch,
        who: String,
    ) {
        let weak = self.myself.clone();
        let (node, estate) = (self.registrar.node.clone(), self.registrar.estate.clone());
        let Switch { service, active, options } = wanted;
        let Watched { domain, alias } = watched;
        let wanted = switch::Switch { domain, addresses: vec![alias], service, active, options };
        let origin = Origin { who, from: "as-feature-event".into() };
        actix::spawn(async move {
            let done = switch::switch(&node, &estate, wanted, origin).await;
            let Some(shared) = weak.upgrade() else { return };
            let mut shared = shared.borrow_mut();
            match done {
                Ok(()) => {
                    let left = shared.subscriptions.get(subscription).map(|s| s.of.expires - shared.steady());
                    let seconds = left.map_or(0, |l| l.num_seconds().max(1));
                    shared.subscribed(id, &message, subscription, u32::try_from(seconds).unwrap_or(EXPIRES));
                }
                Err(e) => {
                    shared.respond(id, &message, warned(403, &e.to_string()));
                    if message.tag(&Name::To).is_none() {
                        shared.subscriptions.remove(subscription);
                    }
                }
            }
            shared.flush();
        });
    }

    fn notify(&mut self, notify: Notify) {
        let Notify { id, of: s, cseq, state, bodies } = notify;
        let (body, kind) = joined(bodies);
        let package: &'static str = s.package.into();
        let now = self.now();
        let sent = self.agent.send(now, s.flow, |via, contact| {
            let mut notify = Message::request(Method::Notify, s.target).with(Name::Via, via);
            s.routes.into_iter().for_each(|r| notify.push(Name::Route, r));
            let mut notify = notify
                .with(Name::MaxForwards, "70")
                .with(Name::From, s.local)
                .with(Name::To, s.remote)
                .with(Name::CallId, s.call_id)
                .with(Name::CSeq, format!("{cseq} NOTIFY"))
                .with(Name::Contact, contact)
                .with(Name::Event, package)
                .with(Name::SubscriptionState, state);
            if !body.is_empty() {
                notify.push(Name::ContentType, kind);
                notify.body = body.into();
            }
            notify
        });
        self.notified.insert(sent, id);
        self.notifications += 1;
    }

    /// Whether an answer was to a notification; one that nobody wants ends its subscription.
    pub(super) fn notify_answered(&mut self, id: Id, answer: Option<&Message>) -> bool {
        let Some(subscription) = self.notified.remove(&id) else { return false };
        if !answer.and_then(Message::code).is_some_and(|c| (200..300).contains(&c) || c == 401 || c == 407) {
            self.subscriptions.remove(subscription);
        }
        true
    }

    /// What is known of everybody who is watched; nobody who is no more is in it.
    fn known(&self) -> BTreeMap<Watched, Known> {
        let watched = self.subscriptions.watched();
        let calls = self.calls.board.all();
        watched.into_iter().filter_map(|w| Some((w.clone(), self.known_among(&w, &calls)?))).collect()
    }

    fn known_of(&self, watched: &Watched) -> Option<Known> {
        self.known_among(watched, &self.calls.board.all())
    }

    fn known_among(&self, watched: &Watched, calls: &[call::board::CallView]) -> Option<Known> {
        let (picture, now) = (self.registrar.estate.picture(), self.now().wall);
        let Watched { domain, alias } = watched;
        let iface = &picture.domains.get(domain)?.aliases.get(alias)?.iface;
        let contacts = picture.registrations.get(domain).and_then(|all| all.get(iface));
        let registered = contacts.is_some_and(|c| c.iter().any(|r| r.expires > self.steady()));
        let dialogs = calls.iter().flat_map(|c| {
            c.legs.iter().filter(|l| l.iface == *iface).map(move |l| {
                let initiator = l.number == c.a;
                let state = match l.state {
                    "talking" => "confirmed",
                    "trying" | "calling" if c.state != "ringing" => "trying",
                    _ => "early",
                };
                let id = format!("{}-{}", c.call.rsplit('/').next().unwrap_or(&c.call), l.leg.0);
                let remote = match initiator {
                    true => c.b.clone(),
                    false if c.restricted => "anonymous".to_owned(),
                    false => c.a.clone(),
                };
                // A phone that rings can be picked up by its dialog (RFC 3891).
                let names = (state == "early" && !initiator).then(|| self.agent.dialog(l.leg)).flatten();
                Dialog { id, state, initiator, remote, names }
            })
        });
        let services = SHOWN.into_iter().filter_map(|s| {
            let active = service::active(&picture, now, domain, alias, s)?;
            Some((s.name(), active.options.get("number").cloned()))
        });
        let messages = picture.messages.get(&watched.domain).and_then(|d| d.get(&watched.alias));
        Some(Known {
            registered,
            dialogs: dialogs.collect(),
            services: services.collect(),
            messages: messages.copied().unwrap_or_default(),
        })
    }
}

/// Several bodies as one (RFC 2046).
fn joined(mut bodies: Vec<crate::subscriptions::Body>) -> (String, String) {
    const BOUNDARY: &str = "hypha-part";
    if bodies.len() < 2 {
        return bodies.pop().map(|(kind, body)| (body, kind.to_owned())).unwrap_or_default();
    }
    let mut all = String::new();
    for (kind, body) in bodies {
        all.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}\r\n",
            body.len()
        ));
    }
    all.push_str(&format!("--{BOUNDARY}--\r\n"));
    (all, format!("multipart/mixed;boundary={BOUNDARY}"))
}

/// The subscription that a tag of ours belongs to.
pub(super) fn number_of(tag: &str) -> Option<u64> {
    let (number, _) = tag.strip_prefix('s')?.split_once('.')?;
    u64::from_str_radix(number, 16).ok()
}
