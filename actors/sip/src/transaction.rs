//! Transactions (RFC 3261, 17, as RFC 6026 corrects it) for a user agent. One plain value holds all of them; it is given
//! messages and the time, and says what to send and what has ended. What a finished one keeps is the bytes it may have to
//! send again.

mod kept;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kept::Kept;

use crate::{
    identifiers::{Identifiers, Kind},
    wire::message::{Message, Method, Name},
};

/// Round trip, longest pause between retransmissions of a request, longest life of a message in the network.
pub const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const T4: Duration = Duration::from_secs(5);
/// 64 × T1: timers B, D, F, H, J, L and M.
pub const LONG: Duration = Duration::from_secs(32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Transport {
    /// Whether the transport itself sends again what was lost.
    pub fn reliable(self) -> bool {
        self != Self::Udp
    }

    /// As `Via` has it.
    pub fn upper(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }
}

/// Where a message came from and answers go: a peer, and for streams the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    pub transport: Transport,
    pub peer: SocketAddr,
    /// Number of the connection; 0 for datagrams, and for a stream that is yet to be opened.
    pub connection: u64,
}

impl Flow {
    /// A datagram's.
    pub fn udp(peer: SocketAddr) -> Self {
        Self { transport: Transport::Udp, peer, connection: 0 }
    }

    /// The transport parameter of a URI for it: nothing for datagrams, the default (RFC 3261, 19.1.1).
    pub fn parameter(&self) -> String {
        match self.transport {
            Transport::Udp => String::new(),
            transport => format!(";transport={transport}"),
        }
    }

    /// Whether a message on `other` comes from the host that this flow leads to. Ports may differ over UDP: a NAT may choose
    /// a new one, and some peers send from another than they listen on.
    pub fn same_source(&self, other: Flow) -> bool {
        let host = |f: &Flow| f.peer.ip().to_canonical();
        host(self) == host(&other)
    }
}

impl std::fmt::Display for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.transport, self.peer)
    }
}

/// What [`Flow`] shows, read: a registration keeps where it came from so.
impl std::str::FromStr for Flow {
    type Err = FlowError;

    fn from_str(text: &str) -> Result<Self, FlowError> {
        let (transport, peer) = text.split_once(' ').ok_or(FlowError)?;
        let (transport, peer) = (transport.parse().ok(), peer.parse().ok());
        let (transport, peer) = transport.zip(peer).ok_or(FlowError)?;
        Ok(Self { transport, peer, connection: 0 })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transport and an address are wanted, as in \"udp 127.0.0.1:5060\"")]
pub struct FlowError;

/// Number of a transaction.
pub type Id = u64;

/// What the transactions want done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Send(Flow, Bytes),
    /// A request of ours got no final answer in its time.
    Unanswered(Id),
    /// A request of ours cannot reach its peer: its connection has closed, or none could be opened.
    Undelivered(Id),
    /// A final answer of ours to an INVITE was never acknowledged.
    Unacknowledged(Id),
}

/// What a request that arrived is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    New(Id),
    /// Seen before; what was answered, if anything, has been sent again.
    Again,
    /// The acknowledgement of a failure.
    Acknowledged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerState {
    Proceeding,
    /// A final answer that is no 2xx to an INVITE.
    Completed,
    /// Its ACK has come.
    Confirmed,
    /// A 2xx to an INVITE; it is sent again until [`Transactions::acknowledged`].
    Accepted,
}

struct Server {
    flow: Flow,
    invite: bool,
    key: Box<str>,
    state: ServerState,
    last: Option<Bytes>,
    resend: Option<(Instant, Duration)>,
    ends: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    Calling,
    Proceeding,
    Completed,
    Accepted,
}

struct Client {
    flow: Flow,
    state: ClientState,
    /// Until the final answer: the request.
    request: Option<Box<Message>>,
    /// What is sent again: the request, later its ACK.
    bytes: Bytes,
    resend: Option<(Instant, Duration)>,
    ends: Option<Instant>,
}

/// Which client transaction: its number, and whether it is the CANCEL of that number.
type ClientKey = (Id, bool);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Server(Id),
    Client(ClientKey),
}

/// All transactions of an endpoint.
pub struct Transactions {
    next: Id,
    /// Seals the branches: a response from a peer that never saw the request does not fit.
    identifiers: Identifiers,
    server: foldhash::HashMap<Id, Server>,
    /// What others choose; the hash is one that they cannot foresee.
    keys: HashMap<Box<str>, Id>,
    kept: Kept,
    client: foldhash::HashMap<ClientKey, Client>,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    out: Vec<Output>,
}

/// What RFC 3261 branches begin with.
const COOKIE: &str = "z9hG4bK";

impl Transactions {
    pub fn new(identifiers: Identifiers) -> Self {
        Self {
            next: 1,
            identifiers,
            server: foldhash::HashMap::default(),
            keys: HashMap::new(),
            kept: Kept::default(),
            client: foldhash::HashMap::default(),
            timers: BinaryHeap::new(),
            out: Vec::new(),
        }
    }

    /// Transactions held, for limits and inspection.
    pub fn len(&self) -> usize {
        self.server.len() + self.client.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is to be done since the last call.
    pub fn outputs(&mut self) -> std::vec::Drain<'_, Output> {
        self.out.drain(..)
    }

    /// When [`Transactions::timeout`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    fn send(&mut self, flow: Flow, bytes: Bytes) {
        self.out.push(Output::Send(flow, bytes));
    }

    // ---- requests of others

    /// Takes a request that has been validated; an ACK that fits nothing here belongs to a dialog.
    pub fn receive(&mut self, now: Instant, request: &Message, flow: Flow) -> Option<Arrival> {
        let method = request.method()?;
        let key = server_key(request, if *method == Method::Ack { &Method::Invite } else { method }, flow)?;
        let Some(&id) = self.keys.get(key.as_str()) else {
            if *method == Method::Ack {
                return None;
            }
            let id = self.next;
            self.next += 1;
            let (key, invite) = (key.into_boxed_str(), *method == Method::Invite);
            self.keys.insert(key.clone(), id);
            let state = ServerState::Proceeding;
            let server = Server { flow, invite, key, state, last: None, resend: None, ends: None };
            self.kept.begin(flow.peer, server.key.len());
            self.server.insert(id, server);
            return Some(Arrival::New(id));
        };
        let server = self.server.get_mut(&id)?;
        if *method != Method::Ack {
            // A 2xx to an INVITE is sent again by its own timer.
            if server.state != ServerState::Accepted
                && let Some(bytes) = server.last.clone()
            {
                self.send(flow, bytes);
            }
            return Some(Arrival::Again);
        }
        match server.state {
            ServerState::Completed => {
                server.state = ServerState::Confirmed;
                server.resend = None;
                let last = server.last.take();
                self.kept.less(server.flow.peer, last.map_or(0, |b| b.len()));
                let ends = now + if flow.transport.reliable() { Duration::ZERO } else { T4 };
                server.ends = Some(ends);
                self.timers.push(Reverse((ends, Timer::Server(id))));
                Some(Arrival::Acknowledged)
            }
            ServerState::Accepted => None,
            _ => Some(Arrival::Again),
        }
    }

    /// The INVITE that a CANCEL is about (RFC 3261, 9.2); it must come from where the INVITE did.
    pub fn cancelled(&self, cancel: &Message, flow: Flow) -> Option<Id> {
        self.keys.get(server_key(cancel, &Method::Invite, flow)?.as_str()).copied()
    }

    /// Answers a request. A second final answer is not sent.
    pub fn respond(&mut self, now: Instant, id: Id, response: &Message) {
        let Some(server) = self.server.get_mut(&id) else { return };
        let code = response.code().unwrap_or(500);
        if server.state != ServerState::Proceeding {
            return;
        }
        // Beyond the peer's share of memory, what a lost answer would cost is one more request.
        let accepts = server.invite && code < 300;
        if code >= 200 && !accepts && !self.kept.room(server.flow.peer) {
            return self.respond_once(id, response);
        }
        let bytes = response.to_bytes();
        let flow = server.flow;
        let before = server.last.replace(bytes.clone());
        self.kept.less(flow.peer, before.map_or(0, |b| b.len()));
        self.kept.add(flow.peer, bytes.len());
        if code >= 200 {
            let lossy = !flow.transport.reliable();
            let wait = |yes: bool| if yes { LONG } else { Duration::ZERO };
            let ends = match (server.invite, code) {
                (true, ..300) => {
                    server.state = ServerState::Accepted;
                    // The ACK goes from end to end: it is awaited on every transport.
                    server.resend = Some((now + T1, T1));
                    now + LONG
                }
                (true, _) => {
                    server.state = ServerState::Completed;
                    server.resend = lossy.then_some((now + T1, T1));
                    now + LONG
                }
                (false, _) => {
                    server.state = ServerState::Completed;
                    now + wait(lossy)
                }
            };
            server.ends = Some(ends);
            let first = server.resend.map_or(ends, |(at, _)| at);
            self.timers.push(Reverse((first, Timer::Server(id))));
        }
        self.send(flow, bytes);
    }

    /// Answers a request once and forgets it: when it comes again, it is a new one. An answer to a stranger is not repeated
    /// by itself, so that a forged source is sent no more than was received (RFC 3261, 26.3.2.4), and holds no memory.
    pub fn respond_once(&mut self, id: Id, response: &Message) {
        let Some(server) = self.server.get(&id) else { return };
        if server.state == ServerState::Proceeding {
            let (flow, bytes) = (server.flow, response.to_bytes());
            self.forget(id);
            self.send(flow, bytes);
        }
    }

    /// Nobody will answer this request any more; when it comes again, it is a new one.
    pub fn abandon(&mut self, id: Id) {
        if self.server.get(&id).is_some_and(|s| s.state == ServerState::Proceeding) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: Id) {
        let Some(server) = self.server.remove(&id) else { return };
        self.keys.remove(&server.key);
        self.kept.end(server.flow.peer, server.key.len());
        self.kept.less(server.flow.peer, server.last.map_or(0, |b| b.len()));
    }

    /// The ACK to a 2xx has come.
    pub fn acknowledged(&mut self, id: Id) {
        if let Some(server) = self.server.get_mut(&id).filter(|s| s.state == ServerState::Accepted) {
            server.resend = None;
            let last = server.last.take();
            self.kept.less(server.flow.peer, last.map_or(0, |b| b.len()));
            if let Some(ends) = server.ends {
                self.timers.push(Reverse((ends, Timer::Server(id))));
            }
        }
    }

    // ---- requests of ours

    /// The branch of the next request, for its `Via`.
    pub fn next_branch(&self) -> String {
        format!("{COOKIE}{}", self.identifiers.seal(Kind::Branch, self.next))
    }

    /// The number in a branch of ours.
    pub fn id_of(&self, branch: &str) -> Option<Id> {
        self.identifiers.open(Kind::Branch, branch.strip_prefix(COOKIE)?)
    }

    /// Sends a request whose `Via` holds [`Transactions::next_branch`].
    pub fn request(&mut self, now: Instant, request: Message, flow: Flow) -> Id {
        let id = self.next;
        self.next += 1;
        self.start(now, (id, false), request, flow);
        id
    }

    /// As [`Transactions::request`], but waits for a first answer only so long.
    pub fn request_within(&mut self, now: Instant, request: Message, flow: Flow, within: Duration) -> Id {
        let id = self.request(now, request, flow);
        if let Some(client) = self.client.get_mut(&(id, false)) {
            client.ends = Some(now + within);
            self.timers.push(Reverse((now + within, Timer::Client((id, false)))));
        }
        id
    }

    fn start(&mut self, now: Instant, key: ClientKey, request: Message, flow: Flow) {
        let bytes = request.to_bytes();
        let ends = now + LONG;
        let resend = (!flow.transport.reliable()).then_some((now + T1, T1));
        self.timers.push(Reverse((resend.map_or(ends, |(at, _)| at), Timer::Client(key))));
        let (state, request) = (ClientState::Calling, Some(Box::new(request)));
        let client = Client { flow, state, request, bytes: bytes.clone(), resend, ends: Some(ends) };
        self.client.insert(key, client);
        self.send(flow, bytes);
    }

    /// Takes an INVITE of ours back; only one that has got a provisional answer may be (RFC 3261, 9.1). `reason` goes with
    /// it (RFC 3326): a phone that is told `cause=200` shows no missed call.
    pub fn cancel(&mut self, now: Instant, id: Id, reason: Option<String>) -> bool {
        let Some(client) = self.client.get(&(id, false)) else { return false };
        let (ClientState::Proceeding, Some(invite)) = (client.state, client.request.as_deref()) else {
            return false;
        };
        let flow = client.flow;
        let mut cancel = follow_up(invite, Method::Cancel, invite.header(&Name::To).cloned());
        if let Some(reason) = reason {
            cancel.push(Name::Reason, reason);
        }
        if self.client.contains_key(&(id, true)) {
            return true;
        }
        self.start(now, (id, true), cancel, flow);
        // Whoever does not end it now is not waited for any longer (RFC 3261, 9.1).
        if let Some(client) = self.client.get_mut(&(id, false)) {
            client.ends = Some(now + LONG);
            self.timers.push(Reverse((now + LONG, Timer::Client((id, false)))));
        }
        true
    }

    /// Whether a request still waits for its final answer.
    pub fn pending(&self, id: Id) -> bool {
        self.client
            .get(&(id, false))
            .is_some_and(|c| matches!(c.state, ClientState::Calling | ClientState::Proceeding))
    }

    /// Whether any request of ours still waits for its final answer.
    pub fn awaits(&self) -> bool {
        self.client.values().any(|c| matches!(c.state, ClientState::Calling | ClientState::Proceeding))
    }

    /// Takes a response; its request, when it is news (for an INVITE every 2xx is: several may have answered). A response
    /// from another address than the request went to is dropped.
    pub fn answered(&mut self, now: Instant, response: &Message, from: Flow) -> Option<Id> {
        let id = self.id_of(response.via()?.branch()?)?;
        let (_, method) = response.cseq()?;
        let key = (id, method == "CANCEL");
        let code = response.code()?;
        let client = self.client.get_mut(&key)?;
        let flow = client.flow;
        if !flow.same_source(from) {
            metrics::counter!("hypha_sip_refused_total", "reason" => "response_source").increment(1);
            return None;
        }
        let invite = method == "INVITE";
        match client.state {
            ClientState::Calling | ClientState::Proceeding => {
                if code < 200 {
                    if invite {
                        client.resend = None;
                        if client.state == ClientState::Calling {
                            client.ends = None;
                        }
                    } else if let Some((_, pause)) = &mut client.resend {
                        *pause = T2;
                    }
                    client.state = ClientState::Proceeding;
                    return (!key.1).then_some(id);
                }
                let request = client.request.take();
                client.resend = None;
                let lossy = !flow.transport.reliable();
                client.bytes = Bytes::new();
                let linger = match (invite, code) {
                    (true, ..300) => {
                        client.state = ClientState::Accepted;
                        LONG
                    }
                    (true, _) => {
                        client.state = ClientState::Completed;
                        if let Some(invite) = request {
                            let to = response.header(&Name::To).cloned();
                            let ack = follow_up(&invite, Method::Ack, to).to_bytes();
                            client.bytes = ack.clone();
                            self.out.push(Output::Send(flow, ack));
                        }
                        if lossy { LONG } else { Duration::ZERO }
                    }
                    (false, _) => {
                        client.state = ClientState::Completed;
                        if lossy { T4 } else { Duration::ZERO }
                    }
                };
                client.ends = Some(now + linger);
                self.timers.push(Reverse((now + linger, Timer::Client(key))));
                (!key.1).then_some(id)
            }
            ClientState::Completed => {
                if invite && code >= 300 && !client.bytes.is_empty() {
                    let ack = client.bytes.clone();
                    self.send(flow, ack);
                }
                None
            }
            ClientState::Accepted => (200..300).contains(&code).then_some(id),
        }
    }

    /// A request could not be sent: no response will come.
    pub fn undeliverable(&mut self, id: Id) {
        if self.client.remove(&(id, false)).is_some() {
            self.out.push(Output::Undelivered(id));
        }
    }

    /// The connection of `flow` has closed: requests that wait on it, or on any connection to its peer, get no response.
    pub fn lost(&mut self, flow: Flow) {
        let waiting = |c: &Client| matches!(c.state, ClientState::Calling | ClientState::Proceeding);
        let on = |c: &Client| match c.flow.connection {
            0 => c.flow.transport == flow.transport && c.flow.peer == flow.peer,
            id => id == flow.connection,
        };
        let lost: Vec<ClientKey> =
            self.client.iter().filter(|(_, c)| waiting(c) && on(c)).map(|(k, _)| *k).collect();
        for (id, cancel) in lost {
            self.client.remove(&(id, cancel));
            if !cancel {
                self.out.push(Output::Undelivered(id));
            }
        }
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
        {
            let Some(Reverse((_, timer))) = self.timers.pop() else { break };
            match timer {
                Timer::Server(id) => self.server_due(now, id),
                Timer::Client(key) => self.client_due(now, key),
            }
        }
    }

    fn server_due(&mut self, now: Instant, id: Id) {
        let Some(server) = self.server.get_mut(&id) else { return };
        if server.ends.is_some_and(|ends| ends <= now) {
            let lost = server.resend.is_some() || (server.state == ServerState::Completed && server.invite);
            self.forget(id);
            if lost {
                self.out.push(Output::Unacknowledged(id));
            }
            return;
        }
        if let Some((at, pause)) = server.resend
            && at <= now
        {
            let pause = (pause * 2).min(T2);
            server.resend = Some((now + pause, pause));
            let next = (now + pause).min(server.ends.unwrap_or(now + pause));
            let (flow, bytes) = (server.flow, server.last.clone());
            self.timers.push(Reverse((next, Timer::Server(id))));
            if let Some(bytes) = bytes {
                self.send(flow, bytes);
            }
        }
    }

    fn client_due(&mut self, now: Instant, key: ClientKey) {
        let Some(client) = self.client.get_mut(&key) else { return };
        if client.ends.is_some_and(|ends| ends <= now) {
            let waiting = matches!(client.state, ClientState::Calling | ClientState::Proceeding);
            self.client.remove(&key);
            if waiting && !key.1 {
                self.out.push(Output::Unanswered(key.0));
            }
            return;
        }
        if let Some((at, pause)) = client.resend
            && at <= now
        {
            // An INVITE doubles without bound, everything else up to T2.
            let invite = client.request.as_ref().is_some_and(|r| r.method() == Some(&Method::Invite));
            let pause = if invite { pause * 2 } else { (pause * 2).min(T2) };
            client.resend = Some((now + pause, pause));
            let next = (now + pause).min(client.ends.unwrap_or(now + pause));
            let (flow, bytes) = (client.flow, client.bytes.clone());
            self.timers.push(Reverse((next, Timer::Client(key))));
            self.send(flow, bytes);
        }
    }
}

/// What makes a request the same again (RFC 3261, 17.2.3).
/// The host that a request comes from is a part: a stranger that has seen a branch neither begins nor ends its transactions.
fn server_key(request: &Message, method: &Method, flow: Flow) -> Option<String> {
    let (via, source) = (request.via()?, flow.peer.ip().to_canonical());
    if let Some(branch) = via.branch().filter(|b| b.len() > COOKIE.len() && b.starts_with(COOKIE)) {
        return Some(format!("{branch} {} {method} {source}", via.sent_by));
    }
    // RFC 2543: the tag in To is the answer's, so it is no part.
    let (number, _) = request.cseq()?;
    let from = request.tag(&Name::From).unwrap_or_default();
    let via = request.header(&Name::Via)?;
    Some(format!("{} {number} {from} {} {via} {method} {source}", request.call_id(), request.uri()))
}

/// CANCEL, and the ACK to a failure: like the INVITE, with its topmost `Via` alone.
fn follow_up(invite: &Message, method: Method, to: Option<bytestring::ByteString>) -> Message {
    let number = invite.cseq().map_or(1, |(n, _)| n);
    let word = method.as_str().to_owned();
    let mut message = Message::request(method, invite.uri());
    let copied = [Name::Via, Name::From];
    for name in &copied {
        if let Some(value) = invite.header(name) {
            message.push(name.clone(), value.clone());
        }
    }
    if let Some(to) = to {
        message.push(Name::To, to);
    }
    message.push(Name::CallId, invite.call_id());
    message.push(Name::CSeq, format!("{number} {word}"));
    message.push(Name::MaxForwards, "70");
    for route in invite.all(&Name::Route) {
        message.push(Name::Route, route.clone());
    }
    message
}

#[cfg(test)]
mod tests;
