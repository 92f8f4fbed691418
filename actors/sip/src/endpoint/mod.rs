//! The actor `sip/endpoint`: sockets and timers around the [`Agent`]. It is the one place of the family with IO; all of it
//! runs on the actor's thread.

mod invite;
mod message;
mod register;
pub mod stream;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use call::{CallMsg, Ladder, LegCommand, LegId, RecordsMsg, SignalMsg};
use kit::{Actor, Address, Cx, ExitReason};
use rand::RngCore;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Notify, mpsc},
};
use tokio_rustls::TlsAcceptor;

pub(crate) use register::Registrar;
use register::{Answer, warned};

use crate::{
    agent::{self, ALLOW, Agent, Now, Output, SUPPORTED},
    health::{self, TrunksHealth},
    transaction::{Flow, Id, Transport},
    wire::message::{MAX_MESSAGE, Message, Method, Name},
};

/// Bursts of datagrams wait here rather than being lost.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Streams open at once.
const STREAMS: usize = 20_000;
/// Registrations being kept at once; more get 503.
const AT_ONCE: usize = 10_000;
/// Datagrams taken before anything else gets its turn.
const BATCH: usize = 64;

/// Where SIP comes in.
#[derive(Debug, Clone)]
pub struct Listen {
    /// UDP and TCP.
    pub plain: SocketAddr,
    pub tls: Option<SocketAddr>,
    pub ws: Option<SocketAddr>,
    pub wss: Option<SocketAddr>,
    /// PEM files for TLS.
    pub certificate: std::path::PathBuf,
    pub key: std::path::PathBuf,
}

/// A socket that takes streams of one kind.
struct Door {
    transport: Transport,
    listener: TcpListener,
    local: SocketAddr,
    tls: Option<TlsAcceptor>,
}

/// Everything on the actor's thread that its tasks share.
struct Shared {
    agent: Agent,
    registrar: Registrar,
    calls: call::Services,
    trunks: invite::Trunks,
    health: TrunksHealth,
    /// Trunks whose neighbours have been asked how they are.
    asked: HashMap<Id, (String, String)>,
    /// Messages that were sent on, with who waits for the answer.
    messages: HashMap<Id, (Id, Box<Message>)>,
    udp: Arc<UdpSocket>,
    streams: HashMap<u64, mpsc::Sender<Bytes>>,
    by_peer: HashMap<(Transport, SocketAddr), u64>,
    next_stream: u64,
    registering: usize,
    /// Whose end we are told of.
    watched: HashSet<Address>,
    armed: Option<Instant>,
    wake: Rc<Notify>,
    myself: Weak<RefCell<Shared>>,
}

/// The actor; it ends with its sockets, and they with it.
pub(crate) struct EndpointActor {
    shared: Rc<RefCell<Shared>>,
    doors: Vec<Door>,
    local: SocketAddr,
    locals: HashMap<Transport, SocketAddr>,
}

impl EndpointActor {
    pub(crate) async fn bind(
        registrar: Registrar,
        calls: call::Services,
        health: TrunksHealth,
        listen: Listen,
    ) -> Result<Self, ExitReason> {
        let failed = |e: &dyn std::fmt::Display| {
            ExitReason::Error(format!("cannot listen for SIP on {}: {e}", listen.plain))
        };
        let (udp, tcp) = plain(listen.plain).await.map_err(|e| failed(&e))?;
        let local = udp.local_addr().map_err(|e| failed(&e))?;
        let wanted = [(Transport::Tls, listen.tls), (Transport::Ws, listen.ws), (Transport::Wss, listen.wss)];
        let mut doors = vec![Door { transport: Transport::Tcp, listener: tcp, local, tls: None }];
        for (transport, at) in wanted.into_iter().filter_map(|(t, at)| Some((t, at?))) {
            let failed = |e: &dyn std::fmt::Display| {
                ExitReason::Error(format!("cannot listen for SIP over {} on {at}: {e}", transport.upper()))
            };
            let tls = match transport {
                Transport::Tls | Transport::Wss => Some(acceptor(&listen).map_err(|e| failed(&e))?),
                _ => None,
            };
            let listener = TcpListener::bind(at).await.map_err(|e| failed(&e))?;
            let local = listener.local_addr().map_err(|e| failed(&e))?;
            doors.push(Door { transport, listener, local, tls });
        }
        let locals: HashMap<Transport, SocketAddr> = doors.iter().map(|d| (d.transport, d.local)).collect();
        let own = locals.clone();
        let salt = rand::rng().next_u64();
        let named = Box::new(move |transport, peer| named(*own.get(&transport).unwrap_or(&local), peer));
        let shared = Rc::new_cyclic(|myself| {
            RefCell::new(Shared {
                agent: Agent::new(salt, named),
                registrar,
                calls,
                trunks: invite::Trunks::default(),
                health,
                asked: HashMap::new(),
                messages: HashMap::new(),
                udp: Arc::new(udp),
                streams: HashMap::new(),
                by_peer: HashMap::new(),
                next_stream: 1,
                registering: 0,
                watched: HashSet::new(),
                armed: None,
                wake: Rc::default(),
                myself: myself.clone(),
            })
        });
        Ok(Self { shared, doors, local, locals })
    }
}

/// UDP and TCP on one port. Where any port will do, one is sought that is free for both.
async fn plain(listen: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if listen.port() == 0 { 32 } else { 1 };
    loop {
        tries -= 1;
        let udp = datagram_socket(listen)?;
        match TcpListener::bind(udp.local_addr()?).await {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && tries > 0 => {}
            tcp => return Ok((udp, tcp?)),
        }
    }
}

fn datagram_socket(listen: SocketAddr) -> std::io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    // The system may grant less; that costs retransmissions in a burst, nothing else.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    UdpSocket::from_std(socket.into())
}

/// How we name ourselves: the address we listen on; where that is all of them, the one the peer sees.
fn named(own: SocketAddr, peer: SocketAddr) -> String {
    if !own.ip().is_unspecified() {
        return own.to_string();
    }
    // Connecting a datagram socket sends nothing; it tells which way the system would go.
    let any: SocketAddr = SocketAddr::new(own.ip(), 0);
    let seen = std::net::UdpSocket::bind(any).and_then(|s| s.connect(peer).and_then(|()| s.local_addr()));
    SocketAddr::new(seen.map_or(IpAddr::from([127, 0, 0, 1]), |a| a.ip()), own.port()).to_string()
}

impl Shared {
    fn now(&self) -> Now {
        Now { at: tokio::time::Instant::now().into_std(), wall: self.registrar.node.clock().now() }
    }

    fn receive(&mut self, bytes: &Bytes, flow: Flow) {
        let now = self.now();
        self.agent.receive(now, bytes, flow);
    }

    /// Carries out what the agent wants, until it wants nothing more.
    fn flush(&mut self) {
        loop {
            let outputs = self.agent.outputs();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                match output {
                    Output::Send(flow, bytes) => self.send(flow, bytes),
                    Output::Event { leg, call, event } => {
                        let told = self
                            .registrar
                            .node
                            .registry()
                            .lookup::<CallMsg>(&call)
                            .map(|m| m.tell(CallMsg::Leg(leg, event)));
                        if !matches!(told, Ok(Ok(()))) {
                            // Its call is over, or does not keep up: the leg is of no use to anybody.
                            let now = self.now();
                            let cause = call::Cause::TEMPORARY_FAILURE;
                            self.agent.command(now, leg, &call, LegCommand::Release { cause, status: None });
                        }
                    }
                    Output::Request(id, message, flow) => self.request(id, message, flow),
                    Output::Answer(id, answer) => {
                        if let Some((asker, message)) = self.messages.remove(&id) {
                            let code = answer.as_ref().and_then(|a| a.code()).unwrap_or(408);
                            self.respond(asker, &message, (code, vec![]));
                        }
                        if let Some((domain, trunk)) = self.asked.remove(&id) {
                            let said = answer.as_ref().and_then(|a| a.code());
                            let text = said.map_or_else(|| "no answer".to_owned(), |c| c.to_string());
                            self.health.heard(&domain, &trunk, self.now().wall, said.is_some(), text);
                        }
                    }
                }
            }
        }
        let deadline = self.agent.deadline();
        if deadline.is_some_and(|d| self.armed.is_none_or(|armed| d < armed)) {
            self.wake.notify_one();
        }
    }

    fn send(&mut self, flow: Flow, bytes: Bytes) {
        if flow.transport == Transport::Udp {
            // A datagram that does not fit now is lost, as datagrams are; it will be sent again.
            if let Err(e) = self.udp.try_send_to(&bytes, flow.peer) {
                tracing::debug!(peer = %flow.peer, error = %e, "a datagram was not sent");
            }
            return;
        }
        let known = match flow.connection {
            0 => self.by_peer.get(&(flow.transport, flow.peer)).copied(),
            id => Some(id).filter(|id| self.streams.contains_key(id)),
        };
        // An answer to a connection that has gone, or a request on it: perhaps there is a newer one.
        let known = known.or_else(|| self.by_peer.get(&(flow.transport, flow.peer)).copied());
        if let Some(stream) = known.and_then(|id| self.streams.get(&id)) {
            if stream.try_send(bytes.clone()).is_err() {
                self.agent.undeliverable(&bytes);
            }
            return;
        }
        if flow.transport != Transport::Tcp {
            // Browsers and TLS phones connect to us; nobody listens there.
            self.agent.undeliverable(&bytes);
            return;
        }
        let Some((id, out)) = self.open(flow.transport, flow.peer) else {
            return self.agent.undeliverable(&bytes);
        };
        let waiting = self.streams.get(&id).is_some_and(|s| s.try_send(bytes).is_ok());
        debug_assert!(waiting, "a fresh queue has room");
        let weak = self.myself.clone();
        actix::spawn(async move {
            if let Ok(stream) = stream::connect(flow.peer).await {
                let flow = Flow { connection: id, ..flow };
                stream::serve(stream, out, |bytes| got(&weak, &bytes, flow)).await;
            }
            closed(&weak, flow.transport, flow.peer, id);
        });
    }

    fn open(&mut self, transport: Transport, peer: SocketAddr) -> Option<(u64, mpsc::Receiver<Bytes>)> {
        if self.streams.len() >= STREAMS {
            return None;
        }
        let id = self.next_stream;
        self.next_stream += 1;
        let (out, waiting) = mpsc::channel(stream::WAITING);
        self.streams.insert(id, out);
        self.by_peer.insert((transport, peer), id);
        Some((id, waiting))
    }

    // ---- requests outside dialogs

    fn respond(&mut self, id: Id, request: &Message, (code, headers): Answer) {
        let now = self.now();
        let tag = format!("h0.{:x}", self.registrar.node.random_id());
        let mut response = agent::reply(request, code, Some(&tag));
        for (name, value) in headers {
            response.push(name, value);
        }
        self.agent.respond(now, id, &response);
    }

    fn request(&mut self, id: Id, message: Box<Message>, flow: Flow) {
        if let Err(answer) = register::extensions(&message) {
            return self.respond(id, &message, answer);
        }
        let answer = match message.method() {
            Some(Method::Invite) => return self.invite(id, message, flow),
            Some(Method::Message) => return self.message(id, message, flow),
            Some(Method::Register) => return self.register(id, message, flow),
            Some(Method::Options) => (
                200,
                vec![
                    (Name::Allow, ALLOW.to_owned()),
                    (Name::Accept, "application/sdp".to_owned()),
                    (Name::Supported, SUPPORTED.to_owned()),
                ],
            ),
            Some(
                Method::Bye | Method::Prack | Method::Update | Method::Info | Method::Refer | Method::Notify,
            ) => (481, vec![]),
            Some(Method::Other(_)) => (501, vec![(Name::Allow, ALLOW.to_owned())]),
            _ => (405, vec![(Name::Allow, ALLOW.to_owned())]),
        };
        self.respond(id, &message, answer);
    }

    fn register(&mut self, id: Id, message: Box<Message>, flow: Flow) {
        if self.registering >= AT_ONCE {
            return self.respond(id, &message, warned(503, "too many registrations at once"));
        }
        self.registering += 1;
        let (weak, registrar) = (self.myself.clone(), self.registrar.clone());
        let local = format!("{} {}", flow.transport, self.agent.host(flow));
        actix::spawn(async move {
            let answer = registrar.register(&message, flow, local).await;
            let Some(shared) = weak.upgrade() else { return };
            let mut shared = shared.borrow_mut();
            shared.registering -= 1;
            shared.respond(id, &message, answer);
            shared.flush();
        });
    }

    fn invite(&mut self, id: Id, message: Box<Message>, flow: Flow) {
        let replaces = match message.header(&Name::Replaces) {
            None => None,
            Some(value) => match self.agent.replaced(value) {
                Some(leg) => Some(leg),
                None => return self.respond(id, &message, (481, vec![])),
            },
        };
        let leg = self.calls.board.next_leg();
        let incoming =
            match invite::incoming(&self.registrar, &mut self.trunks, &message, flow, leg, replaces) {
                Ok(incoming) => incoming,
                Err(answer) => return self.respond(id, &message, answer),
            };
        let (now, ladder) = (self.now(), Ladder::default());
        self.agent.adopt(now, id, message, flow, leg, &ladder);
        let (weak, calls) = (self.myself.clone(), self.calls.clone());
        actix::spawn(async move {
            let started = call::start(&calls, incoming, ladder).await;
            let Some(shared) = weak.upgrade() else { return };
            let mut shared = shared.borrow_mut();
            match started {
                Ok(call) => shared.agent.assign(leg, &call),
                Err(e) => {
                    tracing::error!(error = %e, "a call did not start");
                    let now = shared.now();
                    shared.agent.refuse(now, leg, call::Cause::CONGESTION);
                }
            }
            shared.flush();
        });
    }

    /// Asks every trunk's neighbour how it is.
    fn ask_neighbours(&mut self) {
        let picture = self.registrar.estate.picture();
        let known = |d: &str, t: &str| picture.domains.get(d).is_some_and(|d| d.trunks.contains_key(t));
        self.health.retain(known);
        let all =
            picture.domains.iter().flat_map(|(d, s)| s.trunks.keys().map(move |t| (d.clone(), t.clone())));
        for (domain, trunk) in all.collect::<Vec<_>>() {
            let now = self.now();
            let waits = self.asked.values().any(|(d, t)| *d == domain && *t == trunk);
            if !self.health.is_due(&domain, &trunk, now.wall)
                || (waits && !self.health.is_down(&domain, &trunk))
            {
                continue;
            }
            self.health.ask(&domain, &trunk, now.wall);
            let Some(peer) = self.trunks.peer(&picture, &domain, &trunk) else {
                self.health.heard(&domain, &trunk, now.wall, false, "unknown host");
                continue;
            };
            let flow = Flow { transport: Transport::Udp, peer, connection: 0 };
            let (tag, call) = (self.registrar.node.random_id(), self.registrar.node.random_id());
            let host = self.agent.host(flow);
            let id = self.agent.send(now, flow, |via, contact| {
                Message::request(Method::Options, format!("sip:{peer}"))
                    .with(Name::Via, via)
                    .with(Name::MaxForwards, "70")
                    .with(Name::From, format!("<sip:hypha@{host}>;tag={tag:x}"))
                    .with(Name::To, format!("<sip:{peer}>"))
                    .with(Name::CallId, format!("{call:x}@hypha"))
                    .with(Name::CSeq, "1 OPTIONS")
                    .with(Name::Contact, contact)
            });
            self.asked.insert(id, (domain, trunk));
        }
    }

    // ---- calls

    fn leg(&mut self, leg: LegId, call: &Address, command: LegCommand) {
        let now = self.now();
        match command {
            LegCommand::Call(out) => {
                let picture = self.registrar.estate.picture();
                let ladder = self.calls.board.ladder(call).unwrap_or_default();
                match invite::way(&self.trunks, &self.health, &picture, &out) {
                    Some(way) => self.agent.call(now, leg, call, &ladder, &out, way),
                    None => self.agent.unreachable(leg, call),
                }
            }
            command => self.agent.command(now, leg, call, command),
        }
    }
}

/// A message of a stream.
fn got(weak: &Weak<RefCell<Shared>>, bytes: &Bytes, flow: Flow) {
    if let Some(shared) = weak.upgrade() {
        let mut shared = shared.borrow_mut();
        shared.receive(bytes, flow);
        shared.flush();
    }
}

fn closed(weak: &Weak<RefCell<Shared>>, transport: Transport, peer: SocketAddr, id: u64) {
    if let Some(shared) = weak.upgrade() {
        let mut shared = shared.borrow_mut();
        shared.streams.remove(&id);
        if shared.by_peer.get(&(transport, peer)) == Some(&id) {
            shared.by_peer.remove(&(transport, peer));
        }
        shared.agent.connection_lost(id);
        shared.flush();
    }
}

/// The certificate and key of the configuration.
fn acceptor(listen: &Listen) -> Result<TlsAcceptor, String> {
    use tokio_rustls::rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    let of = |file: &std::path::Path, e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    if listen.certificate.as_os_str().is_empty() || listen.key.as_os_str().is_empty() {
        return Err("TLS wants [sip] certificate and key".into());
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&listen.certificate)
        .and_then(Iterator::collect)
        .map_err(|e| of(&listen.certificate, &e))?;
    let key = PrivateKeyDer::from_pem_file(&listen.key).map_err(|e| of(&listen.key, &e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|c| c.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| of(&listen.certificate, &e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes connections until the socket fails.
async fn accept(door: Door, weak: Weak<RefCell<Shared>>) -> std::io::Error {
    let Door { transport, listener, tls, .. } = door;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of file descriptors passes; anything else comes again and is seen then.
            Err(e) => {
                tracing::warn!(error = %e, "a SIP connection was not taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let Some(shared) = weak.upgrade() else { return std::io::ErrorKind::Interrupted.into() };
        let Some((id, out)) = shared.borrow_mut().open(transport, peer) else { continue };
        drop(shared);
        let (weak, tls) = (weak.clone(), tls.clone());
        actix::spawn(async move {
            let flow = Flow { transport, peer, connection: id };
            let take = |bytes: Bytes| got(&weak, &bytes, flow);
            match (tls, transport) {
                (None, Transport::Ws) => stream::serve_web(stream, out, take).await,
                (None, _) => stream::serve(stream, out, take).await,
                (Some(tls), _) => {
                    let shaken = tokio::time::timeout(stream::HANDSHAKE, tls.accept(stream)).await;
                    match shaken {
                        Ok(Ok(sealed)) if transport == Transport::Wss => {
                            stream::serve_web(sealed, out, take).await;
                        }
                        Ok(Ok(sealed)) => stream::serve(sealed, out, take).await,
                        // Whoever does not speak TLS is nobody to tell.
                        _ => {}
                    }
                }
            }
            closed(&weak, transport, peer, id);
        });
    }
}

/// Takes datagrams, many at a time.
async fn datagrams(udp: Arc<UdpSocket>, weak: Weak<RefCell<Shared>>) -> std::io::Error {
    let mut buffer = BytesMut::new();
    loop {
        if let Err(e) = udp.readable().await {
            return e;
        }
        let Some(shared) = weak.upgrade() else { return std::io::ErrorKind::Interrupted.into() };
        if let Err(e) = take_datagrams(&udp, &mut shared.borrow_mut(), &mut buffer) {
            return e;
        }
        drop(shared);
        tokio::task::yield_now().await;
    }
}

fn take_datagrams(udp: &UdpSocket, shared: &mut Shared, buffer: &mut BytesMut) -> std::io::Result<()> {
    for _ in 0..BATCH {
        buffer.resize(MAX_MESSAGE, 0);
        match udp.try_recv_from(buffer) {
            Ok((length, peer)) => {
                // Keep-alives: line ends, or nothing at all.
                if buffer[..length].iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                shared.receive(&bytes, Flow { transport: Transport::Udp, peer, connection: 0 });
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
            // ICMP told that somebody we sent to has gone.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(e) => return Err(e),
        }
    }
    shared.flush();
    Ok(())
}

/// Looks after the neighbours: their names, and whether they answer.
async fn neighbours(weak: Weak<RefCell<Shared>>) {
    loop {
        let names = {
            let Some(shared) = weak.upgrade() else { return };
            let shared = shared.borrow();
            shared.trunks.names(&shared.registrar.estate.picture())
        };
        let mut found = HashMap::new();
        for name in names {
            let address = tokio::net::lookup_host((name.as_str(), 0)).await.ok().and_then(|mut a| a.next());
            if let Some(address) = address {
                found.insert(name, address.ip());
            }
        }
        {
            let Some(shared) = weak.upgrade() else { return };
            let mut shared = shared.borrow_mut();
            shared.trunks.resolve(found);
            shared.ask_neighbours();
            shared.flush();
        }
        tokio::time::sleep(health::DOWN).await;
    }
}

/// Wakes the agent when something is due.
async fn timers(weak: Weak<RefCell<Shared>>, wake: Rc<Notify>) {
    loop {
        let deadline = {
            let Some(shared) = weak.upgrade() else { return };
            let mut shared = shared.borrow_mut();
            let deadline = shared.agent.deadline();
            shared.armed = deadline;
            deadline
        };
        match deadline {
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at.into()) => {}
                () = wake.notified() => continue,
            },
            None => {
                wake.notified().await;
                continue;
            }
        }
        let Some(shared) = weak.upgrade() else { return };
        let mut shared = shared.borrow_mut();
        let now = shared.now();
        shared.agent.timeout(now);
        shared.flush();
    }
}

impl Actor for EndpointActor {
    type Msg = SignalMsg;

    const MAILBOX: u32 = 100_000;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        tracing::info!(udp = %self.local, streams = ?self.locals, "SIP");
        let weak = Rc::downgrade(&self.shared);
        let (udp, wake) = {
            let shared = self.shared.borrow();
            (shared.udp.clone(), shared.wake.clone())
        };
        let failed = |e: std::io::Error| Err(ExitReason::Error(format!("a SIP socket failed: {e}")));
        cx.spawn(datagrams(udp, weak.clone()), move |_, e, _| failed(e));
        for door in self.doors.drain(..) {
            cx.spawn(accept(door, weak.clone()), move |_, e, _| failed(e));
        }
        cx.spawn(neighbours(weak.clone()), |_, (), _| Ok(()));
        cx.spawn(timers(weak, wake), |_, (), _| Ok(()));
        Ok(())
    }

    fn handle(&mut self, msg: SignalMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let mut shared = self.shared.borrow_mut();
        match msg {
            SignalMsg::Leg { leg, call, command } => {
                if shared.watched.insert(call.clone()) {
                    cx.monitor(&call, |down| SignalMsg::CallDown {
                        call: down.address,
                        crashed: down.reason != ExitReason::Normal,
                    });
                }
                shared.leg(leg, &call, command);
            }
            SignalMsg::Moved { leg, call } => shared.agent.moved(leg, &call),
            SignalMsg::CallDown { call, crashed } => {
                shared.watched.remove(&call);
                let now = shared.now();
                shared.agent.abandon(now, &call);
                if crashed {
                    let records = Address::new(call::RECORDS).map_err(ExitReason::error)?;
                    if let Ok(records) = cx.lookup::<RecordsMsg>(&records) {
                        let _ = records.tell(RecordsMsg::Lost { call });
                    }
                }
            }
        }
        shared.flush();
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        let Ok(shared) = self.shared.try_borrow() else { return serde_json::Value::Null };
        let (legs, transactions) = shared.agent.sizes();
        serde_json::json!({
            "listen": self.local,
            "tls": self.locals.get(&Transport::Tls),
            "ws": self.locals.get(&Transport::Ws),
            "wss": self.locals.get(&Transport::Wss),
            "legs": legs,
            "transactions": transactions,
            "streams": shared.streams.len(),
            "calls_watched": shared.watched.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn any_port_is_one_that_is_free_for_both() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut held = Vec::new();
        for _ in 0..200 {
            // Ports that only TCP holds are met sooner or later.
            held.push(TcpListener::bind(any).await.expect("a port"));
            let (udp, tcp) = plain(any).await.expect("two sockets");
            assert_eq!(udp.local_addr().expect("bound"), tcp.local_addr().expect("bound"));
        }
        let taken = held[0].local_addr().expect("bound");
        assert!(plain(taken).await.is_err(), "a port that was asked for is that one or none");
    }
}
