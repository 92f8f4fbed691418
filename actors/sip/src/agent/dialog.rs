//! What comes in for a leg: requests in its dialog, answers, and the silence of the peer.

use std::time::{Duration, Instant};

use call::{Cause, LegEvent, LegId, Refer};

use super::{
    Agent, Alarm, Now, Output, Purpose, Silence,
    leg::{ALLOW, DECLINED, MIN_SE, State, reply},
    session_too_short,
};
use crate::{
    identifiers::Kind,
    transaction::{Flow, Id, T1, Transport},
    wire::{
        address,
        message::{Message, Method, Name},
        uri::{self, Uri},
    },
};

/// Longest pause between two copies of a reliable provisional answer, and how long they go on (RFC 3262, 3).
const RELIABLE_LONGEST: Duration = Duration::from_secs(32);
/// How long a BYE waits for the call to keep its end; the peer repeats it meanwhile (RFC 3261, timer E).
const HUNG_UP_LONGEST: Duration = Duration::from_secs(4);
/// Pause between two whole pictures that a peer wants.
const PICTURES_APART: Duration = Duration::from_secs(1);
/// Pause before a refused refresh is tried again (RFC 3261, 14.1: 2.1 to 4 seconds after 491).
const REFRESH_AGAIN: Duration = Duration::from_millis(2100);

impl Agent {
    /// An ACK that belongs to a dialog: to our 2xx.
    pub(super) fn acknowledge(&mut self, now: Now, message: &Message, flow: Flow) {
        let Some(id) = message.tag(&Name::To).and_then(|t| self.leg_of(t)) else { return };
        let leg = self.legs.get_mut(&id).filter(|l| l.same_dialog(message) && l.is_peer(flow));
        let Some(leg) = leg else { return };
        // The ACK has the number of its INVITE (RFC 3261, 13.2.2.4); another one's is a copy.
        if message.cseq().map(|(n, _)| n) != leg.unacknowledged_cseq {
            return;
        }
        let Some(transaction) = leg.unacknowledged.take() else { return };
        leg.offered_late = false;
        leg.ladder.add(now.wall, leg.flow, id, "ACK");
        self.answered.remove(&transaction);
        self.transactions.acknowledged(transaction);
        let sdp = body(message);
        self.event(id, LegEvent::Confirmed { sdp });
    }

    pub(super) fn cancelled(&mut self, now: Now, id: Id, message: &Message, flow: Flow) {
        let invite = self.transactions.cancelled(message, flow);
        let leg = invite.and_then(|i| self.invites.get(&i)).copied();
        let code = if invite.is_some() { 200 } else { 481 };
        // The tag is that of the answer to the INVITE (RFC 3261, 9.2).
        let tag = leg.map_or_else(|| "h0".to_owned(), |l| self.tag(l));
        let response = reply(message, code, Some(&tag));
        if invite.is_none() {
            // Without a transaction: its INVITE may come later, and its copies then cancel it.
            self.out.push(Output::Send(flow, response.to_bytes()));
            return self.transactions.abandon(id);
        }
        self.transactions.respond(now.at, id, &response);
        let Some(leg) = leg else {
            // It came in one batch with its INVITE, which waits to be adopted: it never is.
            let waits = |o: &Output| matches!(o, Output::Request(id, ..) if Some(*id) == invite);
            if let Some(at) = self.out.iter().position(waits)
                && let Output::Request(id, request, _) = self.out.remove(at)
            {
                self.respond(now, id, &reply(&request, 487, Some(&tag)));
            }
            return;
        };
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
        if leg.hung_up.is_some() {
            return self.respond(now, transaction, &reply(&message, 481, None));
        }
        if leg.remote_cseq.is_some_and(|last| number <= last) {
            return self.respond(now, transaction, &reply(&message, 500, None));
        }
        leg.remote_cseq = Some(number);
        if let Some(unknown) = super::leg::unsupported(&message) {
            // RFC 3261, 8.2.2.3; a BYE ends its dialog whatever it wants beside that.
            if method != Method::Bye {
                let response = reply(&message, 420, None).with(Name::Unsupported, unknown);
                return self.respond(now, transaction, &response);
            }
        }
        // The peer may have moved to another port or connection.
        if !leg.follows {
            leg.flow = flow;
        }
        match method {
            Method::Bye => {
                let cause = message.header(&Name::Reason).and_then(|r| Cause::from_reason(r));
                let cause = cause.unwrap_or(Cause::NORMAL);
                self.drop_pending(now, id);
                let Some(leg) = self.legs.get_mut(&id) else { return };
                if leg.state != State::Confirmed {
                    // It ends an early dialog: our INVITE is taken back, so that nothing waits for its final answer for ever.
                    let invite = leg.client.filter(|_| leg.state == State::Calling);
                    self.respond(now, transaction, &reply(&message, 200, None));
                    if let Some(invite) = invite {
                        self.transactions.cancel(now.at, invite, None);
                    }
                    return self.gone(id, cause, None);
                }
                // The call keeps the end of the conversation first; its release answers the BYE.
                leg.hung_up = Some((transaction, Box::new(message)));
                self.alarm(now.at + HUNG_UP_LONGEST, id, Alarm::HungUp);
                self.event(id, LegEvent::Released { cause, status: None });
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
        if session_too_short(&message) {
            return self.refuse_session(now, transaction, &message);
        }
        let Ok(sdp) = crate::wire::body::session(&message) else {
            return self.refuse_body(now, transaction, &message);
        };
        leg.retarget(&message);
        leg.take_session(&message);
        leg.refreshed = now.at;
        leg.server = Some(transaction);
        leg.request = Some(Box::new(message));
        self.event(id, LegEvent::Offer { sdp });
    }

    /// 415 for a body that is no description of a session.
    fn refuse_body(&mut self, now: Now, transaction: Id, message: &Message) {
        let response = reply(message, 415, None).with(Name::Accept, crate::wire::body::ACCEPT);
        self.respond(now, transaction, &response);
    }

    /// 422 with the shortest session that may be asked for (RFC 4028, 9).
    fn refuse_session(&mut self, now: Now, transaction: Id, message: &Message) {
        let response = reply(message, 422, None).with(Name::MinSe, MIN_SE.to_string());
        self.respond(now, transaction, &response);
    }

    fn update(&mut self, now: Now, id: LegId, transaction: Id, message: Message) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if session_too_short(&message) {
            return self.refuse_session(now, transaction, &message);
        }
        let Ok(sdp) = crate::wire::body::session(&message) else {
            return self.refuse_body(now, transaction, &message);
        };
        // Offers that cross, or meet one that waits for its answer (RFC 3311, 5.2).
        let early = leg.state != State::Confirmed;
        let ours = leg.offering.is_some() || leg.offered_late || leg.state == State::Calling && !leg.settled;
        if sdp.is_some() && ours {
            return self.respond(now, transaction, &reply(&message, 491, None));
        }
        let waits = if early { leg.state == State::Incoming && !leg.settled } else { leg.server.is_some() };
        if sdp.is_some() && (leg.update.is_some() || waits) {
            let response = reply(&message, 500, None).with(Name::RetryAfter, "2");
            return self.respond(now, transaction, &response);
        }
        leg.retarget(&message);
        leg.refreshed = now.at;
        leg.take_session(&message);
        let session = leg.session.filter(|_| !early);
        if let Some(session) = session {
            self.alarm_session(now, id, session);
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if sdp.is_none() {
            let flow = leg.flow;
            let mut response = reply(&message, 200, None);
            leg.session_headers(&mut response);
            response.push(Name::Contact, self.contact(flow));
            return self.respond(now, transaction, &response);
        }
        leg.update = Some((transaction, Box::new(message)));
        self.event(id, LegEvent::Offer { sdp });
    }

    fn prack(&mut self, now: Now, id: LegId, transaction: Id, message: &Message) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        // RFC 3262, 7.2: its number, and the INVITE's.
        let told = message.header(&Name::RAck).and_then(|r| {
            let mut parts = r.split_whitespace();
            let (rseq, cseq) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
            Some((rseq, cseq, parts.next()?.eq_ignore_ascii_case("INVITE")))
        });
        let rseq =
            told.filter(|(_, cseq, invite)| *invite && Some(*cseq) == leg.invite_cseq).map(|(n, ..)| n);
        let known = rseq.is_some_and(|n| n > 0 && n <= leg.rseq);
        let mut answered = None;
        let code = match &leg.reliable {
            Some(reliable) if rseq == Some(reliable.rseq) => {
                leg.settled |= reliable.settles;
                let offered = leg.offered_early && reliable.settles;
                leg.reliable = None;
                match body(message) {
                    sdp if offered => {
                        answered = Some(sdp);
                        200
                    }
                    Some(_) => 488,
                    None => 200,
                }
            }
            // It crossed our final answer, or comes again (RFC 3262, 3): 481 would end the dialog for its sender.
            _ if known => 200,
            _ => 481,
        };
        let answer = leg.waiting_answer.take_if(|_| leg.reliable.is_none());
        self.respond(now, transaction, &reply(message, code, None));
        if let Some(sdp) = answered {
            self.event(id, LegEvent::Confirmed { sdp });
        }
        if let Some(sdp) = answer {
            return self.answer(now, id, sdp);
        }
        let next = self.legs.get_mut(&id).filter(|l| l.reliable.is_none()).and_then(|l| l.queued.pop_front());
        if let Some((status, sdp)) = next {
            self.progress(now, id, status, sdp);
        }
    }

    fn info(&mut self, now: Now, id: LegId, transaction: Id, message: &Message) {
        let key = match message.content_type().as_deref() {
            Some("application/dtmf-relay") => relay_key(&message.body),
            Some("application/dtmf") => plain_key(&message.body),
            Some("application/media_control+xml") => {
                self.respond(now, transaction, &reply(message, 200, None));
                return self.media_control(now, id, &message.body);
            }
            None if message.body.is_empty() => None,
            _ => {
                let accept = "application/dtmf-relay, application/dtmf, application/media_control+xml";
                let response = reply(message, 415, None).with(Name::Accept, accept);
                return self.respond(now, transaction, &response);
            }
        };
        self.respond(now, transaction, &reply(message, 200, None));
        if let Some((key, millis)) = key {
            self.event(id, LegEvent::Key { key, millis });
        }
    }

    /// The peer wants a whole picture (RFC 5168); more often than once a second it is not asked for.
    fn media_control(&mut self, now: Now, id: LegId, body: &[u8]) {
        const WANTED: &[u8] = b"picture_fast_update";
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let often = leg.picture_wanted.is_some_and(|at| now.at.duration_since(at) < PICTURES_APART);
        if often || !body.windows(WANTED.len()).any(|w| w == WANTED) {
            return;
        }
        leg.picture_wanted = Some(now.at);
        self.event(id, LegEvent::PictureWanted);
    }

    fn refer(&mut self, now: Now, id: LegId, transaction: Id, message: Message) {
        let once =
            message.all(&Name::ReferTo).flat_map(|v| address::list(v).unwrap_or_default()).count() == 1;
        let Some(to) = message.address(&Name::ReferTo).filter(|_| once) else {
            return self.respond(now, transaction, &reply(&message, 400, None));
        };
        let busy = self.legs.get(&id).is_none_or(|l| l.refer.is_some() || l.referring);
        if busy || self.legs.get(&id).is_some_and(|l| l.state != State::Confirmed) {
            return self.respond(now, transaction, &reply(&message, 491, None));
        }
        let Ok(target) = Uri::parse(&to.uri) else {
            return self.respond(now, transaction, &reply(&message, 400, None));
        };
        if target.parameter("method").is_some_and(|m| !m.eq_ignore_ascii_case("INVITE")) {
            // Only calls are transferred here.
            return self.respond(now, transaction, &reply(&message, 501, None));
        }
        let replaces = target.headers.into_iter().flat_map(|h| h.split('&')).find_map(|h| {
            let (name, value) = h.split_once('=')?;
            name.eq_ignore_ascii_case("replaces").then(|| uri::unescape(value))
        });
        let refer = match replaces {
            Some(value) => self.replaced(&value).map_or(Refer::Unknown, |r| Refer::Leg(r.leg)),
            None => Refer::Number(target.number()),
        };
        if let Some(leg) = self.legs.get_mut(&id) {
            // RFC 4488: a phone that does not want to be told how it goes.
            let silent = Name::Other("Refer-Sub".into());
            leg.untold = message.headers.iter().any(|(n, v)| {
                n.as_str().eq_ignore_ascii_case(silent.as_str()) && v.trim().eq_ignore_ascii_case("false")
            });
            leg.refer = Some((transaction, Box::new(message)));
        }
        self.event(id, LegEvent::Refer(refer));
    }

    // ---- answers

    pub(super) fn response(&mut self, now: Now, message: &Message, from: Flow) {
        let Some(transaction) = self.transactions.answered(now.at, message, from) else { return };
        let Some(code) = message.code() else { return };
        let Some(purpose) = self.purposes.get(&transaction).copied() else {
            return;
        };
        if code >= 200 && !matches!(purpose, Purpose::Invite(_)) {
            self.purposes.remove(&transaction);
        }
        match purpose {
            Purpose::Invite(leg) => self.invite_answered(now, leg, transaction, code, message, from),
            Purpose::Offer(leg) if code >= 200 => self.offer_answered(now, leg, code, message),
            Purpose::Refresh(leg) if code >= 200 => {
                if code < 300 && message.cseq().is_some_and(|(_, m)| m == "INVITE") {
                    self.acknowledge_2xx(now, leg, message);
                }
                self.refresh_answered(now, leg, code, message);
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

    /// A refused refresh is tried again after a pause, until the session's time is over (RFC 4028, 10).
    fn refresh_answered(&mut self, now: Now, id: LegId, code: u16, message: &Message) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.client = None;
        if code < 300 {
            leg.refreshed = now.at;
            leg.agree_session(message);
            let session = leg.session;
            if let Some(session) = session {
                self.alarm_session(now, id, session);
            }
            return;
        }
        if code == 422
            && let Some(least) = min_se(message)
            && let Some((seconds, _)) = &mut leg.session
        {
            *seconds = least.max(*seconds);
        }
        if matches!(code, 405 | 501) && leg.peer_updates {
            // It said that it takes UPDATE, and does not.
            leg.peer_updates = false;
        }
        leg.refused_refreshes = leg.refused_refreshes.saturating_add(1);
        let spread = self.identifiers.derive(Kind::ClientNonce, id.0, leg.refused_refreshes) % 1900;
        let again = now.at + REFRESH_AGAIN * leg.refused_refreshes.min(8) + Duration::from_millis(spread);
        leg.session_alarm = Some(again);
        self.alarm(again, id, Alarm::Session);
        self.dialog_lives(now, id, code);
    }

    fn invite_answered(
        &mut self,
        now: Now,
        id: LegId,
        transaction: Id,
        code: u16,
        message: &Message,
        from: Flow,
    ) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let line = format!("{code} {}", crate::wire::message::reason(code));
        leg.ladder.add(now.wall, leg.flow, id, line);
        match code {
            ..200 => {
                let (tag, routes) = (message.tag(&Name::To).is_some(), code > 100);
                if tag && routes {
                    leg.learn(message);
                }
                if let Some(cause) = leg.give_up {
                    self.transactions.cancel(now.at, transaction, Some(cancel_reason(cause)));
                    return;
                }
                if code == 100 {
                    return self.event(id, LegEvent::Progress { status: 100, sdp: None });
                }
                if message.lists(&Name::Require, "100rel") {
                    // Copies, and those that come before an earlier one, are not looked at (RFC 3262, 4).
                    if !leg.next_reliable(message) {
                        return;
                    }
                    leg.settled |= body(message).is_some();
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
                        (false, _) => self.decline(now, id, message, from),
                    }
                    return;
                }
                leg.learn(message);
                leg.state = State::Confirmed;
                leg.client = None;
                leg.refreshed = now.at;
                leg.repeat = None;
                leg.agree_session(message);
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
            422 if self.lengthen(now, id, message) => {}
            300..=399 => {
                let contacts = message.all(&Name::Contact).filter_map(|c| address::list(c).ok()).flatten();
                // The best first (RFC 3261, 21.3.3 and 20.10).
                let mut contacts: Vec<_> = contacts.collect();
                contacts.sort_by_key(|c| std::cmp::Reverse(address::q_of(c.parameter("q"))));
                let to: Vec<String> = contacts
                    .into_iter()
                    .filter_map(|a| Uri::parse(&a.uri).ok().map(|u| u.number()))
                    .filter(|n| !n.is_empty())
                    .collect();
                self.event(id, LegEvent::Redirected { to });
                self.forget(id);
            }
            _ => {
                let cause = message.header(&Name::Reason).and_then(|r| Cause::from_reason(r));
                let status = if between_neighbours(code) { 502 } else { code };
                self.gone(id, cause.unwrap_or(Cause::of_status(code)), Some(status));
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
            "SIP/2.0/{} {host};rport;branch=z9hG4bKa{:016x}",
            flow.transport.upper(),
            self.identifiers.derive(Kind::AckBranch, id.0, cseq)
        )
    }

    /// ACK, and once BYE, to a dialog we do not want. Both go to where its 2xx came from, or to another port of the same host:
    /// a peer must not make the node send to a third party.
    fn decline(&mut self, now: Now, id: LegId, message: &Message, flow: Flow) {
        let Some(target) = message.address(&Name::Contact) else { return };
        let routed = message.all(&Name::RecordRoute).last().and_then(|r| address::list(r).ok()?.pop());
        let next = routed.map_or_else(|| target.uri.clone(), |r| r.uri);
        let named = Uri::parse(&next).ok().and_then(|u| u.socket()).map(Flow::udp);
        let flow = named.filter(|n| flow.transport == Transport::Udp && n.same_source(flow)).unwrap_or(flow);
        let tag = message.tag(&Name::To).unwrap_or_default().to_owned();
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let known = leg.declined.contains(&tag);
        if !known && leg.declined.len() >= DECLINED {
            return;
        }
        if !known {
            leg.declined.push(tag);
        }
        let number = message.cseq().map_or(1, |(n, _)| n);
        let mut routes = super::leg::routes(message, &Name::RecordRoute);
        routes.reverse();
        for (method, number) in [(Method::Ack, number), (Method::Bye, number + 1)] {
            if known && method == Method::Bye {
                continue;
            }
            let via = match method {
                Method::Ack => self.via_unique(flow, id),
                _ => self.via(flow),
            };
            let word = method.as_str().to_owned();
            let (uri, routes) = super::leg::addressed(&target.uri.clone().into(), &routes);
            let mut request = Message::request(method.clone(), uri).with(Name::Via, via);
            routes.into_iter().for_each(|r| request.push(Name::Route, r));
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

    pub(super) fn unanswered(&mut self, now: Now, transaction: Id, silence: Silence) {
        match self.purposes.remove(&transaction) {
            Some(Purpose::Invite(leg)) => {
                let trunk = self.legs.get(&leg).is_some_and(|l| l.trunk);
                let (cause, status) = match silence {
                    Silence::TimedOut => (Cause::TIMER, 408),
                    Silence::Undelivered if trunk => (Cause::OUT_OF_ORDER, 503),
                    Silence::Undelivered => (Cause::ABSENT, 480),
                };
                self.gone(leg, cause, Some(status));
            }
            Some(Purpose::Offer(leg)) => {
                if let Some(l) = self.legs.get_mut(&leg) {
                    l.offering = None;
                }
                self.event(leg, LegEvent::OfferAnswered(Err(408)));
                self.give_up(now, leg, Cause::NETWORK_OUT_OF_ORDER, Some(408));
            }
            Some(Purpose::Refresh(leg) | Purpose::InDialog(leg)) => {
                // The peer gets a BYE all the same: it may only have missed this request (RFC 4028, 10).
                if self.legs.contains_key(&leg) {
                    self.give_up(now, leg, Cause::NETWORK_OUT_OF_ORDER, Some(408));
                }
            }
            Some(Purpose::Own) => self.out.push(Output::Answer(transaction, None)),
            Some(Purpose::Nothing) | None => {}
        }
    }

    /// Our answer was never acknowledged: the session is ended with a BYE (RFC 3261, 13.3.1.4).
    pub(super) fn unacknowledged(&mut self, now: Now, transaction: Id) {
        if let Some(leg) = self.answered.remove(&transaction) {
            self.give_up(now, leg, Cause::NETWORK_OUT_OF_ORDER, Some(408));
        }
    }

    /// The call has not said in time that it kept the end: the peer's BYE is answered all the same.
    pub(super) fn hung_up_long_ago(&mut self, now: Now, id: LegId) {
        if self.legs.get(&id).is_some_and(|l| l.hung_up.is_some()) {
            self.release(now, id, Cause::NORMAL, None);
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
        let at = (now.at + reliable.pause).min(reliable.since + RELIABLE_LONGEST);
        let bytes = reliable.bytes.clone();
        self.out.push(Output::Send(flow, bytes));
        self.alarm(at, id, Alarm::Reliable);
    }

    fn refuse_unreachable(&mut self, now: Now, id: LegId) {
        self.give_up(now, id, Cause::TIMER, Some(504));
    }

    pub(super) fn session_due(&mut self, now: Now, at: Instant, id: LegId) {
        let Some(leg) = self.legs.get_mut(&id).filter(|l| l.session_alarm == Some(at)) else { return };
        let Some((seconds, ours)) = leg.session else { return };
        let limit = Duration::from_secs(u64::from(seconds));
        // A little before the session's end, for the BYE's sake (RFC 4028, 10).
        let end = leg.refreshed + limit - (limit / 3).min(Duration::from_secs(32));
        if now.at >= end {
            return self.give_up(now, id, Cause::TIMER, None);
        }
        let mut next = end;
        if ours {
            let half = leg.refreshed + limit / 2;
            let idle = leg.client.is_none() && leg.offering.is_none() && leg.server.is_none();
            match () {
                () if now.at < half => next = half,
                () if idle => self.refresh(now, id, seconds),
                // A request under way refreshes the session too, or is over soon.
                () => next = end.min(now.at + REFRESH_AGAIN),
            }
        }
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.session_alarm = Some(next);
        }
        self.alarm(next, id, Alarm::Session);
    }
}

/// Statuses that concern this node and its neighbour alone, and would mislead the caller: challenges, extensions, session
/// intervals and the like.
fn between_neighbours(code: u16) -> bool {
    matches!(code, 401 | 407 | 420 | 421 | 422 | 423 | 428 | 429 | 436..=440 | 469 | 470 | 489 | 494)
}

/// `Min-SE` of a 422.
pub(super) fn min_se(message: &Message) -> Option<u32> {
    message.header(&Name::MinSe)?.split(';').next()?.trim().parse().ok()
}

/// `Reason` of a CANCEL: that another phone has the call, or the cause (RFC 3326).
pub(super) fn cancel_reason(cause: Cause) -> String {
    match cause {
        Cause::ANSWERED_ELSEWHERE => "SIP;cause=200;text=\"Call completed elsewhere\"".to_owned(),
        cause => cause.reason_header(),
    }
}

/// The session description of a message.
pub(super) fn body(message: &Message) -> Option<bytes::Bytes> {
    crate::wire::body::session(message).ok().flatten()
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
