//! What comes in for a leg: requests in its dialog, answers, and the silence of the peer.

use std::time::Duration;

use call::{Cause, LegEvent, LegId, Refer};

use super::{
    Agent, Alarm, Now, Output, Purpose, half,
    leg::{ALLOW, MIN_SE, State, reply},
    session,
};
use crate::{
    transaction::{Flow, Id, T1},
    wire::{
        address,
        message::{Message, Method, Name},
        uri::{self, Uri},
    },
};

/// Longest pause between two copies of a reliable provisional answer, and how long they go on (RFC 3262, 3).
const RELIABLE_LONGEST: Duration = Duration::from_secs(32);

impl Agent {
    /// An ACK that belongs to a dialog: to our 2xx.
    pub(super) fn acknowledge(&mut self, now: Now, message: &Message) {
        let Some(id) = message.tag(&Name::To).and_then(|t| self.leg_of(t)) else { return };
        let Some(leg) = self.legs.get_mut(&id).filter(|l| l.same_dialog(message)) else { return };
        let Some(transaction) = leg.unacknowledged.take() else { return };
        leg.ladder.add(now.wall, leg.flow, id, "ACK");
        self.transactions.acknowledged(transaction);
        let sdp = body(message);
        self.event(id, LegEvent::Confirmed { sdp });
    }

    pub(super) fn cancelled(&mut self, now: Now, id: Id, message: &Message) {
        let invite = self.transactions.cancelled(message);
        let leg = invite.and_then(|i| self.invites.get(&i)).copied();
        let code = if invite.is_some() { 200 } else { 481 };
        self.transactions.respond(now.at, id, &reply(message, code, Some("h0")));
        let Some(leg) = leg else { return };
        let Some(l) = self.legs.get_mut(&leg).filter(|l| l.state == State::Incoming) else { return };
        l.ladder.add(now.wall, l.flow, leg, "CANCEL");
        l.reliable = None;
        if let (Some(invite), Some(request)) = (l.server.take(), l.request.take()) {
            let tag = l.local_tag.clone();
            self.invites.remove(&invite);
            self.transactions.respond(now.at, invite, &reply(&request, 487, Some(&tag)));
        }
        let cause =
            message.header(&Name::Reason).and_then(|r| Cause::from_reason(r)).unwrap_or(Cause::NORMAL);
        self.gone(leg, cause, Some(487));
    }

    pub(super) fn in_dialog(&mut self, now: Now, id: LegId, transaction: Id, message: Message, flow: Flow) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(method) = message.method().cloned() else { return };
        let number = message.cseq().map_or(0, |(n, _)| n);
        if leg.remote_cseq.is_some_and(|last| number <= last) {
            return self.respond(now, transaction, &reply(&message, 500, None));
        }
        leg.remote_cseq = Some(number);
        // The peer may have moved to another port or connection.
        if !leg.follows {
            leg.flow = flow;
        }
        match method {
            Method::Bye => {
                let cause = message.header(&Name::Reason).and_then(|r| Cause::from_reason(r));
                self.respond(now, transaction, &reply(&message, 200, None));
                self.drop_pending(now, id);
                self.gone(id, cause.unwrap_or(Cause::NORMAL), None);
            }
            Method::Invite => self.reinvite(now, id, transaction, message),
            Method::Update => self.update(now, id, transaction, message),
            Method::Prack => self.prack(now, id, transaction, &message),
            Method::Info => self.info(now, id, transaction, &message),
            Method::Refer => self.refer(now, id, transaction, message),
            Method::Options => {
                let response = reply(&message, 200, None).with(Name::Allow, ALLOW);
                self.respond(now, transaction, &response);
            }
            Method::Notify | Method::Message => self.respond(now, transaction, &reply(&message, 200, None)),
            _ => {
                let response = reply(&message, 405, None).with(Name::Allow, ALLOW);
                self.respond(now, transaction, &response);
            }
        }
    }

    /// Requests of the peer that its BYE leaves without an answer.
    fn drop_pending(&mut self, now: Now, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let invite = leg.server.take().zip(leg.request.take());
        let pending: Vec<(Id, Box<Message>)> =
            [invite, leg.update.take(), leg.refer.take()].into_iter().flatten().collect();
        for (transaction, request) in pending {
            self.respond(now, transaction, &reply(&request, 487, None));
        }
    }

    fn reinvite(&mut self, now: Now, id: LegId, transaction: Id, message: Message) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        // Two offers at once (RFC 3261, 14.2): whoever was second tries again.
        let glare = match () {
            _ if leg.state != State::Confirmed || leg.server.is_some() => Some(500),
            _ if leg.client.is_some() || leg.offering.is_some() || leg.update.is_some() => Some(491),
            _ => None,
        };
        if let Some(code) = glare {
            let mut response = reply(&message, code, None);
            if code == 500 {
                response.push(Name::RetryAfter, "2");
            }
            return self.respond(now, transaction, &response);
        }
        leg.retarget(&message);
        if let Some(session) = session(&message) {
            leg.session = Some(session);
        }
        leg.refreshed = now.at;
        leg.server = Some(transaction);
        let sdp = body(&message);
        leg.request = Some(Box::new(message));
        self.event(id, LegEvent::Offer { sdp });
    }

    fn update(&mut self, now: Now, id: LegId, transaction: Id, message: Message) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.retarget(&message);
        leg.refreshed = now.at;
        if let Some(session) = session(&message) {
            leg.session = Some(session);
        }
        let sdp = body(&message);
        if sdp.is_none() {
            let mut response = reply(&message, 200, None);
            if let Some(expires) = message.header(&Name::SessionExpires) {
                response.push(Name::SessionExpires, expires.clone());
            }
            let contact = self.legs.get(&id).map(|l| self.contact(l.flow));
            contact.into_iter().for_each(|c| response.push(Name::Contact, c));
            return self.respond(now, transaction, &response);
        }
        if leg.update.is_some()
            || leg.offering.is_some()
            || leg.server.is_some() && leg.state == State::Confirmed
        {
            return self.respond(now, transaction, &reply(&message, 491, None));
        }
        if leg.state != State::Confirmed {
            // Before the answer, the session is not settled yet.
            return self.respond(now, transaction, &reply(&message, 504, None));
        }
        leg.update = Some((transaction, Box::new(message)));
        self.event(id, LegEvent::Offer { sdp });
    }

    fn prack(&mut self, now: Now, id: LegId, transaction: Id, message: &Message) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let rseq = message.header(&Name::RAck).and_then(|r| r.split_whitespace().next()?.parse::<u32>().ok());
        let code = match &leg.reliable {
            Some(reliable) if rseq == Some(reliable.rseq) => {
                leg.reliable = None;
                if body(message).is_some() { 488 } else { 200 }
            }
            _ => 481,
        };
        self.respond(now, transaction, &reply(message, code, None));
    }

    fn info(&mut self, now: Now, id: LegId, transaction: Id, message: &Message) {
        let key = match message.content_type().as_deref() {
            Some("application/dtmf-relay") => relay_key(&message.body),
            Some("application/dtmf") => plain_key(&message.body),
            None if message.body.is_empty() => None,
            _ => {
                let accept = "application/dtmf-relay, application/dtmf";
                let response = reply(message, 415, None).with(Name::Accept, accept);
                return self.respond(now, transaction, &response);
            }
        };
        self.respond(now, transaction, &reply(message, 200, None));
        if let Some((key, millis)) = key {
            self.event(id, LegEvent::Key { key, millis });
        }
    }

    fn refer(&mut self, now: Now, id: LegId, transaction: Id, message: Message) {
        let Some(to) = message.address(&Name::ReferTo) else {
            return self.respond(now, transaction, &reply(&message, 400, None));
        };
        let busy = self.legs.get(&id).is_none_or(|l| l.refer.is_some() || l.referring);
        if busy || self.legs.get(&id).is_some_and(|l| l.state != State::Confirmed) {
            return self.respond(now, transaction, &reply(&message, 491, None));
        }
        let Ok(target) = Uri::parse(&to.uri) else {
            return self.respond(now, transaction, &reply(&message, 400, None));
        };
        let replaces = target.headers.into_iter().flat_map(|h| h.split('&')).find_map(|h| {
            let (name, value) = h.split_once('=')?;
            name.eq_ignore_ascii_case("replaces").then(|| uri::unescape(value))
        });
        let refer = match replaces {
            Some(value) => self.replaced(&value).map_or(Refer::Unknown, Refer::Leg),
            None => Refer::Number(target.number()),
        };
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.refer = Some((transaction, Box::new(message)));
        }
        self.event(id, LegEvent::Refer(refer));
    }

    // ---- answers

    pub(super) fn response(&mut self, now: Now, message: &Message) {
        let Some(transaction) = self.transactions.answered(now.at, message) else { return };
        let Some(code) = message.code() else { return };
        let Some(purpose) = self.purposes.get(&transaction).copied() else {
            return;
        };
        if code >= 200 && !matches!(purpose, Purpose::Invite(_)) {
            self.purposes.remove(&transaction);
        }
        match purpose {
            Purpose::Invite(leg) => self.invite_answered(now, leg, transaction, code, message),
            Purpose::Offer(leg) if code >= 200 => self.offer_answered(now, leg, code, message),
            Purpose::Refresh(leg) if code >= 200 => {
                if let Some(l) = self.legs.get_mut(&leg) {
                    l.client = None;
                    if code < 300 {
                        l.refreshed = now.at;
                    }
                }
                if code < 300 && message.cseq().is_some_and(|(_, m)| m == "INVITE") {
                    self.acknowledge_2xx(now, leg, message);
                }
                self.dialog_lives(now, leg, code);
            }
            Purpose::InDialog(leg) if code >= 200 => self.dialog_lives(now, leg, code),
            Purpose::Own if code >= 200 => {
                self.out.push(Output::Answer(transaction, Some(Box::new(message.clone()))))
            }
            _ => {}
        }
    }

    /// An answer that says the peer knows nothing of the dialog ends it (RFC 3261, 12.2.1.2).
    fn dialog_lives(&mut self, now: Now, leg: LegId, code: u16) {
        if matches!(code, 481 | 408) && self.legs.contains_key(&leg) {
            self.give_up(now, leg, Cause::NETWORK_OUT_OF_ORDER, Some(code));
        }
    }

    fn invite_answered(&mut self, now: Now, id: LegId, transaction: Id, code: u16, message: &Message) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let line = format!("{code} {}", crate::wire::message::reason(code));
        leg.ladder.add(now.wall, leg.flow, id, line);
        match code {
            ..200 => {
                let (tag, routes) = (message.tag(&Name::To).is_some(), code > 100);
                if tag && routes {
                    leg.learn(message);
                }
                if leg.give_up.is_some() {
                    self.transactions.cancel(now.at, transaction);
                    return;
                }
                if code == 100 {
                    return;
                }
                if message.lists(&Name::Require, "100rel") {
                    self.send_prack(now, id, message);
                }
                self.event(id, LegEvent::Progress { status: code, sdp: body(message) });
            }
            200..300 => {
                if leg.state == State::Confirmed {
                    let same = leg.remote_tag.as_deref() == message.tag(&Name::To);
                    match (same, leg.ack.clone()) {
                        (true, Some(ack)) => self.out.push(Output::Send(leg.flow, ack)),
                        (true, None) => {}
                        // Another phone behind a fork answered as well.
                        (false, _) => self.hang_up_stranger(now, message),
                    }
                    return;
                }
                leg.learn(message);
                leg.state = State::Confirmed;
                leg.client = None;
                leg.refreshed = now.at;
                // The 2xx says who refreshes; `uac` are we.
                leg.session = session(message).map(|(seconds, uas)| (seconds, !uas));
                let session = leg.session;
                let given_up = leg.give_up;
                if let Some(session) = session {
                    self.alarm_session(now, id, session);
                }
                self.acknowledge_2xx(now, id, message);
                match given_up {
                    Some(cause) => {
                        self.release(now, id, cause, None);
                    }
                    None => self.event(id, LegEvent::Answered { sdp: body(message) }),
                }
            }
            401 | 407 if self.prove(now, id, message) => {}
            300..=399 => {
                let contacts = message.all(&Name::Contact).filter_map(|c| address::list(c).ok()).flatten();
                let to: Vec<String> = contacts
                    .filter_map(|a| Uri::parse(&a.uri).ok().map(|u| u.number()))
                    .filter(|n| !n.is_empty())
                    .collect();
                self.event(id, LegEvent::Redirected { to });
                self.forget(id);
            }
            _ => {
                let cause = message.header(&Name::Reason).and_then(|r| Cause::from_reason(r));
                self.gone(id, cause.unwrap_or(Cause::of_status(code)), Some(code));
            }
        }
    }

    fn acknowledge_2xx(&mut self, now: Now, id: LegId, message: &Message) {
        let Some(leg) = self.legs.get(&id) else { return };
        let flow = leg.flow;
        let via = self.via_unique(flow, id);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let number = message.cseq().map_or(leg.cseq, |(n, _)| n);
        let ack = leg.numbered(Method::Ack, number, via, None).to_bytes();
        leg.ack = Some(ack.clone());
        leg.ladder.add(now.wall, id, leg.flow, "ACK");
        self.out.push(Output::Send(flow, ack));
    }

    /// A branch for an ACK, which has no transaction.
    fn via_unique(&self, flow: Flow, id: LegId) -> String {
        let cseq = self.legs.get(&id).map_or(0, |l| l.cseq);
        let host = self.host(flow);
        format!(
            "SIP/2.0/{} {host};rport;branch=z9hG4bKa{:x}.{:x}.{cseq}",
            flow.transport.upper(),
            id.0,
            self.salt
        )
    }

    /// ACK and BYE to a dialog we do not want.
    fn hang_up_stranger(&mut self, now: Now, message: &Message) {
        let Some(target) = message.address(&Name::Contact) else { return };
        let peer = Uri::parse(&target.uri)
            .ok()
            .and_then(|u| format!("{}:{}", u.host, u.port.unwrap_or(5060)).parse().ok());
        let Some(peer) = peer else { return };
        let flow = Flow::udp(peer);
        let number = message.cseq().map_or(1, |(n, _)| n);
        for (method, number) in [(Method::Ack, number), (Method::Bye, number + 1)] {
            let via = self.via(flow);
            let word = method.as_str().to_owned();
            let mut request = Message::request(method.clone(), target.uri.clone()).with(Name::Via, via);
            for name in [Name::From, Name::To, Name::CallId] {
                if let Some(value) = message.header(&name) {
                    request.push(name, value.clone());
                }
            }
            request.push(Name::CSeq, format!("{number} {word}"));
            request.push(Name::MaxForwards, "70");
            match method {
                Method::Ack => self.out.push(Output::Send(flow, request.to_bytes())),
                _ => {
                    let id = self.transactions.request(now.at, request, flow);
                    self.purposes.insert(id, Purpose::Nothing);
                }
            }
        }
    }

    fn send_prack(&mut self, now: Now, id: LegId, message: &Message) {
        let rseq = message.header(&Name::RSeq).cloned().unwrap_or_default();
        let cseq = message.header(&Name::CSeq).cloned().unwrap_or_default();
        let Some(flow) = self.legs.get(&id).map(|l| l.flow) else { return };
        let via = self.via(flow);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.ladder.add(now.wall, id, leg.flow, "PRACK");
        let request = leg.request(Method::Prack, via, None).with(Name::RAck, format!("{rseq} {cseq}"));
        let sent = self.transactions.request(now.at, request, flow);
        self.purposes.insert(sent, Purpose::InDialog(id));
    }

    fn offer_answered(&mut self, now: Now, id: LegId, code: u16, message: &Message) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.offering = None;
        leg.client = None;
        if code < 300 {
            leg.retarget(message);
            leg.refreshed = now.at;
            if message.cseq().is_some_and(|(_, m)| m == "INVITE") {
                self.acknowledge_2xx(now, id, message);
            }
            self.event(id, LegEvent::OfferAnswered(Ok(body(message))));
        } else {
            self.event(id, LegEvent::OfferAnswered(Err(code)));
            self.dialog_lives(now, id, code);
        }
    }

    // ---- silence

    pub(super) fn unanswered(&mut self, transaction: Id) {
        match self.purposes.remove(&transaction) {
            Some(Purpose::Invite(leg)) => self.gone(leg, Cause::TIMER, Some(408)),
            Some(Purpose::Offer(leg)) => {
                if let Some(l) = self.legs.get_mut(&leg) {
                    l.offering = None;
                }
                self.event(leg, LegEvent::OfferAnswered(Err(408)));
                self.gone(leg, Cause::NETWORK_OUT_OF_ORDER, Some(408));
            }
            Some(Purpose::Refresh(leg) | Purpose::InDialog(leg)) => {
                if self.legs.contains_key(&leg) {
                    self.gone(leg, Cause::NETWORK_OUT_OF_ORDER, Some(408));
                }
            }
            Some(Purpose::Own) => self.out.push(Output::Answer(transaction, None)),
            Some(Purpose::Nothing) | None => {}
        }
    }

    /// Nobody acknowledged our answer (RFC 3261, 13.3.1.4): the call is not one.
    pub(super) fn unacknowledged(&mut self, transaction: Id) {
        let leg = self.legs.values().find(|l| l.unacknowledged == Some(transaction)).map(|l| l.id);
        if let Some(leg) = leg {
            self.gone(leg, Cause::NETWORK_OUT_OF_ORDER, Some(408));
        }
    }

    pub(super) fn repeat_reliable(&mut self, now: Now, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let flow = leg.flow;
        let Some(reliable) = leg.reliable.as_mut() else { return };
        if now.at.duration_since(reliable.since) >= RELIABLE_LONGEST {
            // RFC 3262, 3: the INVITE is refused then.
            leg.reliable = None;
            return self.refuse_unreachable(now, id);
        }
        reliable.pause = (reliable.pause * 2).max(T1);
        let (at, bytes) = (now.at + reliable.pause, reliable.bytes.clone());
        self.out.push(Output::Send(flow, bytes));
        self.alarm(at, id, Alarm::Reliable);
    }

    fn refuse_unreachable(&mut self, now: Now, id: LegId) {
        self.give_up(now, id, Cause::TIMER, Some(504));
    }

    pub(super) fn session_due(&mut self, now: Now, id: LegId) {
        let Some(leg) = self.legs.get(&id) else { return };
        let Some((seconds, ours)) = leg.session else { return };
        let since = now.at.duration_since(leg.refreshed);
        let limit = Duration::from_secs(u64::from(seconds));
        if !ours {
            if since >= limit {
                // Nobody has refreshed it (RFC 4028, 10).
                return self.give_up(now, id, Cause::TIMER, None);
            }
            let at = leg.refreshed + limit;
            return self.alarm(at, id, Alarm::Session);
        }
        if since >= half(seconds) && leg.client.is_none() && leg.offering.is_none() && leg.server.is_none() {
            self.refresh(now, id, seconds.max(MIN_SE));
        }
        self.alarm(now.at + half(seconds).max(Duration::from_secs(1)), id, Alarm::Session);
    }
}

/// The session description of a message.
pub(super) fn body(message: &Message) -> Option<bytes::Bytes> {
    let sdp = message.content_type().is_some_and(|t| t == "application/sdp" || t == "multipart/mixed");
    (sdp && !message.body.is_empty()).then(|| message.body.clone())
}

/// `Signal=5\r\nDuration=160`
fn relay_key(body: &[u8]) -> Option<(char, u32)> {
    let text = std::str::from_utf8(body).ok()?;
    let field = |name: &str| {
        text.lines().find_map(|l| {
            let (n, v) = l.split_once('=')?;
            n.trim().eq_ignore_ascii_case(name).then(|| v.trim())
        })
    };
    let millis = field("duration").and_then(|d| d.parse().ok()).unwrap_or(160);
    Some((key(field("signal")?)?, millis))
}

fn plain_key(body: &[u8]) -> Option<(char, u32)> {
    Some((key(std::str::from_utf8(body).ok()?.trim())?, 160))
}

fn key(text: &str) -> Option<char> {
    let named = match text {
        "10" => Some('*'),
        "11" => Some('#'),
        _ => None,
    };
    named
        .or_else(|| {
            let mut chars = text.chars();
            chars.next().filter(|_| chars.next().is_none())
        })
        .map(|c| c.to_ascii_uppercase())
        .filter(|c| "0123456789*#ABCD".contains(*c))
}
