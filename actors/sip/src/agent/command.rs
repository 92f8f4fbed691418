//! What a call tells its legs, as requests and answers.

use bytes::Bytes;
use call::{Cause, Ladder, LegCommand, LegId, Outgoing, Party};
use kit::Address;

use super::{
    Agent, Alarm, Now, Output, Purpose,
    dialog::{cancel_reason, min_se},
    leg::{ALLOW, Beginning, Leg, MIN_SE, Reliable, Repeat, SESSION, SUPPORTED, State, reply},
};
use crate::{
    digest::Login,
    identifiers::Kind,
    transaction::{Flow, T1},
    wire::{
        address::display,
        message::{Message, Method, Name, reason},
        uri::{escape_header, escape_user},
    },
};

/// How a leg is reached.
#[derive(Debug, Clone)]
pub struct Way {
    pub flow: Flow,
    pub uri: String,
    pub routes: Vec<String>,
    /// The peer is a network that may know numbers not to be shown.
    pub trusted: bool,
    /// Requests go where the dialog says; else back the way the peer's came, which may be behind a NAT.
    pub follows: bool,
    /// What we are known by there, where it asks.
    pub login: Option<Login>,
    pub offers: Offers,
    /// The peer does not answer questions: it may take calls all the same, but is not waited for as long.
    pub doubtful: bool,
}

/// How long a doubtful peer has for its first answer.
const DOUBT: std::time::Duration = std::time::Duration::from_secs(6);

/// What a peer is offered; some cannot bear to be.
#[derive(Debug, Clone, Copy)]
pub struct Offers {
    /// Session timers (RFC 4028).
    pub timers: bool,
    /// Reliable provisional answers (RFC 3262).
    pub reliable: bool,
}

impl Default for Offers {
    fn default() -> Self {
        Self { timers: true, reliable: true }
    }
}

const SDP: &str = "application/sdp";
/// Provisional answers that wait for a PRACK.
const QUEUED: usize = 8;

/// Asks for a whole picture (RFC 5168, 7.1).
const PICTURE: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><media_control><vc_primitive><to_encoder>\
                       <picture_fast_update/></to_encoder></vc_primitive></media_control>";

impl Agent {
    pub fn command(&mut self, now: Now, id: LegId, call: &Address, command: LegCommand) {
        match self.legs.get(&id) {
            Some(leg) if leg.call.is_none() => self.assign(id, call),
            // The peer has hung up: only its BYE is left to answer.
            Some(leg) if leg.hung_up.is_some() && !matches!(command, LegCommand::Release { .. }) => return,
            Some(_) => {}
            None => return,
        }
        match command {
            // The endpoint finds the way first.
            LegCommand::Call(_) => {}
            LegCommand::Progress { status, sdp } => self.progress(now, id, status, sdp),
            LegCommand::Answer { sdp } => self.answer(now, id, sdp),
            LegCommand::Offer { sdp } => self.offer(now, id, sdp),
            LegCommand::OfferAnswer(answer) => self.answer_offer(now, id, answer),
            LegCommand::Transferred { status } => self.transferred(now, id, status),
            LegCommand::Key { key, millis } => {
                let body = format!("Signal={key}\r\nDuration={millis}\r\n");
                self.inform(now, id, "application/dtmf-relay", body);
            }
            LegCommand::Picture => self.inform(now, id, "application/media_control+xml", PICTURE.to_owned()),
            LegCommand::Release { cause, status } => self.release(now, id, cause, status),
        }
        self.collect(now);
    }

    /// Calls somebody.
    pub fn call(&mut self, now: Now, id: LegId, call: &Address, ladder: &Ladder, out: &Outgoing, way: Way) {
        let flow = way.flow;
        let plus = |party: &Party| if party.international && way.trusted { "+" } else { "" };
        let uri = |party: &Party| format!("sip:{}{}@{}", plus(party), escape_user(&party.number), out.domain);
        let from = match (out.from.restricted, out.from.number.is_empty()) {
            (true, _) | (_, true) => "\"Anonymous\" <sip:anonymous@anonymous.invalid>".to_owned(),
            _ => format!("{}<{}>", display(&out.from.name), uri(&out.from)),
        };
        let mut leg = Leg::new(Beginning {
            id,
            state: State::Calling,
            flow,
            call_id: self.identifiers.seal(Kind::CallId, id.0).into(),
            local: &from,
            local_tag: self.tag(id),
            remote: format!("<{}>", uri(&out.to)).into(),
            target: way.uri.into(),
            routes: way.routes.into_iter().map(Into::into).collect(),
            ladder,
            now: now.at,
            follows: way.follows,
        });
        leg.call = Some(call.clone());
        leg.trunk = way.trusted;
        leg.sdp = Some(out.sdp.clone());
        self.legs.insert(id, leg);
        self.join(call, id);
        let (via, contact) = (self.via(flow), self.contact(flow));
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let mut invite = leg.request(Method::Invite, via, Some(&contact));
        for (name, value) in &mut invite.headers {
            if *name == Name::MaxForwards {
                *value = out.max_forwards.to_string().into();
            }
        }
        invite.push(Name::Allow, ALLOW);
        let Offers { timers, reliable } = way.offers;
        let offered = SUPPORTED.split(", ").filter(|o| match *o {
            "100rel" => reliable,
            "timer" => timers,
            _ => true,
        });
        invite.push(Name::Supported, offered.collect::<Vec<_>>().join(", "));
        if timers {
            invite.push(Name::SessionExpires, SESSION.to_string());
            invite.push(Name::MinSe, MIN_SE.to_string());
        }
        if way.trusted && !out.from.number.is_empty() {
            invite.push(Name::AssertedIdentity, format!("{}<{}>", display(&out.from.name), uri(&out.from)));
            if out.from.restricted {
                invite.push(Name::Privacy, "id");
            }
        }
        if let Some(uui) = &out.uui {
            invite.push(Name::UserToUser, uui.as_str());
        }
        for (index, number) in out.history.iter().enumerate() {
            let value = format!("<sip:{}@{}>;index={}", escape_user(number), out.domain, index + 1);
            invite.push(Name::HistoryInfo, value);
        }
        let invite = invite.with_body(SDP, out.sdp.clone());
        leg.ladder.add(now.wall, id, leg.flow, format_args!("INVITE {}", leg.target));
        leg.repeat = Some(Box::new(Repeat { invite: invite.clone(), login: way.login, tries: 3 }));
        let transaction = match way.doubtful {
            true => self.transactions.request_within(now.at, invite, flow, DOUBT),
            false => self.transactions.request(now.at, invite, flow),
        };
        leg.client = Some(transaction);
        leg.invited = Some(transaction);
        self.purposes.insert(transaction, Purpose::Invite(id));
        self.collect(now);
    }

    /// Sends our INVITE again with the answer to the peer's challenge, once.
    pub(super) fn prove(&mut self, now: Now, id: LegId, challenge: &Message) -> bool {
        let Some(leg) = self.legs.get_mut(&id).filter(|l| l.give_up.is_none()) else { return false };
        let Some(repeat) = leg.repeat.as_mut() else { return false };
        let Some(login) = repeat.login.take() else { return false };
        let cnonce = self.identifiers.derive(Kind::ClientNonce, id.0, 0);
        let Some((name, value)) = login.proof(challenge, "INVITE", repeat.invite.uri(), cnonce) else {
            return false;
        };
        repeat.invite.push(name, value);
        self.invite_again(now, id, "INVITE with credentials")
    }

    /// Sends our INVITE again with the session that the peer wants at least (RFC 4028, 7.3).
    pub(super) fn lengthen(&mut self, now: Now, id: LegId, refusal: &Message) -> bool {
        let Some(leg) = self.legs.get_mut(&id).filter(|l| l.give_up.is_none()) else { return false };
        let Some(repeat) = leg.repeat.as_mut().filter(|r| r.tries > 0) else { return false };
        // A day: what asks for more is a fault, and no session would ever be looked after.
        let Some(least) = min_se(refusal).filter(|s| (MIN_SE..=86_400).contains(s)) else { return false };
        repeat.tries -= 1;
        let mut longer = false;
        for (name, value) in &mut repeat.invite.headers {
            match name {
                Name::SessionExpires => {
                    longer = true;
                    let asked: u32 = value.parse().unwrap_or(SESSION);
                    *value = asked.max(least).to_string().into();
                }
                Name::MinSe => *value = least.to_string().into(),
                _ => {}
            }
        }
        longer && self.invite_again(now, id, "INVITE with a longer session")
    }

    fn invite_again(&mut self, now: Now, id: LegId, line: &str) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        leg.cseq += 1;
        let (flow, number) = (leg.flow, leg.cseq);
        leg.ladder.add(now.wall, id, flow, line);
        let via = self.via(flow);
        let Some(repeat) = self.legs.get_mut(&id).and_then(|l| l.repeat.as_mut()) else { return false };
        for (name, value) in &mut repeat.invite.headers {
            match name {
                Name::Via => *value = via.clone().into(),
                Name::CSeq => *value = format!("{number} INVITE").into(),
                _ => {}
            }
        }
        let invite = repeat.invite.clone();
        let transaction = self.transactions.request(now.at, invite, flow);
        if let Some(leg) = self.legs.get_mut(&id) {
            if let Some(before) = leg.invited.replace(transaction) {
                self.purposes.remove(&before);
            }
            leg.client = Some(transaction);
        }
        self.purposes.insert(transaction, Purpose::Invite(id));
        true
    }

    /// A leg is not tried now: its trunk could not take a call a moment ago, and there are others.
    pub fn avoided(&mut self, id: LegId, call: &Address) {
        self.out.push(Output::Event { leg: id, call: call.clone(), event: call::LegEvent::Avoided });
    }

    /// There is no way to where a call wants to go.
    pub fn unreachable(&mut self, id: LegId, call: &Address) {
        let event = call::LegEvent::Released { cause: Cause::OUT_OF_ORDER, status: Some(502) };
        self.out.push(Output::Event { leg: id, call: call.clone(), event });
    }

    pub(super) fn progress(&mut self, now: Now, id: LegId, status: u16, sdp: Option<Bytes>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (State::Incoming, Some(transaction)) = (leg.state, leg.server) else { return };
        let Some(request) = &leg.request else { return };
        if leg.wants_reliable && leg.reliable.is_some() {
            if leg.queued.len() < QUEUED {
                leg.queued.push_back((status, sdp));
            }
            return;
        }
        let mut response = reply(request, status, Some(&leg.local_tag));
        leg.ladder.add(now.wall, id, leg.flow, format_args!("{status} {}", reason(status)));
        let flow = leg.flow;
        let reliable = leg.wants_reliable;
        let sdp = sdp.filter(|_| !leg.offered_early);
        leg.offered_early |= reliable && sdp.is_some() && super::dialog::body(request).is_none();
        if reliable {
            leg.rseq += 1;
            response.push(Name::Require, "100rel");
            response.push(Name::RSeq, leg.rseq.to_string());
        }
        let rseq = leg.rseq;
        let contact = self.contact(flow);
        response.push(Name::Contact, contact);
        response.push(Name::Allow, ALLOW);
        if let Some(sdp) = sdp {
            response = response.with_body(SDP, sdp);
        }
        if reliable {
            let (bytes, settles) = (response.to_bytes(), !response.body.is_empty());
            let kept = Reliable { rseq, bytes, pause: T1, since: now.at, settles };
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.reliable = Some(kept);
            }
            self.alarm(now.at + T1, id, Alarm::Reliable);
        }
        self.transactions.respond(now.at, transaction, &response);
    }

    pub(super) fn answer(&mut self, now: Now, id: LegId, sdp: Bytes) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if leg.state != State::Incoming {
            return;
        }
        if leg.reliable.as_ref().is_some_and(|r| r.settles) {
            // RFC 3262, 3: not before the PRACK; without one, the INVITE is refused in time.
            leg.waiting_answer = Some(sdp);
            return;
        }
        let (Some(transaction), Some(request)) = (leg.server.take(), leg.request.take()) else { return };
        leg.state = State::Confirmed;
        leg.reliable = None;
        // The final answer says all that they would.
        leg.queued.clear();
        leg.sdp = Some(sdp.clone());
        leg.refreshed = now.at;
        self.final_2xx(now, id, transaction, &request, sdp);
    }

    /// 200 to an INVITE, the first or a later one.
    fn final_2xx(&mut self, now: Now, id: LegId, transaction: u64, request: &Message, sdp: Bytes) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let flow = leg.flow;
        let mut response = reply(request, 200, Some(&leg.local_tag));
        leg.unacknowledged = Some(transaction);
        leg.unacknowledged_cseq = request.cseq().map(|(n, _)| n);
        // Of this INVITE alone: later ones have offers and answers of their own.
        let settled = std::mem::take(&mut leg.offered_early);
        leg.offered_late = super::dialog::body(request).is_none() && !settled;
        leg.ladder.add(now.wall, id, leg.flow, "200 OK");
        let session = leg.session;
        leg.session_headers(&mut response);
        self.answered.insert(transaction, id);
        self.invites.remove(&transaction);
        if let Some(session) = session {
            self.alarm_session(now, id, session);
        }
        let contact = self.contact(flow);
        let response =
            response.with(Name::Contact, contact).with(Name::Allow, ALLOW).with(Name::Supported, SUPPORTED);
        let response = if settled { response } else { response.with_body(SDP, sdp) };
        self.respond(now, transaction, &response);
    }

    fn offer(&mut self, now: Now, id: LegId, sdp: Bytes) {
        let Some(leg) = self.legs.get(&id).filter(|l| l.state == State::Confirmed && l.offering.is_none())
        else {
            return self.event(id, call::LegEvent::OfferAnswered(Err(491)));
        };
        let flow = leg.flow;
        let (via, contact) = (self.via(flow), self.contact(flow));
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.sdp = Some(sdp.clone());
        let request =
            leg.request(Method::Invite, via, Some(&contact)).with(Name::Allow, ALLOW).with_body(SDP, sdp);
        leg.ladder.add(now.wall, id, leg.flow, "INVITE (re-INVITE)");
        let sent = self.transactions.request(now.at, request, flow);
        leg.offering = Some(sent);
        self.purposes.insert(sent, Purpose::Offer(id));
    }

    fn answer_offer(&mut self, now: Now, id: LegId, answer: Result<Bytes, u16>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Ok(sdp) = &answer {
            leg.sdp = Some(sdp.clone());
        }
        if let Some((transaction, request)) = leg.update.take() {
            let flow = leg.flow;
            let confirmed = leg.state == State::Confirmed;
            let response = match answer {
                Ok(sdp) => {
                    let mut response = reply(&request, 200, None);
                    if confirmed {
                        leg.session_headers(&mut response);
                    }
                    response.with(Name::Contact, self.contact(flow)).with_body(SDP, sdp)
                }
                Err(status) => reply(&request, status, None),
            };
            return self.respond(now, transaction, &response);
        }
        if leg.state != State::Confirmed {
            return;
        }
        let (Some(transaction), Some(request)) = (leg.server.take(), leg.request.take()) else { return };
        match answer {
            Ok(sdp) => self.final_2xx(now, id, transaction, &request, sdp),
            Err(status) => self.respond(now, transaction, &reply(&request, status, None)),
        }
    }

    /// The answer to a REFER, and then what its subscription is told (RFC 3515).
    fn transferred(&mut self, now: Now, id: LegId, status: u16) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Some((transaction, request)) = leg.refer.take() {
            if status >= 300 {
                return self.respond(now, transaction, &reply(&request, status, None));
            }
            let (flow, untold) = (leg.flow, leg.untold);
            leg.referring = !untold;
            let mut response = reply(&request, 202, None).with(Name::Contact, self.contact(flow));
            if untold {
                response.push(Name::Other("Refer-Sub".into()), "false");
            }
            self.respond(now, transaction, &response);
            if untold {
                return;
            }
        } else if !leg.referring {
            return;
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let over = status >= 200;
        if over {
            leg.referring = false;
        }
        let flow = leg.flow;
        let (via, contact) = (self.via(flow), self.contact(flow));
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let state = if over { "terminated;reason=noresource" } else { "active;expires=120" };
        let fragment = format!("SIP/2.0 {status} {}\r\n", reason(status));
        let notify = leg
            .request(Method::Notify, via, Some(&contact))
            .with(Name::Event, "refer")
            .with(Name::SubscriptionState, state)
            .with_body("message/sipfrag;version=2.0", Bytes::from(fragment));
        leg.ladder.add(now.wall, id, leg.flow, format_args!("NOTIFY {status}"));
        let sent = self.transactions.request(now.at, notify, flow);
        self.purposes.insert(sent, Purpose::InDialog(id));
    }

    /// Sends an INFO.
    fn inform(&mut self, now: Now, id: LegId, content: &'static str, body: String) {
        let Some(flow) = self.legs.get(&id).filter(|l| l.state == State::Confirmed).map(|l| l.flow) else {
            return;
        };
        let via = self.via(flow);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let info = leg.request(Method::Info, via, None).with_body(content, Bytes::from(body));
        let sent = self.transactions.request(now.at, info, flow);
        // A peer that does not take INFO goes on without.
        self.purposes.insert(sent, Purpose::Nothing);
    }

    /// Asks the peer to bring the other party elsewhere (RFC 3515): to a number, or in the place of another leg of ours
    /// (RFC 3891).
    pub fn transfer(&mut self, now: Now, id: LegId, to: &str, instead: Option<LegId>) {
        let replaces = instead.and_then(|l| self.legs.get(&l)).map(|l| {
            let tag = l.remote_tag.clone().unwrap_or_default();
            let value = format!("{};to-tag={tag};from-tag={}", l.call_id, l.local_tag);
            format!("?Replaces={}", escape_header(&value))
        });
        let Some(flow) = self.legs.get(&id).filter(|l| l.state == State::Confirmed).map(|l| l.flow) else {
            return;
        };
        let (via, contact) = (self.via(flow), self.contact(flow));
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let to = format!("<{to}{}>", replaces.unwrap_or_default());
        let request = leg.request(Method::Refer, via, Some(&contact)).with(Name::ReferTo, to);
        let sent = self.transactions.request(now.at, request, flow);
        self.purposes.insert(sent, Purpose::InDialog(id));
        self.collect(now);
    }

    pub(super) fn refresh(&mut self, now: Now, id: LegId, seconds: u32) {
        let Some(leg) = self.legs.get(&id) else { return };
        let flow = leg.flow;
        let (via, contact) = (self.via(flow), self.contact(flow));
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let method = if leg.peer_updates { Method::Update } else { Method::Invite };
        let mut request = leg
            .request(method.clone(), via, Some(&contact))
            .with(Name::Supported, SUPPORTED)
            .with(Name::SessionExpires, format!("{seconds};refresher=uac"));
        if method == Method::Invite
            && let Some(sdp) = leg.sdp.clone()
        {
            request = request.with_body(SDP, sdp);
        }
        leg.ladder.add(now.wall, id, leg.flow, format_args!("{method} (refresh)"));
        let sent = self.transactions.request(now.at, request, flow);
        leg.client = Some(sent);
        self.purposes.insert(sent, Purpose::Refresh(id));
    }

    /// Ends a leg in the way its state asks for.
    pub(super) fn release(&mut self, now: Now, id: LegId, cause: Cause, status: Option<u16>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.reliable = None;
        match leg.state {
            State::Incoming => {
                let status = status.filter(|s| *s >= 300).unwrap_or(cause.status());
                leg.ladder.add(now.wall, id, leg.flow, format_args!("{status} {}", reason(status)));
                if let (Some(transaction), Some(request)) = (leg.server.take(), leg.request.take()) {
                    let response = reply(&request, status, Some(&leg.local_tag))
                        .with(Name::Reason, cause.reason_header());
                    self.invites.remove(&transaction);
                    self.respond(now, transaction, &response);
                }
                self.forget(id);
            }
            State::Calling => {
                let Some(transaction) = leg.client else { return self.forget(id) };
                if leg.give_up.is_none() {
                    leg.ladder.add(now.wall, id, leg.flow, "CANCEL");
                }
                leg.give_up = Some(cause);
                // Without a provisional answer it waits for one; the leg goes with the final answer.
                self.transactions.cancel(now.at, transaction, Some(cancel_reason(cause)));
            }
            State::Confirmed if leg.hung_up.is_some() => {
                if let Some((transaction, bye)) = leg.hung_up.take() {
                    self.respond(now, transaction, &reply(&bye, 200, None));
                }
                self.forget(id);
            }
            State::Confirmed => {
                let flow = leg.flow;
                let pending = leg.server.take().zip(leg.request.take());
                if let Some((transaction, request)) = pending {
                    self.respond(now, transaction, &reply(&request, 487, None));
                }
                let via = self.via(flow);
                let Some(leg) = self.legs.get_mut(&id) else { return };
                leg.ladder.add(now.wall, id, leg.flow, "BYE");
                let bye = leg.request(Method::Bye, via, None).with(Name::Reason, cause.reason_header());
                if let Some(transaction) = leg.unacknowledged.take() {
                    self.answered.remove(&transaction);
                    // RFC 3261, 15: the ACK is not waited for; the 2xx need not go on.
                    self.transactions.acknowledged(transaction);
                }
                let sent = self.transactions.request(now.at, bye, flow);
                self.purposes.insert(sent, Purpose::Nothing);
                self.forget(id);
            }
        }
    }
}
