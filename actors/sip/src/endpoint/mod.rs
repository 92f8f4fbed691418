//! The actor `sip/endpoint`: sockets and timers around the [`Agent`]. It is the one place of the family with IO; all of it
//! runs on the actor's thread.

mod budget;
mod events;
mod invite;
mod message;
mod neighbours;
mod queue;
mod register;
mod socket;
pub mod stream;
mod uplinks;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use call::{CallMsg, Ladder, LegCommand, LegEvent, LegId, RecordsMsg, SignalMsg, witness::Written};
use kit::{Actor, Address, Cx, ExitReason, intake::SipIntake};
use tokio::sync::Notify;

use neighbours::neighbours;
pub(crate) use register::Registrar;
use register::{Answer, warned};
use socket::{Door, accept, acceptor, connector, datagrams, named, plain};
use tokio_rustls::TlsConnector;

use crate::{
    agent::{self, ALLOW, Agent, Now, Output, ReplacesError, SUPPORTED},
    health::TrunksHealth,
    identifiers::Identifiers,
    net::{Network, Port},
    resolve::Resolver,
    subscriptions::Subscriptions,
    transaction::{Flow, Id, Transport},
    wire::message::{Message, Method, Name},
};

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
    /// Our address as peers outside know it, where it is translated on the way.
    pub advertised: Option<String>,
    /// Authorities for neighbours over TLS: a file in PEM; none: the system's.
    pub authorities: Option<std::path::PathBuf>,
    /// A name server in place of the system's.
    pub dns: Option<SocketAddr>,
    pub intake: SipIntake,
    /// A network of this process in place of sockets, for replays.
    pub network: Option<Network>,
}

/// Everything on the actor's thread that its tasks share.
struct Shared {
    agent: Agent,
    registrar: Registrar,
    calls: call::Services,
    trunks: invite::Trunks,
    health: TrunksHealth,
    /// Legs that are being set up to trunks.
    tried: HashMap<LegId, (String, String)>,
    /// Trunks whose neighbours have been asked how they are.
    asked: HashMap<Id, (String, String)>,
    subscriptions: Subscriptions,
    /// Notifications under way, with their subscriptions.
    notified: HashMap<Id, u64>,
    notifications: u64,
    /// Trunks on which we register.
    uplinks: uplinks::Uplinks,
    /// Messages that were sent on, with who waits for the answer.
    messages: HashMap<Id, (Id, Box<Message>, Written, String)>,
    /// How many of them each subscriber has.
    writers: HashMap<String, usize>,
    udp: Arc<Port>,
    /// How neighbours over TLS are met.
    tls: Arc<std::sync::OnceLock<Result<TlsConnector, String>>>,
    authorities: Option<std::path::PathBuf>,
    resolver: Rc<Resolver>,
    streams: HashMap<u64, queue::Sender>,
    /// Bytes that wait for their readers.
    unread: queue::Waiting,
    streams_of: HashMap<IpAddr, usize>,
    unfinished: budget::Budget,
    intake: SipIntake,
    /// A third of the descriptors at most: RTP and the journal need theirs.
    most_streams: usize,
    by_peer: HashMap<(Transport, SocketAddr), u64>,
    /// Interfaces that have registered on a connection.
    registered_on: HashMap<u64, HashSet<(String, String)>>,
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
    /// Those that cannot be opened yet, and why.
    closed: Vec<(Transport, SocketAddr, String)>,
    /// Certificate and key.
    files: (std::path::PathBuf, std::path::PathBuf),
    local: SocketAddr,
    locals: HashMap<Transport, SocketAddr>,
    /// It is to end, at this time at the latest.
    leaves: Option<tokio::time::Instant>,
}

/// How long an endpoint that is to end waits for answers to its last requests, and between two looks.
const LEAVES: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

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
        let (udp, tcp) = match &listen.network {
            Some(network) => (network.open(listen.plain).map_err(|e| failed(&e))?, None),
            None => {
                let (udp, tcp) = plain(listen.plain).await.map_err(|e| failed(&e))?;
                (Port::of(udp).map_err(|e| failed(&e))?, Some(tcp))
            }
        };
        let local = udp.local().map_err(|e| failed(&e))?;
        let wanted = [(Transport::Tls, listen.tls), (Transport::Ws, listen.ws), (Transport::Wss, listen.wss)];
        let tcp = tcp.map(|listener| Door { transport: Transport::Tcp, listener, local, tls: None });
        let mut doors: Vec<Door> = tcp.into_iter().collect();
        let mut closed = Vec::new();
        for (transport, at) in wanted.into_iter().filter_map(|(t, at)| Some((t, at?))) {
            match socket::open(transport, at, &listen.certificate, &listen.key).await {
                Ok(door) => doors.push(door),
                // Telephony goes on without it, and it is tried again.
                Err(why) => closed.push((transport, at, why)),
            }
        }
        let mut locals: HashMap<Transport, SocketAddr> =
            doors.iter().map(|d| (d.transport, d.local)).collect();
        locals.extend(closed.iter().map(|(transport, at, _)| (*transport, *at)));
        let own = locals.clone();
        let identifiers = Identifiers::new(&registrar.node.random_key());
        let advertised = listen.advertised.clone();
        let named = Box::new(move |transport, peer| {
            named(*own.get(&transport).unwrap_or(&local), peer, advertised.as_deref())
        });
        let estate = registrar.estate.clone();
        let symmetric = Box::new(move |message: &Message| invite::is_symmetric(&estate.picture(), message));
        let shared = Rc::new_cyclic(|myself| {
            RefCell::new(Shared {
                agent: Agent::new(identifiers, named).symmetric(symmetric),
                registrar,
                calls,
                trunks: invite::Trunks::default(),
                health,
                tried: HashMap::new(),
                asked: HashMap::new(),
                subscriptions: Subscriptions::default(),
                notified: HashMap::new(),
                notifications: 0,
                uplinks: uplinks::Uplinks::default(),
                messages: HashMap::new(),
                writers: HashMap::new(),
                udp: Arc::new(udp),
                tls: Arc::default(),
                authorities: listen.authorities.clone(),
                resolver: Rc::new(Resolver::new(listen.dns)),
                streams: HashMap::new(),
                unread: queue::Waiting::default(),
                streams_of: HashMap::new(),
                unfinished: budget::Budget::default(),
                intake: listen.intake,
                most_streams: listen.intake.connections.min(descriptors() / 3),
                by_peer: HashMap::new(),
                registered_on: HashMap::new(),
                next_stream: 1,
                registering: 0,
                watched: HashSet::new(),
                armed: None,
                wake: Rc::default(),
                myself: myself.clone(),
            })
        });
        let files = (listen.certificate, listen.key);
        Ok(Self { shared, doors, closed, files, local, locals, leaves: None })
    }
}

/// Whether a certificate and its key can be used for TLS.
pub fn certificate(certificate: &std::path::Path, key: &std::path::Path) -> Result<(), String> {
    acceptor(certificate, key).map(drop)
}

/// Whether a file holds certificates of authorities.
pub fn authorities(file: &std::path::Path) -> Result<(), String> {
    use tokio_rustls::rustls::{
        RootCertStore,
        pki_types::{CertificateDer, pem::PemObject},
    };
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|e| format!("{}: {e}", file.display()))?;
    match RootCertStore::empty().add_parsable_certificates(read).0 {
        0 => Err(format!("no certificate of an authority is in {}", file.display())),
        _ => Ok(()),
    }
}

/// Descriptors that the process may have.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
}

impl Shared {
    fn now(&self) -> Now {
        Now { at: tokio::time::Instant::now().into_std(), wall: self.registrar.node.clock().now() }
    }

    /// For times of registrations and subscriptions, which a step of the wall clock neither ends nor prolongs.
    fn steady(&self) -> chrono::DateTime<chrono::Utc> {
        self.registrar.node.clock().steady()
    }

    fn receive(&mut self, bytes: &Bytes, flow: Flow) {
        let now = self.now();
        self.agent.receive(now, bytes, flow);
        // At once: what follows in the same batch may be about what this began.
        self.flush();
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
                        if self.tried.contains_key(&leg) {
                            self.trunk_heard(leg, &event);
                        }
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
                    Output::Unproven(leg, id, message, flow) => self.unproven(leg, id, *message, flow),
                    Output::Answer(id, answer) if self.notify_answered(id, answer.as_deref()) => {}
                    Output::Answer(id, answer) if self.uplink_answered(id, answer.as_deref()) => {}
                    Output::Answer(id, answer) => {
                        if let Some((asker, message, written, writer)) = self.messages.remove(&id) {
                            if let Some(count) = self.writers.get_mut(&writer) {
                                *count -= 1;
                                if *count == 0 {
                                    self.writers.remove(&writer);
                                }
                            }
                            let code = answer.as_ref().and_then(|a| a.code()).unwrap_or(408);
                            self.tell_written(written, (200..300).contains(&code));
                            self.respond(asker, &message, (code, vec![]));
                        }
                        if let Some((domain, trunk)) = self.asked.remove(&id) {
                            let said = answer.as_ref().and_then(|a| a.code());
                            let text = said.map_or_else(|| "no answer".to_owned(), |c| c.to_string());
                            self.health.heard(&domain, &trunk, self.now().wall, said.is_some(), text);
                            if said.is_none() {
                                self.trunks.turn(&domain, &trunk);
                            }
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
            if let Err(e) = self.udp.send(&bytes, flow.peer) {
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
            if !stream.send(bytes.clone()) {
                metrics::counter!("hypha_sip_refused_total", "reason" => "unread").increment(1);
                let now = self.now();
                self.agent.undeliverable(now, &bytes);
            }
            return;
        }
        // Browsers and TLS phones connect to us, nobody listens there; a neighbour does, and has a name to prove.
        let name = (flow.transport == Transport::Tls)
            .then(|| self.trunks.name_of(&self.registrar.estate.picture(), flow.peer))
            .flatten();
        let connects = flow.transport == Transport::Tcp || name.is_some();
        let opened = connects.then(|| self.open(flow.transport, flow.peer));
        let Some((id, out)) = opened.flatten() else {
            let now = self.now();
            return self.agent.undeliverable(now, &bytes);
        };
        let waiting = self.streams.get(&id).is_some_and(|s| s.send(bytes));
        if !waiting {
            tracing::debug!(peer = %flow.peer, "no room for what is sent over a stream");
        }
        let weak = self.myself.clone();
        let (tls, authorities, intake) = (self.tls.clone(), self.authorities.clone(), self.intake);
        actix::spawn(async move {
            let inner = Flow { connection: id, ..flow };
            let take = |bytes: Bytes| got(&weak, &bytes, inner);
            match (stream::connect(flow.peer, intake.handshake()).await, name) {
                (Ok(stream), None) => stream::serve(stream, out, intake, take).await,
                (Ok(stream), Some(name)) => {
                    let sealed = match connector(&tls, authorities).await {
                        Ok(connector) => stream::seal(&connector, &name, stream, intake.handshake()).await,
                        Err(e) => Err(e),
                    };
                    match sealed {
                        Ok(sealed) => stream::serve(sealed, out, intake, take).await,
                        Err(e) => {
                            tracing::warn!(peer = %flow.peer, name, error = e, "no TLS with a neighbour")
                        }
                    }
                }
                (Err(e), _) => tracing::debug!(peer = %flow.peer, error = %e, "no connection"),
            }
            closed(&weak, flow.transport, flow.peer, id);
        });
    }

    fn open(&mut self, transport: Transport, peer: SocketAddr) -> Option<(u64, queue::Receiver)> {
        let network = kit::throttle::network(peer.ip());
        let of_one = self.streams_of.get(&network).copied().unwrap_or(0);
        if self.streams.len() >= self.most_streams || of_one >= self.intake.connections_of_one {
            metrics::counter!("hypha_sip_refused_total", "reason" => "streams").increment(1);
            kit::intake::crowded(self.registrar.node.alarms(), "SIP connections", "sip");
            if let Some(withheld) = self.registrar.refusals.lock().allow(self.now().at) {
                tracing::warn!(address = %peer.ip(), withheld, "too many SIP connections; one was refused");
            }
            return None;
        }
        *self.streams_of.entry(network).or_default() += 1;
        let id = self.next_stream;
        self.next_stream += 1;
        let (out, waiting) = self.unread.queue();
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
        // A stranger's: it has shown no credentials, and nothing has come of it.
        let stranger = request.header(&Name::Authorization).is_none() && request.tag(&Name::To).is_none();
        let idle = code >= 300 || request.method() == Some(&Method::Options);
        match stranger && idle {
            true => self.agent.respond_once(now, id, &response),
            false => self.agent.respond(now, id, &response),
        }
    }

    /// A request in a dialog from a host that is not the dialog's peer: a phone that has moved proves that it is the leg's
    /// subscriber, a trunk's neighbour is known by its addresses.
    fn unproven(&mut self, leg: LegId, id: Id, message: Message, flow: Flow) {
        let picture = self.registrar.estate.picture();
        let proof = match self.agent.owner(leg) {
            Some(agent::Owner::Subscriber(domain, iface)) => {
                self.registrar.dialog_peer(&picture, &message, flow, domain, iface)
            }
            Some(agent::Owner::Trunk(domain, trunk, _)) => {
                let proven = self.registrar.trunk(&picture, &message, flow, &[domain]);
                proven.and_then(|found| match found {
                    Some((d, t)) if (&d, &t) == (domain, trunk) => Ok(()),
                    _ => Err(register::another_host()),
                })
            }
            None => Err(register::another_host()),
        };
        match proof {
            Ok(()) => {
                let now = self.now();
                self.agent.admit(now, leg, id, message, flow);
            }
            Err(answer) => {
                if answer.0 == 403 {
                    metrics::counter!("hypha_sip_refused_total", "reason" => "dialog_source").increment(1);
                    tracing::warn!(%flow, method = message.method().map_or("", Method::as_str), "request in a dialog from another host refused");
                }
                self.respond(id, &message, answer);
            }
        }
    }

    fn request(&mut self, id: Id, message: Box<Message>, flow: Flow) {
        if let Err(answer) = register::extensions(&message) {
            return self.respond(id, &message, answer);
        }
        let answer = match message.method() {
            Some(Method::Invite) => return self.invite(id, message, flow),
            Some(Method::Message) => return self.message(id, message, flow),
            Some(Method::Register) => return self.register(id, message, flow),
            Some(Method::Subscribe) => return self.subscribe(id, message, flow),
            Some(Method::Options) => (
                200,
                vec![
                    (Name::Allow, ALLOW.to_owned()),
                    (Name::Accept, crate::wire::body::ACCEPT.to_owned()),
                    (Name::Supported, SUPPORTED.to_owned()),
                    (Name::AllowEvents, crate::subscriptions::EVENTS.to_owned()),
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
        if self.registering >= self.intake.registering {
            return self.respond(id, &message, warned(503, "too many registrations at once"));
        }
        self.registering += 1;
        let (weak, registrar) = (self.myself.clone(), self.registrar.clone());
        let local = format!("{} {}", flow.transport, self.agent.host(flow));
        actix::spawn(async move {
            let before = registrar.named(&message).map(|n| registrar.contacts_of(&n)).unwrap_or_default();
            let answer = registrar.register(&message, flow, local).await;
            let registered = (answer.0 == 200).then(|| registrar.named(&message)).flatten();
            let Some(shared) = weak.upgrade() else { return };
            let mut shared = shared.borrow_mut();
            shared.registering -= 1;
            if let Some(registered) = &registered {
                // A NAT has given the phone another port: its calls are reached there too.
                let after = shared.registrar.contacts_of(registered);
                let is = flow.to_string();
                let moved = |r: &&domain::Registration| {
                    r.received == is && !before.iter().any(|b| b.contact == r.contact && b.received == is)
                };
                // A refresh from the same place, as nearly all are, costs its calls nothing.
                for r in after.iter().filter(moved) {
                    let was =
                        before.iter().find(|b| b.contact == r.contact).and_then(|b| b.received.parse().ok());
                    let Shared { agent, streams, .. } = &mut *shared;
                    agent.rebound(registered, &r.contact, was, flow, |c| streams.contains_key(&c));
                }
            }
            if let Some(registered) = registered.filter(|_| flow.connection != 0) {
                match shared.streams.contains_key(&flow.connection) {
                    true => drop(shared.registered_on.entry(flow.connection).or_default().insert(registered)),
                    // It closed while its registration was being kept.
                    false => shared.registrar.closed(registered, flow),
                }
            }
            shared.respond(id, &message, answer);
            shared.flush();
        });
    }

    fn invite(&mut self, id: Id, message: Box<Message>, flow: Flow) {
        // A party of a call under way may still be replaced: that is no new call.
        if self.calls.board.is_draining() && message.header(&Name::Replaces).is_none() {
            metrics::counter!("hypha_sip_refused_total", "reason" => "draining").increment(1);
            let (code, mut headers) = warned(503, "this node takes no new calls");
            headers.push((Name::RetryAfter, "10".to_owned()));
            return self.respond(id, &message, (code, headers));
        }
        let replaces = match message.header(&Name::Replaces) {
            None => None,
            // RFC 3891, 3.
            Some(_) if message.all(&Name::Replaces).count() > 1 => {
                return self.respond(id, &message, warned(400, "more than one Replaces"));
            }
            Some(value) => match self.agent.replaced(value) {
                Ok(replaced) => Some(replaced.leg),
                Err(e) => {
                    let code = match e {
                        ReplacesError::Malformed => 400,
                        ReplacesError::Unknown => 481,
                        ReplacesError::Answered => 486,
                    };
                    return self.respond(id, &message, warned(code, &e.to_string()));
                }
            },
        };
        let leg = self.calls.board.next_leg();
        let incoming =
            match invite::incoming(&self.registrar, &mut self.trunks, &message, flow, leg, replaces) {
                Ok(incoming) => incoming,
                Err(answer) => return self.respond(id, &message, answer),
            };
        let (now, ladder) = (self.now(), Ladder::default());
        let follows = match &incoming.origin {
            call::Origin::Trunk { name } => {
                !invite::behind_nat(&self.registrar.estate.picture(), &incoming.domain, name)
            }
            _ => false,
        };
        self.agent.adopt(now, id, message, flow, agent::Adopted { leg, ladder: &ladder, follows });
        let owner = match &incoming.origin {
            call::Origin::Subscriber { iface } => {
                agent::Owner::Subscriber(incoming.domain.clone(), iface.clone())
            }
            call::Origin::Trunk { name } => {
                self.trunks.owner(&self.registrar.estate.picture(), &incoming.domain, name)
            }
        };
        self.agent.belongs(leg, owner);
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

    // ---- calls

    fn leg(&mut self, leg: LegId, call: &Address, command: LegCommand) {
        let now = self.now();
        match command {
            LegCommand::Call(out) => {
                let picture = self.registrar.estate.picture();
                let ladder = self.calls.board.ladder(call).unwrap_or_default();
                let vault = &*self.registrar.vault;
                if let call::Target::Trunk { domain, trunk, last } = &out.target
                    && self.health.avoids(domain, trunk, *last, now.wall)
                {
                    return self.agent.avoided(leg, call);
                }
                match invite::way(&self.trunks, &self.health, &picture, vault, &out) {
                    Some(way) => {
                        if let call::Target::Trunk { domain, trunk, .. } = &out.target {
                            self.tried.insert(leg, (domain.clone(), trunk.clone()));
                        }
                        self.agent.call(now, leg, call, &ladder, &out, way);
                        let owner = match &out.target {
                            call::Target::Contact { domain, iface, .. } => {
                                agent::Owner::Subscriber(domain.clone(), iface.clone())
                            }
                            call::Target::Trunk { domain, trunk, .. } => {
                                self.trunks.owner(&picture, domain, trunk)
                            }
                        };
                        self.agent.belongs(leg, owner);
                    }
                    None => self.agent.unreachable(leg, call),
                }
            }
            command => {
                if let LegCommand::Release { cause: call::Cause::TIMER, .. } = &command {
                    self.trunk_failed(leg);
                }
                self.agent.command(now, leg, call, command);
            }
        }
    }

    /// A leg's news of its trunk: one that could not take a call is not the first choice for a while.
    fn trunk_heard(&mut self, leg: LegId, event: &LegEvent) {
        match event {
            LegEvent::Released { status: Some(408 | 500..=599), .. } => self.trunk_failed(leg),
            LegEvent::Progress { .. } | LegEvent::Answered { .. } => {
                if let Some((domain, trunk)) = self.tried.get(&leg) {
                    self.health.took_a_call(domain, trunk);
                }
                if matches!(event, LegEvent::Answered { .. }) {
                    self.tried.remove(&leg);
                }
            }
            LegEvent::Released { .. } => drop(self.tried.remove(&leg)),
            _ => {}
        }
    }

    fn trunk_failed(&mut self, leg: LegId) {
        if let Some((domain, trunk)) = self.tried.remove(&leg) {
            self.health.failed_a_call(&domain, &trunk, self.now().wall);
            self.trunks.turn(&domain, &trunk);
        }
    }
}

/// A message of a stream.
fn got(weak: &Weak<RefCell<Shared>>, bytes: &Bytes, flow: Flow) {
    if bytes.is_empty() {
        return;
    }
    if let Some(shared) = weak.upgrade() {
        shared.borrow_mut().receive(bytes, flow);
    }
}

fn closed(weak: &Weak<RefCell<Shared>>, transport: Transport, peer: SocketAddr, id: u64) {
    if let Some(shared) = weak.upgrade() {
        let mut shared = shared.borrow_mut();
        if shared.streams.remove(&id).is_some() {
            let network = kit::throttle::network(peer.ip());
            if let Some(count) = shared.streams_of.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    shared.streams_of.remove(&network);
                }
            }
        }
        if shared.by_peer.get(&(transport, peer)) == Some(&id) {
            shared.by_peer.remove(&(transport, peer));
        }
        let now = shared.now();
        let flow = Flow { transport, peer, connection: id };
        for registered in shared.registered_on.remove(&id).into_iter().flatten() {
            shared.registrar.closed(registered, flow);
        }
        shared.agent.connection_lost(now, flow);
        shared.flush();
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
        for (transport, at, why) in self.closed.drain(..) {
            let (files, alarms, weak) = (self.files.clone(), cx.node().alarms().clone(), weak.clone());
            let later = async move {
                let door = socket::open_later(transport, at, why, &files, &alarms).await;
                accept(door, weak).await
            };
            cx.spawn(later, move |_, e, _| failed(e));
        }
        // Calls end with their signalling; those that were open when it ended last have ended.
        let records = Address::new(call::RECORDS).map_err(ExitReason::error)?;
        if let Ok(records) = cx.lookup::<RecordsMsg>(&records) {
            let _ = records.tell(RecordsMsg::Lost { call: None });
        }
        cx.spawn(neighbours(weak.clone()), |_, (), _| Ok(()));
        cx.spawn(events::events(weak.clone()), |_, (), _| Ok(()));
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
            SignalMsg::Leave => {
                let over = self.leaves.is_none_or(|at| tokio::time::Instant::now() >= at);
                if over || !shared.agent.awaits() {
                    return Err(ExitReason::Shutdown);
                }
                cx.after(LOOK, SignalMsg::Leave);
            }
            SignalMsg::CallDown { call, crashed } => {
                shared.watched.remove(&call);
                let now = shared.now();
                shared.agent.abandon(now, &call);
                if crashed {
                    let records = Address::new(call::RECORDS).map_err(ExitReason::error)?;
                    if let Ok(records) = cx.lookup::<RecordsMsg>(&records) {
                        let _ = records.tell(RecordsMsg::Lost { call: Some(call) });
                    }
                }
            }
        }
        shared.flush();
        Ok(())
    }

    /// The last requests, BYEs above all, are answered first, or repeated where they were lost; for a while.
    fn exit_requested(&mut self, _: &ExitReason, cx: &mut Cx<'_, Self>) -> bool {
        if !self.shared.borrow().agent.awaits() {
            return true;
        }
        self.leaves = Some(tokio::time::Instant::now() + LEAVES);
        cx.after(LOOK, SignalMsg::Leave);
        false
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
            "subscriptions": shared.subscriptions.len(),
            "notifications": shared.notifications,
            "streams": shared.streams.len(),
            "calls_watched": shared.watched.len(),
        })
    }
}
