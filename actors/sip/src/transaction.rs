//! Transactions (RFC 3261, 17, as RFC 6026 corrects it) for a user agent. One plain value holds all of them; it is given
//! messages and the time, and says what to send and what has ended. What a finished one keeps is the bytes it may have to
//! send again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::wire::message::{Message, Method, Name};

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
    /// A request of ours got no final answer.
    Unanswered(Id),
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
    /// Part of every branch: an answer from somebody who never saw the request does not fit.
    salt: u64,
    server: HashMap<Id, Server>,
    keys: HashMap<Box<str>, Id>,
    client: HashMap<ClientKey, Client>,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    out: Vec<Output>,
}

/// What RFC 3261 branches begin with.
const COOKIE: &str = "z9hG4bK";

impl Transactions {
    pub fn new(salt: u64) -> Self {
        Self {
            next: 1,
            salt,
            server: HashMap::new(),
            keys: HashMap::new(),
            client: HashMap::new(),
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
        let key = server_key(request, if *method == Method::Ack { &Method::Invite } else { method })?;
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
                server.last = None;
                let ends = now + if flow.transport.reliable() { Duration::ZERO } else { T4 };
                server.ends = Some(ends);
                self.timers.push(Reverse((ends, Timer::Server(id))));
                Some(Arrival::Acknowledged)
            }
            ServerState::Accepted => None,
            _ => Some(Arrival::Again),
        }
    }

    /// The INVITE that a CANCEL is about (RFC 3261, 9.2).
    pub fn cancelled(&self, cancel: &Message) -> Option<Id> {
        self.keys.get(server_key(cancel, &Method::Invite)?.as_str()).copied()
    }

    /// Answers a request. A second final answer is not sent.
    pub fn respond(&mut self, now: Instant, id: Id, response: &Message) {
        let Some(server) = self.server.get_mut(&id) else { return };
        let code = response.code().unwrap_or(500);
        if server.state != ServerState::Proceeding {
            return;
        }
        let bytes = response.to_bytes();
        let flow = server.flow;
        server.last = Some(bytes.clone());
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

    /// Nobody will answer this request any more; when it comes again, it is a new one.
    pub fn abandon(&mut self, id: Id) {
        if self.server.get(&id).is_some_and(|s| s.state == ServerState::Proceeding)
            && let Some(server) = self.server.remove(&id)
        {
            self.keys.remove(&server.key);
        }
    }

    /// The ACK to a 2xx has come.
    pub fn acknowledged(&mut self, id: Id) {
        if let Some(server) = self.server.get_mut(&id).filter(|s| s.state == ServerState::Accepted) {
            server.resend = None;
            server.last = None;
            if let Some(ends) = server.ends {
                self.timers.push(Reverse((ends, Timer::Server(id))));
            }
        }
    }

    // ---- requests of ours

    /// The branch of the next request, for its `Via`.
    pub fn next_branch(&self) -> String {
        format!("{COOKIE}{:x}.{:x}", self.next, self.check(self.next))
    }

    fn check(&self, id: Id) -> u64 {
        self.salt ^ id.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// The number in a branch of ours.
    pub fn id_of(&self, branch: &str) -> Option<Id> {
        let (number, check) = branch.strip_prefix(COOKIE)?.split_once('.')?;
        let id = Id::from_str_radix(number, 16).ok()?;
        (u64::from_str_radix(check, 16).ok()? == self.check(id)).then_some(id)
    }

    /// Sends a request whose `Via` holds [`Transactions::next_branch`].
    pub fn request(&mut self, now: Instant, request: Message, flow: Flow) -> Id {
        let id = self.next;
        self.next += 1;
        self.start(now, (id, false), request, flow);
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

    /// Takes an INVITE of ours back; only one that has got a provisional answer may be (RFC 3261, 9.1).
    pub fn cancel(&mut self, now: Instant, id: Id) -> bool {
        let Some(client) = self.client.get(&(id, false)) else { return false };
        let (ClientState::Proceeding, Some(invite)) = (client.state, client.request.as_deref()) else {
            return false;
        };
        let flow = client.flow;
        let cancel = follow_up(invite, Method::Cancel, invite.header(&Name::To).cloned());
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

    /// Takes a response; its request, when it is news (for an INVITE every 2xx is: several may have answered).
    pub fn answered(&mut self, now: Instant, response: &Message) -> Option<Id> {
        let id = self.id_of(response.via()?.branch()?)?;
        let (_, method) = response.cseq()?;
        let key = (id, method == "CANCEL");
        let code = response.code()?;
        let client = self.client.get_mut(&key)?;
        let flow = client.flow;
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

    /// A request could not be sent: nobody will answer.
    pub fn undeliverable(&mut self, id: Id) {
        if self.client.remove(&(id, false)).is_some() {
            self.out.push(Output::Unanswered(id));
        }
    }

    /// Requests that wait on a flow, when its connection is lost.
    pub fn lost(&mut self, connection: u64) {
        let waiting = |c: &&Client| matches!(c.state, ClientState::Calling | ClientState::Proceeding);
        let on: Vec<ClientKey> = self
            .client
            .iter()
            .filter(|(_, c)| c.flow.connection == connection && waiting(c))
            .map(|(k, _)| *k)
            .collect();
        for (id, cancel) in on {
            self.client.remove(&(id, cancel));
            if !cancel {
                self.out.push(Output::Unanswered(id));
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
            let key = std::mem::take(&mut server.key);
            self.server.remove(&id);
            self.keys.remove(&key);
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
fn server_key(request: &Message, method: &Method) -> Option<String> {
    let via = request.via()?;
    if let Some(branch) = via.branch().filter(|b| b.len() > COOKIE.len() && b.starts_with(COOKIE)) {
        return Some(format!("{branch} {} {method}", via.sent_by));
    }
    // RFC 2543: the tag in To is the answer's, so it is no part.
    let (number, _) = request.cseq()?;
    let from = request.tag(&Name::From).unwrap_or_default();
    let via = request.header(&Name::Via)?;
    Some(format!("{} {number} {from} {} {via} {method}", request.call_id(), request.uri()))
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(transport: Transport) -> Flow {
        Flow { transport, peer: ([127, 0, 0, 1], 5070).into(), connection: 0 }
    }

    fn request(method: &str, branch: &str) -> Message {
        let text = format!(
            "{method} sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch={branch}\r\nFrom: <sip:a@h>;tag=1\r\n\
             To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\r\n"
        );
        Message::parse(&text.into()).expect("a request")
    }

    fn response(to: &Message, code: u16) -> Message {
        crate::agent::reply(to, code, Some("2"))
    }

    fn sent(t: &mut Transactions) -> Vec<String> {
        let text = |o| match o {
            Output::Send(_, b) => {
                String::from_utf8_lossy(&b).split("\r\n").next().unwrap_or_default().to_owned()
            }
            other => format!("{other:?}"),
        };
        t.outputs().map(text).collect()
    }

    /// Plays the timers until nothing is due any more; what was sent, with the milliseconds.
    fn play(t: &mut Transactions, start: Instant) -> Vec<(u128, String)> {
        let mut all = Vec::new();
        while let Some(at) = t.deadline() {
            t.timeout(at);
            all.extend(sent(t).into_iter().map(|s| ((at - start).as_millis(), s)));
        }
        all
    }

    #[test]
    fn an_invite_nobody_answers_is_sent_seven_times() {
        let (mut t, now) = (Transactions::new(7), Instant::now());
        let invite = request("INVITE", &t.next_branch());
        let id = t.request(now, invite, flow(Transport::Udp));
        assert_eq!(sent(&mut t).len(), 1);
        let all = play(&mut t, now);
        let times: Vec<u128> = all.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [500, 1500, 3500, 7500, 15_500, 31_500, 32_000]);
        assert_eq!(all[6].1, format!("{:?}", Output::Unanswered(id)));
        assert!(t.is_empty());
    }

    #[test]
    fn a_request_on_a_stream_is_sent_once() {
        let (mut t, now) = (Transactions::new(7), Instant::now());
        let bye = request("BYE", &t.next_branch());
        t.request(now, bye, flow(Transport::Tcp));
        assert_eq!(play(&mut t, now).len(), 2, "the request was there; then it is unanswered");
    }

    #[test]
    fn a_failure_is_acknowledged_and_again_when_it_comes_again() {
        let (mut t, now) = (Transactions::new(7), Instant::now());
        let invite = request("INVITE", &t.next_branch());
        let id = t.request(now, invite.clone(), flow(Transport::Udp));
        assert_eq!(t.answered(now, &response(&invite, 180)), Some(id));
        assert_eq!(t.answered(now, &response(&invite, 486)), Some(id));
        assert_eq!(t.answered(now, &response(&invite, 486)), None, "no news");
        assert_eq!(sent(&mut t), ["INVITE sip:b@h SIP/2.0", "ACK sip:b@h SIP/2.0", "ACK sip:b@h SIP/2.0"]);
        assert!(play(&mut t, now).is_empty() && t.is_empty());
    }

    #[test]
    fn a_cancel_waits_for_a_provisional_answer_and_shares_the_branch() {
        let (mut t, now) = (Transactions::new(7), Instant::now());
        let invite = request("INVITE", &t.next_branch());
        let id = t.request(now, invite.clone(), flow(Transport::Udp));
        assert!(!t.cancel(now, id));
        t.answered(now, &response(&invite, 100));
        assert!(t.cancel(now, id));
        assert_eq!(sent(&mut t), ["INVITE sip:b@h SIP/2.0", "CANCEL sip:b@h SIP/2.0"]);
        let mut to_cancel = response(&invite, 200);
        for (name, value) in &mut to_cancel.headers {
            if *name == Name::CSeq {
                *value = "1 CANCEL".into();
            }
        }
        assert_eq!(t.answered(now, &to_cancel), None, "that is for nobody");
        assert!(t.pending(id));
        assert_eq!(t.answered(now, &response(&invite, 487)), Some(id));
        play(&mut t, now);
        assert!(t.is_empty());
    }

    #[test]
    fn an_answer_from_who_never_saw_the_request_does_not_fit() {
        let (mut t, now) = (Transactions::new(7), Instant::now());
        let invite = request("INVITE", &t.next_branch());
        t.request(now, invite, flow(Transport::Udp));
        for branch in ["z9hG4bK1", "z9hG4bK1.0", "z9hG4bKffffffffffffffffff.1", "x", ""] {
            assert_eq!(t.answered(now, &response(&request("INVITE", branch), 200)), None, "{branch}");
        }
    }

    #[test]
    fn a_request_that_comes_again_gets_the_same_answer() {
        let (mut t, now) = (Transactions::new(7), Instant::now());
        let bye = request("BYE", "z9hG4bKx");
        let Some(Arrival::New(id)) = t.receive(now, &bye, flow(Transport::Udp)) else { panic!("it is new") };
        assert_eq!(t.receive(now, &bye, flow(Transport::Udp)), Some(Arrival::Again));
        assert!(sent(&mut t).is_empty());
        t.respond(now, id, &response(&bye, 200));
        t.respond(now, id, &response(&bye, 500));
        assert_eq!(t.receive(now, &bye, flow(Transport::Udp)), Some(Arrival::Again));
        assert_eq!(sent(&mut t), ["SIP/2.0 200 OK", "SIP/2.0 200 OK"]);
        play(&mut t, now);
        assert!(t.is_empty(), "after timer J");
    }

    #[test]
    fn an_answer_to_an_invite_goes_on_until_it_is_acknowledged() {
        for acknowledged in [false, true] {
            let (mut t, now) = (Transactions::new(7), Instant::now());
            let invite = request("INVITE", "z9hG4bKx");
            let Some(Arrival::New(id)) = t.receive(now, &invite, flow(Transport::Tcp)) else {
                panic!("it is new")
            };
            t.respond(now, id, &response(&invite, 200));
            if acknowledged {
                t.acknowledged(id);
            }
            assert_eq!(sent(&mut t).len(), 1);
            let all = play(&mut t, now);
            match acknowledged {
                true => assert!(all.is_empty(), "{all:?}"),
                false => {
                    assert!(all.len() > 8, "also on a stream: {all:?}");
                    assert_eq!(
                        all.last().map(|l| l.1.clone()),
                        Some(format!("{:?}", Output::Unacknowledged(id)))
                    );
                }
            }
            assert!(t.is_empty());
        }
    }

    #[test]
    fn a_refusal_of_an_invite_waits_for_its_ack() {
        let (mut t, now) = (Transactions::new(7), Instant::now());
        let invite = request("INVITE", "z9hG4bKx");
        let Some(Arrival::New(id)) = t.receive(now, &invite, flow(Transport::Udp)) else {
            panic!("it is new")
        };
        assert_eq!(t.cancelled(&request("CANCEL", "z9hG4bKx")), Some(id));
        t.respond(now, id, &response(&invite, 486));
        t.timeout(now + T1);
        assert_eq!(sent(&mut t), ["SIP/2.0 486 Busy Here", "SIP/2.0 486 Busy Here"]);
        assert_eq!(
            t.receive(now, &request("ACK", "z9hG4bKx"), flow(Transport::Udp)),
            Some(Arrival::Acknowledged)
        );
        assert!(play(&mut t, now).is_empty() && t.is_empty());
        assert_eq!(
            t.receive(now, &request("ACK", "z9hG4bKy"), flow(Transport::Udp)),
            None,
            "an ACK to a 2xx"
        );
    }

    #[test]
    fn a_flow_is_read_as_it_is_shown() {
        for text in ["udp 127.0.0.1:5060", "tls [::1]:5061", "wss 10.0.0.1:443"] {
            assert_eq!(text.parse::<Flow>().map(|f| f.to_string()), Ok(text.to_owned()));
        }
        for bad in ["", "udp", "udp 127.0.0.1", "sctp 127.0.0.1:1"] {
            assert_eq!(bad.parse::<Flow>(), Err(FlowError));
        }
    }

    #[test]
    fn requests_of_rfc_2543_are_known_again_too() {
        let (mut t, now) = (Transactions::new(7), Instant::now());
        let old = request("OPTIONS", "1");
        assert!(matches!(t.receive(now, &old, flow(Transport::Udp)), Some(Arrival::New(_))));
        assert_eq!(t.receive(now, &old, flow(Transport::Udp)), Some(Arrival::Again));
    }

    proptest! {
        /// Whatever comes in whatever order: nothing is kept for ever.
        #[test]
        fn everything_ends(steps in prop::collection::vec((0u8..7, 0usize..4, 100u16..700, 0u64..2000), 0..40)) {
            let (mut t, start) = (Transactions::new(7), Instant::now());
            let mut now = start;
            let mut ours: Vec<(Id, Message)> = Vec::new();
            let mut theirs: Vec<Id> = Vec::new();
            for (what, which, code, wait) in steps {
                now += Duration::from_millis(wait);
                t.timeout(now);
                let method = ["INVITE", "BYE", "OPTIONS", "ACK"][which];
                match what {
                    0 if method != "ACK" => {
                        let m = request(method, &t.next_branch());
                        ours.push((t.request(now, m.clone(), flow(Transport::Udp)), m));
                    }
                    1 | 2 => if let Some((_, m)) = ours.get(which) {
                        let _ = t.answered(now, &response(m, code));
                    },
                    3 => if let Some((id, _)) = ours.get(which) {
                        t.cancel(now, *id);
                    },
                    4 => if let Some(Arrival::New(id)) = t.receive(now, &request(method, &format!("z9hG4bK{code}")), flow(Transport::Udp)) {
                        theirs.push(id);
                    },
                    5 => if let Some(id) = theirs.get(which) {
                        t.respond(now, *id, &response(&request("INVITE", "z9hG4bK1"), code));
                    },
                    _ => if let Some(id) = theirs.get(which) {
                        t.acknowledged(*id);
                    },
                }
            }
            // What is never answered by its user is the user's; everything else ends by itself.
            for id in theirs {
                t.respond(now, id, &response(&request("INVITE", "z9hG4bK1"), 500));
            }
            for (_, m) in &ours {
                let _ = t.answered(now, &response(m, 500));
            }
            while let Some(at) = t.deadline() {
                t.timeout(at);
            }
            prop_assert!(t.is_empty());
        }
    }
}
