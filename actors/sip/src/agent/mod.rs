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
use ipnet::IpNet;
use kit::Address;

pub use command::{Offers, Way};
pub use leg::reply;
pub(crate) use leg::{ALLOW, MIN_SE, SUPPORTED};
use leg::{Beginning, Leg, State};
pub(crate) use leg::{routes, unsupported};

use crate::{
    identifiers::{Identifiers, Kind},
    transaction::{self, Arrival, Flow, Id, Transactions, Transport},
    wire::{
        message::{Message, Method, Name, ParseError},
        uri::Uri,
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
    /// A request in a leg's dialog from another host than the leg's peer: its sender must prove to be the peer. It waits
    /// for [`Agent::admit`] or [`Agent::respond`].
    Unproven(LegId, Id, Box<Message>, Flow),
    /// A request of [`Agent::send`] has its answer, or will never have one.
    Answer(Id, Option<Box<Message>>),
}

/// Whether answers to a request without `rport` go to the port it came from, not to the one its `Via` names: to phones behind a
/// NAT that do not know RFC 3581.
pub type Symmetric = Box<dyn Fn(&Message) -> bool>;

/// How this node names itself towards a peer: `host:port`.
pub type Locals = Box<dyn Fn(Transport, SocketAddr) -> String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Reliable,
    Session,
    HungUp,
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
    /// INVITEs under way, by what is the same in all copies of one.
    merged: std::collections::HashMap<MergeKey, LegId>,
    purposes: HashMap<Id, Purpose>,
    /// INVITEs of others that are under way, for CANCEL.
    invites: HashMap<Id, LegId>,
    /// Our answers to INVITEs that wait for their ACK.
    answered: HashMap<Id, LegId>,
    alarms: BinaryHeap<Reverse<(Instant, LegId, Alarm)>>,
    locals: Locals,
    symmetric: Symmetric,
    identifiers: Identifiers,
    out: Vec<Output>,
}

/// The peer of a leg: only it may speak in the leg's dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// By domain and interface.
    Subscriber(String, String),
    /// By domain and name, with the networks that its neighbour speaks from.
    Trunk(String, String, Vec<IpNet>),
}

/// What an INVITE of somebody becomes.
#[derive(Debug, Clone, Copy)]
pub struct Adopted<'a> {
    pub leg: LegId,
    pub ladder: &'a Ladder,
    /// Requests go where the dialog says, not back the way the INVITE came.
    pub follows: bool,
}

/// Call-ID, number and tag of a request.
pub(super) type MergeKey = (String, u32, String);

fn merge_key(request: &Message) -> MergeKey {
    let number = request.cseq().map_or(0, |(n, _)| n);
    let tag = request.tag(&Name::From).unwrap_or_default();
    (request.call_id().to_owned(), number, tag.to_owned())
}

/// Transactions at most; beyond them a request gets 503.
const LIMIT: usize = 500_000;

impl Agent {
    pub fn new(identifiers: Identifiers, locals: Locals) -> Self {
        Self {
            transactions: Transactions::new(identifiers.clone()),
            legs: HashMap::default(),
            by_call: HashMap::default(),
            merged: std::collections::HashMap::new(),
            purposes: HashMap::default(),
            invites: HashMap::default(),
            answered: HashMap::default(),
            alarms: BinaryHeap::new(),
            locals,
            symmetric: Box::new(|_| false),
            identifiers,
            out: Vec::new(),
        }
    }

    /// Says for which requests answers go to the port they came from.
    pub fn symmetric(mut self, symmetric: Symmetric) -> Self {
        self.symmetric = symmetric;
        self
    }

    pub fn outputs(&mut self) -> Vec<Output> {
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

    /// Whether requests of ours, such as a last BYE, still wait for their answer.
    pub fn awaits(&self) -> bool {
        self.transactions.awaits()
    }

    fn collect(&mut self, now: Now) {
        loop {
            let outputs: Vec<transaction::Output> = self.transactions.outputs().collect();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    transaction::Output::Send(flow, bytes) => self.out.push(Output::Send(flow, bytes)),
                    transaction::Output::Unanswered(id) => self.unanswered(now, id, Silence::TimedOut),
                    transaction::Output::Undelivered(id) => self.unanswered(now, id, Silence::Undelivered),
                    transaction::Output::Unacknowledged(id) => self.unacknowledged(now, id),
                }
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
            if let Some(key) = &gone.merge_key {
                self.merged.remove(key);
            }
            let asked = [gone.update.map(|(t, _)| t), gone.refer.map(|(t, _)| t), gone.server];
            for transaction in asked.into_iter().flatten() {
                self.transactions.abandon(transaction);
            }
            if let Some(answer) = gone.unacknowledged {
                self.answered.remove(&answer);
                self.transactions.acknowledged(answer);
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
            Ok(message) if message.code().is_some() => self.response(now, &message, flow),
            Ok(message) => self.request(now, message, flow),
            Err(ParseError::Malformed(message, text)) => self.refuse_malformed(&message, 400, text, flow),
            Err(ParseError::Version(message)) => {
                self.refuse_malformed(&message, 505, "only SIP/2.0 is spoken here", flow)
            }
            Err(ParseError::Hopeless(_)) => {}
        }
        self.collect(now);
    }

    /// Without a transaction: whoever sends this again is told again.
    fn refuse_malformed(&mut self, message: &Message, code: u16, text: &str, flow: Flow) {
        if message.method().is_none_or(|m| *m == Method::Ack) || message.via().is_none() {
            return;
        }
        let mut message = message.clone();
        let to = stamp(&mut message, flow, false);
        let response = reply(&message, code, Some("h0")).with(Name::Warning, format!("399 hypha \"{text}\""));
        self.out.push(Output::Send(to, response.to_bytes()));
    }

    fn request(&mut self, now: Now, mut message: Message, flow: Flow) {
        if let Err(fault) = validate::request(&message) {
            return self.refuse_malformed(&message, fault.code, fault.text, flow);
        }
        let symmetric = flow.transport == Transport::Udp && (self.symmetric)(&message);
        let flow = stamp(&mut message, flow, symmetric);
        let Some(method) = message.method().cloned() else { return };
        if self.transactions.len() > LIMIT && message.tag(&Name::To).is_none() {
            metrics::counter!("hypha_sip_refused_total", "reason" => "transactions").increment(1);
            return self.refuse_malformed(&message, 503, "too many requests at once", flow);
        }
        let id = match self.transactions.receive(now.at, &message, flow) {
            Some(Arrival::New(id)) => id,
            Some(_) => return,
            None => return self.acknowledge(now, &message, flow),
        };
        if method == Method::Cancel {
            return self.cancelled(now, id, &message, flow);
        }
        let ours = message.tag(&Name::To).map(|tag| self.leg_of(tag));
        match ours {
            Some(leg) => match leg.and_then(|l| self.legs.get(&l)).filter(|l| l.same_dialog(&message)) {
                Some(l) if !l.is_peer(flow) => {
                    self.out.push(Output::Unproven(l.id, id, Box::new(message), flow));
                }
                Some(l) => self.admit(now, l.id, id, message, flow),
                // A subscription is no leg; whose it is, is known elsewhere.
                None if method == Method::Subscribe => {
                    self.out.push(Output::Request(id, Box::new(message), flow));
                }
                None => self.respond(now, id, &reply(&message, 481, None)),
            },
            // It came by two ways (RFC 3261, 8.2.2.2).
            None if method == Method::Invite && self.merged.contains_key(&merge_key(&message)) => {
                self.respond(now, id, &reply(&message, 482, None));
            }
            None => self.out.push(Output::Request(id, Box::new(message), flow)),
        }
    }

    /// Takes a request in a leg's dialog whose sender is the leg's peer.
    pub fn admit(&mut self, now: Now, leg: LegId, id: Id, message: Message, flow: Flow) {
        let Some(l) = self.legs.get(&leg) else {
            return self.respond(now, id, &reply(&message, 481, None));
        };
        l.ladder.add(now.wall, l.flow, leg, message.method().map_or("", Method::as_str));
        self.in_dialog(now, leg, id, message, flow);
        self.collect(now);
    }

    /// The names of a leg's dialog, once the peer has its tag in it.
    pub fn dialog(&self, leg: LegId) -> Option<DialogNames> {
        let leg = self.legs.get(&leg)?;
        Some(DialogNames {
            call_id: leg.call_id.to_string(),
            ours: leg.local_tag.clone(),
            theirs: leg.remote_tag.clone()?,
        })
    }

    /// Our tag of a leg's dialog.
    pub fn tag(&self, leg: LegId) -> String {
        self.identifiers.seal(Kind::Tag, leg.0)
    }

    /// The leg that a tag of ours belongs to.
    pub fn leg_of(&self, tag: &str) -> Option<LegId> {
        self.identifiers.open(Kind::Tag, tag).map(LegId)
    }

    /// The leg that a `Replaces` value names (RFC 3891, 3): `to-tag` is our tag of its dialog, `from-tag` the peer's.
    pub fn replaced(&self, value: &str) -> Result<Replaced, ReplacesError> {
        let mut parts = value.split(';').map(str::trim);
        let call_id = parts.next().unwrap_or_default();
        let (mut to, mut from, mut early_only) = (None, None, false);
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            let twice = match name.as_str() {
                "to-tag" => to.replace(value).is_some(),
                "from-tag" => from.replace(value).is_some(),
                "early-only" => std::mem::replace(&mut early_only, true),
                _ => false,
            };
            if twice {
                return Err(ReplacesError::Malformed);
            }
        }
        let (Some(to), Some(from)) = (to.filter(|t| !t.is_empty()), from.filter(|t| !t.is_empty())) else {
            return Err(ReplacesError::Malformed);
        };
        let leg = self.leg_of(to).and_then(|leg| self.legs.get(&leg));
        let leg = leg.filter(|l| *l.call_id == *call_id && l.remote_tag.as_deref() == Some(from));
        let leg = leg.ok_or(ReplacesError::Unknown)?;
        match leg.state {
            // An early dialog that the peer began is not ours to replace.
            State::Incoming => Err(ReplacesError::Unknown),
            State::Confirmed if early_only => Err(ReplacesError::Answered),
            _ => Ok(Replaced { leg: leg.id, early: leg.state == State::Calling }),
        }
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
        self.collect(now);
    }

    /// Answers a request of a stranger; see [`Transactions::respond_once`].
    pub fn respond_once(&mut self, now: Now, id: Id, response: &Message) {
        let code = response.code().unwrap_or(0);
        self.transactions.respond_once(id, response);
        metrics::counter!("hypha_sip_responses_total", "code" => CODES[usize::from(code / 100).min(6)])
            .increment(1);
        self.collect(now);
    }

    /// Sends a request outside any dialog; [`Output::Answer`] follows. `build` is given a `Via`.
    pub fn send(&mut self, now: Now, flow: Flow, build: impl FnOnce(String, String) -> Message) -> Id {
        let message = build(self.via(flow), self.contact(flow));
        let id = self.transactions.request(now.at, message, flow);
        self.purposes.insert(id, Purpose::Own);
        self.collect(now);
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
        new.invite_cseq = new.remote_cseq;
        new.wants_reliable = message.lists(&Name::Require, "100rel");
        new.peer_updates = message.lists(&Name::Allow, "UPDATE");
        new.take_session(&message);
        new.retarget(&message);
        ladder.add(now.wall, new.flow, leg, "INVITE");
        let key = merge_key(&message);
        new.merge_key = Some(key.clone());
        self.merged.insert(key, leg);
        new.request = Some(message);
        self.legs.insert(leg, new);
        self.invites.insert(id, leg);
        self.transactions.respond(now.at, id, &trying);
        self.collect(now);
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

    /// A leg has this peer.
    pub fn belongs(&mut self, leg: LegId, owner: Owner) {
        if let Some(l) = self.legs.get_mut(&leg) {
            l.owner = Some(owner);
        }
    }

    pub fn owner(&self, leg: LegId) -> Option<&Owner> {
        self.legs.get(&leg)?.owner.as_ref()
    }

    /// A subscriber's phone with this contact has registered from another place: its calls are reached there too, if they were
    /// over `was`, where a NAT had it before, or over a connection that is no longer `alive`.
    pub fn rebound(
        &mut self,
        subscriber: &(String, String),
        contact: &str,
        was: Option<Flow>,
        is: Flow,
        alive: impl Fn(u64) -> bool,
    ) {
        let place = |uri: &str| Uri::parse(uri).ok().map(|u| (u.number(), u.host.to_owned(), u.port));
        let Some(contact) = place(contact) else { return };
        for leg in self.legs.values_mut() {
            let old = match leg.flow.transport {
                Transport::Udp => was.is_some_and(|was| was == leg.flow),
                _ => is.transport == leg.flow.transport && !alive(leg.flow.connection),
            };
            let of =
                |o: &Owner| matches!(o, Owner::Subscriber(d, i) if (d, i) == (&subscriber.0, &subscriber.1));
            let same = leg.owner.as_ref().is_some_and(of) && place(&leg.target).as_ref() == Some(&contact);
            if old && same && !leg.follows {
                leg.flow = is;
            }
        }
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
        self.collect(now);
    }

    // ---- time and transport

    pub fn timeout(&mut self, now: Now) {
        self.transactions.timeout(now.at);
        self.collect(now);
        while self.alarms.peek().is_some_and(|Reverse((at, ..))| *at <= now.at) {
            let Some(Reverse((at, leg, alarm))) = self.alarms.pop() else { break };
            match alarm {
                Alarm::Reliable => self.repeat_reliable(now, leg),
                Alarm::Session => self.session_due(now, at, leg),
                Alarm::HungUp => self.hung_up_long_ago(now, leg),
            }
        }
        self.collect(now);
    }

    /// A stream has closed: requests on it fail; a leg on it may come back on another.
    pub fn connection_lost(&mut self, now: Now, flow: Flow) {
        self.transactions.lost(flow);
        self.collect(now);
    }

    /// Bytes for a stream could not be sent at all.
    pub fn undeliverable(&mut self, now: Now, data: &Bytes) {
        let Ok(message) = Message::parse(data) else { return };
        let id = message.via().and_then(|v| self.transactions.id_of(v.branch()?));
        if let (Some(id), true) = (id, message.code().is_none()) {
            self.transactions.undeliverable(id);
            self.collect(now);
        }
    }

    /// Looks after the session's time: half of it where we refresh, all of it where the peer does.
    fn alarm_session(&mut self, now: Now, leg: LegId, (seconds, ours): (u32, bool)) {
        let limit = Duration::from_secs(u64::from(seconds));
        let after = if ours { limit / 2 } else { limit - (limit / 3).min(Duration::from_secs(32)) };
        if let Some(l) = self.legs.get_mut(&leg) {
            l.session_alarm = Some(now.at + after);
        }
        self.alarm(now.at + after, leg, Alarm::Session);
    }

    fn alarm(&mut self, at: Instant, leg: LegId, alarm: Alarm) {
        self.alarms.push(Reverse((at, leg, alarm)));
    }
}

const CODES: [&str; 7] = ["0", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx"];

/// Notes in the topmost `Via` where the request came from (RFC 3581; RFC 3261, 18.2.1); where answers go.
fn stamp(message: &mut Message, flow: Flow, symmetric: bool) -> Flow {
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
        Transport::Udp if !rport && !symmetric => {
            Flow { peer: SocketAddr::new(flow.peer.ip(), port), ..flow }
        }
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

/// A dialog's Call-ID and tags. A watcher that wants to replace it names our tag first (RFC 3891, `to-tag`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialogNames {
    pub call_id: String,
    pub ours: String,
    pub theirs: String,
}

/// A leg that `Replaces` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    pub leg: LegId,
    /// It has not been answered yet.
    pub early: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplacesError {
    /// 400: a tag is missing or comes twice.
    #[error("Replaces needs one to-tag and one from-tag")]
    Malformed,
    /// 481
    #[error("Replaces matches no dialog")]
    Unknown,
    /// 486: `early-only`, and the dialog is answered.
    #[error("the dialog is answered")]
    Answered,
}

/// Why a request of ours has no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    TimedOut,
    Undelivered,
}

/// `Session-Expires` of a message (RFC 4028, 4): seconds, and the refresher where it is named.
fn session_expires(message: &Message) -> Option<(u32, Option<Refresher>)> {
    let value = message.header(&Name::SessionExpires)?;
    let mut parts = value.split(';').map(str::trim);
    let seconds = parts.next()?.parse().ok()?;
    let refresher = parts.find_map(|p| {
        let (name, value) = p.split_once('=')?;
        let value = value.trim();
        name.trim().eq_ignore_ascii_case("refresher").then_some(())?;
        match () {
            () if value.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            () if value.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            () => None,
        }
    });
    Some((seconds, refresher))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresher {
    Uac,
    Uas,
}

/// Whether a request is to be refused with 422 (RFC 4028, 9): it asks for a shorter session than may be, and its sender
/// knows what that answer means.
pub(crate) fn session_too_short(message: &Message) -> bool {
    session_expires(message).is_some_and(|(seconds, _)| seconds < MIN_SE)
        && message.lists(&Name::Supported, "timer")
}
