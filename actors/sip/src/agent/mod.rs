//! The user agent: legs over transactions. One plain value: messages, commands of calls and the time go in; bytes to
//! send, events for calls and requests outside dialogs come out.

mod command;
mod dialog;
mod leg;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use bytestring::ByteString;
use call::{Cause, Ladder, LegEvent, LegId};
use chrono::{DateTime, Utc};
use foldhash::HashMap;
use kit::Address;

pub use command::{Offers, Way};
pub use leg::reply;
pub(crate) use leg::routes;
pub(crate) use leg::{ALLOW, MIN_SE, SUPPORTED};
use leg::{Beginning, Leg, State};

use crate::{
    transaction::{self, Arrival, Flow, Id, Transactions, Transport},
    wire::{
        message::{Message, Method, Name, ParseError},
        validate,
    },
};

/// The moment of a step: for timers, and for people.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub at: Instant,
    pub wall: DateTime<Utc>,
}

#[derive(Debug)]
pub enum Output {
    Send(Flow, Bytes),
    Event {
        leg: LegId,
        call: Address,
        event: LegEvent,
    },
    /// A request outside any dialog; it waits for [`Agent::respond`], an INVITE perhaps for [`Agent::adopt`].
    Request(Id, Box<Message>, Flow),
    /// A request of [`Agent::send`] has its answer, or will never have one.
    Answer(Id, Option<Box<Message>>),
}

/// How this node names itself towards a peer: `host:port`.
pub type Locals = Box<dyn Fn(Transport, SocketAddr) -> String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Reliable,
    Session,
}

/// What a request of ours was sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Invite(LegId),
    /// An offer in a dialog.
    Offer(LegId),
    Refresh(LegId),
    /// Whose answer tells only whether the dialog still lives.
    InDialog(LegId),
    Own,
    Nothing,
}

pub struct Agent {
    transactions: Transactions,
    legs: HashMap<LegId, Leg>,
    /// Legs of each call.
    by_call: HashMap<Address, Vec<LegId>>,
    purposes: HashMap<Id, Purpose>,
    /// INVITEs of others that are under way, for CANCEL.
    invites: HashMap<Id, LegId>,
    alarms: BinaryHeap<Reverse<(Instant, LegId, Alarm)>>,
    locals: Locals,
    salt: u64,
    out: Vec<Output>,
}

/// What an INVITE of somebody becomes.
#[derive(Debug, Clone, Copy)]
pub struct Adopted<'a> {
    pub leg: LegId,
    pub ladder: &'a Ladder,
    /// Requests go where the dialog says, not back the way the INVITE came.
    pub follows: bool,
}

/// Transactions at most; beyond them a request gets 503.
const LIMIT: usize = 500_000;

impl Agent {
    pub fn new(salt: u64, locals: Locals) -> Self {
        Self {
            transactions: Transactions::new(salt),
            legs: HashMap::default(),
            by_call: HashMap::default(),
            purposes: HashMap::default(),
            invites: HashMap::default(),
            alarms: BinaryHeap::new(),
            locals,
            salt,
            out: Vec::new(),
        }
    }

    pub fn outputs(&mut self) -> Vec<Output> {
        self.collect();
        std::mem::take(&mut self.out)
    }

    pub fn deadline(&self) -> Option<Instant> {
        let alarm = self.alarms.peek().map(|Reverse((at, ..))| *at);
        [alarm, self.transactions.deadline()].into_iter().flatten().min()
    }

    /// Legs and transactions, for limits and inspection.
    pub fn sizes(&self) -> (usize, usize) {
        (self.legs.len(), self.transactions.len())
    }

    fn collect(&mut self) {
        let outputs: Vec<transaction::Output> = self.transactions.outputs().collect();
        for output in outputs {
            match output {
                transaction::Output::Send(flow, bytes) => self.out.push(Output::Send(flow, bytes)),
                transaction::Output::Unanswered(id) => self.unanswered(id),
                transaction::Output::Unacknowledged(id) => self.unacknowledged(id),
            }
        }
    }

    fn event(&mut self, id: LegId, event: LegEvent) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match leg.call.clone() {
            Some(call) => self.out.push(Output::Event { leg: id, call, event }),
            None => leg.early.push(event),
        }
    }

    /// The leg has ended: its call is told, and it is forgotten.
    fn gone(&mut self, id: LegId, cause: Cause, status: Option<u16>) {
        self.event(id, LegEvent::Released { cause, status });
        self.forget(id);
    }

    /// We end a leg: its call is told, and the peer, if it still listens.
    fn give_up(&mut self, now: Now, id: LegId, cause: Cause, status: Option<u16>) {
        self.event(id, LegEvent::Released { cause, status });
        self.release(now, id, cause, status);
    }

    fn forget(&mut self, id: LegId) {
        let Some(leg) = self.legs.get(&id) else { return };
        if leg.call.is_some() || !leg.early.iter().any(|e| matches!(e, LegEvent::Released { .. })) {
            if let Some(invite) = leg.server {
                self.invites.remove(&invite);
            }
            if let Some(client) = leg.invited {
                self.purposes.remove(&client);
            }
            let Some(gone) = self.legs.remove(&id) else { return };
            let asked = [gone.update.map(|(t, _)| t), gone.refer.map(|(t, _)| t), gone.server];
            for transaction in asked.into_iter().flatten() {
                self.transactions.abandon(transaction);
            }
            if let Some(call) = gone.call {
                self.leave(&call, id);
            }
        }
    }

    fn leave(&mut self, call: &Address, leg: LegId) {
        if let Some(legs) = self.by_call.get_mut(call) {
            legs.retain(|l| *l != leg);
            if legs.is_empty() {
                self.by_call.remove(call);
            }
        }
    }

    fn join(&mut self, call: &Address, leg: LegId) {
        let legs = self.by_call.entry(call.clone()).or_default();
        if !legs.contains(&leg) {
            legs.push(leg);
        }
    }

    // ---- bytes

    /// Takes what came in as one datagram or one message of a stream.
    pub fn receive(&mut self, now: Now, data: &Bytes, flow: Flow) {
        match Message::parse(data) {
            Ok(message) if message.code().is_some() => self.response(now, &message),
            Ok(message) => self.request(now, message, flow),
            Err(ParseError::Malformed(message, text)) => self.refuse_malformed(&message, 400, text, flow),
            Err(ParseError::Version(message)) => {
                self.refuse_malformed(&message, 505, "only SIP/2.0 is spoken here", flow)
            }
            Err(ParseError::Hopeless(_)) => {}
        }
        self.collect();
    }

    /// Without a transaction: whoever sends this again is told again.
    fn refuse_malformed(&mut self, message: &Message, code: u16, text: &str, flow: Flow) {
        if message.method().is_none_or(|m| *m == Method::Ack) || message.via().is_none() {
            return;
        }
        let mut message = message.clone();
        let to = stamp(&mut message, flow);
        let response = reply(&message, code, Some("h0")).with(Name::Warning, format!("399 hypha \"{text}\""));
        self.out.push(Output::Send(to, response.to_bytes()));
    }

    fn request(&mut self, now: Now, mut message: Message, flow: Flow) {
        if let Err(fault) = validate::request(&message) {
            return self.refuse_malformed(&message, fault.code, fault.text, flow);
        }
        let flow = stamp(&mut message, flow);
        let Some(method) = message.method().cloned() else { return };
        if self.transactions.len() > LIMIT && message.tag(&Name::To).is_none() {
            return self.refuse_malformed(&message, 503, "too many requests at once", flow);
        }
        let id = match self.transactions.receive(now.at, &message, flow) {
            Some(Arrival::New(id)) => id,
            Some(_) => return,
            None => return self.acknowledge(now, &message),
        };
        if method == Method::Cancel {
            return self.cancelled(now, id, &message);
        }
        let ours = message.tag(&Name::To).map(|tag| self.leg_of(tag));
        match ours {
            Some(leg) => match leg.and_then(|l| self.legs.get(&l)).filter(|l| l.same_dialog(&message)) {
                Some(l) => {
                    l.ladder.add(now.wall, l.flow, l.id, method.as_str());
                    self.in_dialog(now, l.id, id, message, flow);
                }
                // A subscription is no leg; whose it is, is known elsewhere.
                None if method == Method::Subscribe => {
                    self.out.push(Output::Request(id, Box::new(message), flow));
                }
                None => self.respond(now, id, &reply(&message, 481, None)),
            },
            None => self.out.push(Output::Request(id, Box::new(message), flow)),
        }
    }

    /// Our tags hold their leg's number, and a check.
    pub fn tag(&self, leg: LegId) -> String {
        format!("h{:x}.{:x}", leg.0, self.check(leg))
    }

    fn check(&self, leg: LegId) -> u64 {
        (self.salt.rotate_left(17) ^ leg.0).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
    }

    /// The leg that a tag of ours belongs to.
    pub fn leg_of(&self, tag: &str) -> Option<LegId> {
        let (number, check) = tag.strip_prefix('h')?.split_once('.')?;
        let leg = LegId(u64::from_str_radix(number, 16).ok()?);
        (u64::from_str_radix(check, 16).ok()? == self.check(leg)).then_some(leg)
    }

    /// The leg that a `Replaces` value means (RFC 3891): its tags, ours among them.
    pub fn replaced(&self, value: &str) -> Option<LegId> {
        let tag = |name: &str| {
            value
                .split(';')
                .skip(1)
                .find_map(|p| p.trim().strip_prefix(name)?.trim().strip_prefix('=').map(str::trim))
        };
        let call_id = value.split(';').next()?.trim();
        let leg = [tag("to-tag"), tag("from-tag")].into_iter().flatten().find_map(|t| self.leg_of(t))?;
        self.legs.get(&leg).filter(|l| *l.call_id == *call_id).map(|l| l.id)
    }

    pub(crate) fn via(&self, flow: Flow) -> String {
        let branch = self.transactions.next_branch();
        format!("SIP/2.0/{} {};rport;branch={branch}", flow.transport.upper(), self.host(flow))
    }

    pub(crate) fn host(&self, flow: Flow) -> String {
        (self.locals)(flow.transport, flow.peer)
    }

    pub(crate) fn contact(&self, flow: Flow) -> String {
        match flow.transport {
            Transport::Udp => format!("<sip:hypha@{}>", self.host(flow)),
            other => format!("<sip:hypha@{};transport={other}>", self.host(flow)),
        }
    }

    // ---- outside dialogs

    /// Answers a request.
    pub fn respond(&mut self, now: Now, id: Id, response: &Message) {
        let code = response.code().unwrap_or(0);
        self.transactions.respond(now.at, id, response);
        metrics::counter!("hypha_sip_responses_total", "code" => CODES[usize::from(code / 100).min(6)])
            .increment(1);
        self.collect();
    }

    /// Sends a request outside any dialog; [`Output::Answer`] follows. `build` is given a `Via`.
    pub fn send(&mut self, now: Now, flow: Flow, build: impl FnOnce(String, String) -> Message) -> Id {
        let message = build(self.via(flow), self.contact(flow));
        let id = self.transactions.request(now.at, message, flow);
        self.purposes.insert(id, Purpose::Own);
        self.collect();
        id
    }

    /// Makes an INVITE the beginning of a leg. 100 goes out at once.
    pub fn adopt(&mut self, now: Now, id: Id, message: Box<Message>, flow: Flow, adopted: Adopted<'_>) {
        let Adopted { leg, ladder, follows } = adopted;
        let trying = reply(&message, 100, None);
        let header = |name| message.header(&name).cloned().unwrap_or_default();
        let mut new = Leg::new(Beginning {
            id: leg,
            state: State::Incoming,
            flow,
            call_id: message.call_id().into(),
            local: &header(Name::To),
            local_tag: self.tag(leg),
            remote: header(Name::From),
            target: ByteString::new(),
            routes: leg::routes(&message, &Name::RecordRoute),
            ladder,
            now: now.at,
            follows,
        });
        new.remote_tag = message.tag(&Name::From).map(str::to_owned);
        new.remote_cseq = message.cseq().map(|(n, _)| n);
        new.server = Some(id);
        new.wants_reliable = message.lists(&Name::Require, "100rel");
        new.session = session(&message);
        new.peer_updates = message.lists(&Name::Allow, "UPDATE");
        new.peer_timer = message.lists(&Name::Supported, "timer");
        new.retarget(&message);
        ladder.add(now.wall, new.flow, leg, "INVITE");
        new.request = Some(message);
        self.legs.insert(leg, new);
        self.invites.insert(id, leg);
        self.transactions.respond(now.at, id, &trying);
        self.collect();
    }

    /// The call that a leg belongs to from now on.
    pub fn assign(&mut self, leg: LegId, call: &Address) {
        let Some(l) = self.legs.get_mut(&leg) else { return };
        l.call = Some(call.clone());
        let early = std::mem::take(&mut l.early);
        self.join(call, leg);
        for event in early {
            let over = matches!(event, LegEvent::Released { .. });
            self.event(leg, event);
            if over {
                self.forget(leg);
            }
        }
    }

    /// A leg has another call now.
    pub fn moved(&mut self, leg: LegId, call: &Address) {
        let Some(l) = self.legs.get_mut(&leg) else { return };
        if let Some(before) = l.call.replace(call.clone()) {
            self.leave(&before, leg);
        }
        self.join(call, leg);
    }

    /// Ends all legs of a call that is no more.
    pub fn abandon(&mut self, now: Now, call: &Address) {
        let left = self.by_call.get(call).cloned().unwrap_or_default();
        for leg in left {
            self.release(now, leg, Cause::TEMPORARY_FAILURE, Some(500));
        }
    }

    /// Ends a leg that has no call, and will have none.
    pub fn refuse(&mut self, now: Now, leg: LegId, cause: Cause) {
        if let Some(l) = self.legs.get_mut(&leg) {
            // What happened meanwhile is nobody's news.
            l.early.clear();
        }
        self.release(now, leg, cause, None);
        self.collect();
    }

    // ---- time and transport

    pub fn timeout(&mut self, now: Now) {
        self.transactions.timeout(now.at);
        self.collect();
        while let Some(Reverse((at, ..))) = self.alarms.peek()
            && *at <= now.at
        {
            let Some(Reverse((_, leg, alarm))) = self.alarms.pop() else { break };
            match alarm {
                Alarm::Reliable => self.repeat_reliable(now, leg),
                Alarm::Session => self.session_due(now, leg),
            }
        }
        self.collect();
    }

    /// A stream has gone; a leg on it may come back on another.
    pub fn connection_lost(&mut self, connection: u64) {
        self.transactions.lost(connection);
        self.collect();
    }

    /// Bytes for a stream could not be sent at all.
    pub fn undeliverable(&mut self, data: &Bytes) {
        let Ok(message) = Message::parse(data) else { return };
        let id = message.via().and_then(|v| self.transactions.id_of(v.branch()?));
        if let (Some(id), true) = (id, message.code().is_none()) {
            self.transactions.undeliverable(id);
            self.collect();
        }
    }

    /// Looks after the session's time: half of it where we refresh, all of it where the peer does.
    fn alarm_session(&mut self, now: Now, leg: LegId, (seconds, ours): (u32, bool)) {
        let after = if ours { half(seconds) } else { Duration::from_secs(u64::from(seconds)) };
        self.alarm(now.at + after, leg, Alarm::Session);
    }

    fn alarm(&mut self, at: Instant, leg: LegId, alarm: Alarm) {
        self.alarms.push(Reverse((at, leg, alarm)));
    }
}

const CODES: [&str; 7] = ["0", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx"];

/// Notes in the topmost `Via` where the request came from (RFC 3581; RFC 3261, 18.2.1); where answers go.
fn stamp(message: &mut Message, flow: Flow) -> Flow {
    let Some(via) = message.via() else { return flow };
    let rport = via.parameter("rport").is_some();
    let port = via.port().unwrap_or(if flow.transport == Transport::Tls { 5061 } else { 5060 });
    let host = via
        .sent_by
        .rsplit_once(':')
        .filter(|(_, p)| p.parse::<u16>().is_ok())
        .map_or(via.sent_by, |(h, _)| h);
    let ip = flow.peer.ip().to_string();
    let differs = host.trim_matches(['[', ']']) != ip;
    let to = match flow.transport {
        Transport::Udp if !rport => Flow { peer: SocketAddr::new(flow.peer.ip(), port), ..flow },
        _ => flow,
    };
    if !rport && !differs {
        return to;
    }
    let Some((_, line)) = message.headers.iter_mut().find(|(n, _)| *n == Name::Via) else { return to };
    let pieces = crate::wire::address::pieces(line, ',').unwrap_or_default();
    let Some((first, rest)) = pieces.split_first() else { return to };
    let mut stamped = String::with_capacity(line.len() + 40);
    for (at, part) in first.split(';').enumerate() {
        let name = part.split('=').next().unwrap_or_default().trim();
        if at > 0 && (name.eq_ignore_ascii_case("rport") || name.eq_ignore_ascii_case("received")) {
            continue;
        }
        if at > 0 {
            stamped.push(';');
        }
        stamped.push_str(part.trim());
    }
    stamped.push_str(&format!(";received={ip}"));
    if rport {
        stamped.push_str(&format!(";rport={}", flow.peer.port()));
    }
    for piece in rest {
        stamped.push_str(", ");
        stamped.push_str(piece.trim());
    }
    *line = stamped.into();
    to
}

/// What a request says about the session's time: seconds, and whether we refresh it.
pub(crate) fn session(message: &Message) -> Option<(u32, bool)> {
    let value = message.header(&Name::SessionExpires)?;
    let seconds = value.split(';').next()?.trim().parse().ok()?;
    let ours = value.split(';').skip(1).any(|p| p.trim().eq_ignore_ascii_case("refresher=uas"));
    Some((seconds, ours))
}

fn half(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds / 2))
}
